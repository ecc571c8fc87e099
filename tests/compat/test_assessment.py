"""May two encoders share a gallery? The whole comparison and its edges."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from facenet.compat.assessment import assess_upgrade
from facenet.compat.cells import METRICS, score_cell
from facenet.compat.maps import apply, linear, procrustes
from facenet.compat.matching import draw_enrolment, draw_pairs, share_images, share_pairs
from facenet.compat.options import GateOptions
from facenet.console import plain
from facenet.errors import DataError
from facenet.evaluation.roc import roc
from tests.helpers.compat import ALONE, NEW, OLD, sets

LOOSE = GateOptions(max_negative_flips=1.0)


def test_the_parts_fit_together() -> None:
    given = sets()
    found = assess_upgrade(**given, steps=3, draws=50, gate=LOOSE)
    json.dumps(plain(found), allow_nan=False)
    assert found["encoders"] == {"old": OLD, "new": NEW, "reference": ALONE}
    assert found["images"] == {
        "shared": 100,
        **{f"only_{name}": 0 for name in given},
        "left_out": {name: [] for name in given},
    }
    old, mixed, new, best = (
        found["cells"][name]["verification"]["accuracy"] for name in ("old_old", "new_old", "new_new", "reference")
    )
    assert old < mixed < new
    row = found["yardsticks"]["accuracy"]
    assert row["gain"] == pytest.approx((mixed - old) / (best - old))
    assert row["tax"] == pytest.approx(best - new)
    assert found["gate"]["passed"]
    assert found["verdict"].startswith("compatible: new queries on the old gallery reach accuracy")
    assert found["mixed"][0]["accuracy"] == mixed
    assert found["intervals"]["accuracy"]["new_old"]["difference"] == pytest.approx(mixed - old)
    assert found["regressions"]["people"] == 20
    assert len(found["regressions"]["worst"]) <= 20
    assert found == assess_upgrade(**given, steps=3, draws=50, gate=LOOSE)


def test_the_drawn_curve_is_the_roc() -> None:
    given = sets()
    shared = share_images(given)
    pairs = share_pairs(shared, draw_pairs(shared))
    drawn = assess_upgrade(**given, steps=2, draws=2)["roc"]
    difference = shared.vectors["old"][pairs.first] - shared.vectors["old"][pairs.second]
    points = roc((difference**2).sum(1), pairs.same)
    for far, val in zip(drawn["far"], drawn["old_old"], strict=True):
        assert val == max(v for f, v in zip(points.far, points.val, strict=True) if f <= far)
    assert set(drawn) == {"far", "old_old", "new_old", "old_new", "new_new", "reference"}


def test_an_independent_net_crosses_at_chance_and_maps_mend_it() -> None:
    given = sets(30)
    fit = (given["old"].subset(range(75)), given["reference"].subset(range(75)))
    held = {name: embeddings.subset(range(75, 150)) for name, embeddings in given.items()}
    found = assess_upgrade(**held, fit=fit, steps=2, draws=20)
    rows = found["baselines"]
    assert (rows["of"], rows["fitted_on"], rows["scored_too"]) == ("reference", 75, 0)
    assert abs(rows["none"]["auc"] - 0.5) < 0.2 < rows["procrustes"]["auc"] - 0.4
    shared = share_images(held)
    pairs, enrolment = share_pairs(shared, draw_pairs(shared)), draw_enrolment(shared)
    for name, make_map in (("procrustes", procrustes), ("linear", linear)):
        mapped = apply(make_map(fit[1].vectors, fit[0].vectors), shared.vectors["reference"])
        cell = score_cell(shared, mapped, shared.vectors["old"], pairs, enrolment, mixed=True)
        assert rows[name] == cell.measures()
        assert set(rows[name]) == set(METRICS)
    alone = assess_upgrade(held["old"], held["reference"], fit=fit, steps=2, draws=20)
    assert alone["baselines"]["of"] == "new"
    assert alone["baselines"]["none"]["accuracy"] == alone["cells"]["new_old"]["verification"]["accuracy"]
    assert assess_upgrade(**given, fit=fit, steps=2, draws=20)["baselines"]["scored_too"] == 75
    with pytest.raises(DataError, match=f"fit_new: made by encoder {NEW[:12]}.*not by that of reference, {ALONE[:12]}"):
        assess_upgrade(**held, fit=(fit[0], held["new"]))


def test_equal_encoders_gain_nothing_and_lose_nothing() -> None:
    old = sets()["old"]
    found = assess_upgrade(old, old, steps=2, draws=20)
    row = found["yardsticks"]["accuracy"]
    assert (row["gain"], row["criterion"]) == (None, False)
    assert "nothing to gain" in row["reason"]
    assert all(one["negative"] == one["positive"] == 0 for one in found["flips"].values())
    assert found["gate"]["passed"]
    assert found["regressions"]["rank1_worse"] == 0


def test_images_of_one_set_are_listed() -> None:
    given = sets()
    pairs = draw_pairs(share_images(given))
    some = given["new"].subset(range(1, 100))
    with pytest.raises(DataError, match=r"not in all embeddings .first missing: p00/p00_0001"):
        assess_upgrade(given["old"], some, pairs)
    found = assess_upgrade(given["old"], some, pairs, allow_missing=True, steps=2, draws=20)
    assert found["images"]["left_out"] == {"old": ["p00/p00_0001"], "new": []}
    assert (found["images"]["shared"], found["images"]["only_old"]) == (99, 1)
    assert found["cells"]["new_old"]["verification"]["skipped"] > 0


def test_without_second_faces_identification_is_left_out_with_a_reason() -> None:
    given = sets(20, 5)
    shared = share_images({"old": given["old"], "new": given["new"]})
    pairs = draw_pairs(shared)
    unknown = {name: replace(given[name], identities=[""] * 100) for name in ("old", "new")}
    found = assess_upgrade(**unknown, pairs=pairs, steps=2, draws=20)
    assert found["yardsticks"]["rank1"]["reason"] == "not measured in every cell"
    assert "none of 0 people" in found["identification_left_out"]
    assert (found["mixed"][0]["rank1"], found["regressions"]["worst"]) == (None, [])
    assert set(found["intervals"]) == {"accuracy", "val_1e-1", "val_1e-2"}


def test_one_person_is_refused() -> None:
    given = sets(1, 6)
    with pytest.raises(DataError, match="people"):
        assess_upgrade(given["old"], given["new"])
    pairs = draw_pairs(share_images(sets(6)))
    one = pairs.subset([row for row in range(len(pairs)) if pairs.same[row]])
    with pytest.raises(DataError, match="same and different pairs"):
        assess_upgrade(sets(6)["old"], sets(6)["new"], one)
