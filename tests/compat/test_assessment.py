"""May two encoders share a gallery? The whole comparison, its edges, and the command with its gate and its record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from facenet.compat.assessment import assess_upgrade
from facenet.compat.cells import METRICS, score_cell
from facenet.compat.maps import apply, linear, procrustes
from facenet.compat.matching import draw_enrolment, draw_pairs, share_images, share_pairs
from facenet.console import plain
from facenet.data.pairs import write_pairs
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.record import write_record
from facenet.errors import DataError
from facenet.evaluation.roc import roc
from facenet.types import EmbeddingSet
from facenet.vectors import normalise
from tests.helpers.commands import Played, mistaken, play, succeed
from tests.helpers.compat import ALONE, NEW, OLD, sets
from tests.helpers.encoders import make

LOOSE = {"max_negative_flips": 1.0}


def test_the_parts_fit_together() -> None:
    given = sets()
    found = assess_upgrade(**given, steps=3, draws=50, gate_options=LOOSE)
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
    assert found == assess_upgrade(**given, steps=3, draws=50, gate_options=LOOSE)


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


# the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Old and new embeddings, pairs, and the encoder that the new ones say they are of."""
    place = tmp_path_factory.mktemp("compat")
    encoder = make()
    save_bundle(encoder, place / "encoder")
    given = sets()
    given["new"] = replace(given["new"], fingerprint=encoder.fingerprint)
    for name, embeddings in given.items():
        embeddings.save(place / name)
    write_pairs(place / "pairs.csv", draw_pairs(share_images(given)))
    return place


def arguments(folder: Path, *more: str) -> list[str]:
    return [f"old={folder / 'old'}", f"new={folder / 'new'}", f"pairs={folder / 'pairs.csv'}", "draws=50", *more]


def run(folder: Path, out: Path, *more: str) -> Played:
    return play("compat", *arguments(folder, f"encoder={folder / 'encoder'}", *more), out=out)


def test_the_gate_decides_exit_code_and_record(folder: Path, tmp_path: Path) -> None:
    before = (folder / "encoder" / "encoder.json").read_text()
    done = run(folder, tmp_path / "no", "gate.max_negative_flips=0.001")
    assert done.code == 4
    assert done.errors.startswith("error: compat: the gate did not pass: negative flips of new-old")
    assert done.errors.count("\n") == 1
    assert not done.metrics["gate"]["passed"]
    assert done.metrics["cells"]["new_old"]["verification"]["accuracy"] > 0.5
    assert (folder / "encoder" / "encoder.json").read_text() == before, "nothing is recorded"
    done = run(folder, tmp_path / "yes", "gate.max_negative_flips=0.5", f"reference={folder / 'reference'}")
    assert (done.code, done.errors) == (0, "")
    assert done.metrics["verdict"] in done.text
    assert done.metrics["compatible_with"] == [OLD]
    encoder = load_bundle(folder / "encoder")
    assert encoder.compatible_with == [OLD]
    assert encoder.fingerprint == json.loads(before)["fingerprint"]
    assert {path.name for path in (tmp_path / "yes").iterdir()} >= {"roc.svg", "mixed.csv", "regressions.csv"}
    assert (tmp_path / "yes" / "mixed.csv").read_text().startswith("share,accuracy,rank1,map\n0.0,")
    again = run(folder, tmp_path / "again", "gate.max_negative_flips=0.5")
    assert again.code == 0
    assert load_bundle(folder / "encoder").compatible_with == [OLD], "listed once"


def test_a_gallery_takes_the_new_encoder_only_after_the_check(folder: Path, tmp_path: Path) -> None:
    made = make()
    save_bundle(made, tmp_path / "encoder")
    gallery, new = f"gallery={tmp_path / 'gallery'}", f"encoder={tmp_path / 'encoder'}"
    succeed("index", gallery, f"add={folder / 'old'}", out=tmp_path / "add")
    search = ("search", gallery, new, f"query={folder / 'new'}", "k=1", "threshold=1.5")
    backfill = ("index", gallery, new, f"backfill={folder / 'new'}")
    for place, line in (("s", search), ("b", backfill), ("a", ("index", gallery, new, f"add={folder / 'new'}"))):
        code, said = mistaken(*line, out=tmp_path / place)
        assert (code, "run scripts/compat.py old=" in said) == (3, True), said
    code, said = mistaken(*backfill[:2], backfill[3], out=tmp_path / "c")
    assert (code, "needs encoder=DIR" in said) == (2, True), said
    succeed("compat", *arguments(folder, new, "gate.max_negative_flips=0.5"), out=tmp_path / "check")
    before = succeed(*search, out=tmp_path / "before")
    assert before["top1"] > 0.3, "new queries find old faces"
    done = succeed(*backfill, out=tmp_path / "backfill")
    assert (done["replaced"], done["missing"], done["current"], done["other"]) == (100, 0, 100, 0)
    info = succeed("index", gallery, "info=true", "check=true", out=tmp_path / "info")
    assert info["fingerprints"] == {OLD: 0, made.fingerprint: 100}
    assert succeed(*search, out=tmp_path / "after")["top1"] == 1
    given = ("search", gallery, new, f"query={folder / 'reference'}", "threshold=1.5")
    code, said = mistaken(*given, out=tmp_path / "other")
    assert (code, f"embedded by encoder {ALONE[:12]}, not by {made.fingerprint[:12]}" in said) == (3, True), said


def test_a_mistake_is_refused_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    other = make(seed=5)
    save_bundle(other, tmp_path / "other")
    code, said = mistaken("compat", *arguments(folder, f"encoder={tmp_path / 'other'}"), out=tmp_path / "r")
    assert (code, f"is {other.fingerprint[:12]}; embed the images again" in said) == (3, True), said
    narrow = EmbeddingSet.load(folder / "new")
    replace(narrow, vectors=normalise(narrow.vectors[:, :8])).save(tmp_path / "narrow")
    line = [f"old={folder / 'old'}", f"new={tmp_path / 'narrow'}"]
    code, said = mistaken("compat", *line, out=tmp_path / "s")
    assert (code, "learned projection" in said) == (3, True), said
    code, said = mistaken("compat", *arguments(folder, "fit_old=x"), out=tmp_path / "t")
    assert (code, "go together" in said) == (2, True), said
    code, said = mistaken("compat", *arguments(folder, "gate.metric=auk"), out=tmp_path / "u")
    assert (code, "did you mean 'auc'" in said) == (2, True), said


def test_a_record_is_written_whole_or_not_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facenet import files

    encoder = load_bundle(folder / "encoder")
    save_bundle(encoder, tmp_path / "encoder")
    before = (tmp_path / "encoder" / "encoder.json").read_bytes()

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    encoder.compatible_with.append("11" * 32)
    with pytest.raises(DataError, match="unchanged"):
        write_record(encoder, tmp_path / "encoder")
    assert (tmp_path / "encoder" / "encoder.json").read_bytes() == before


def test_without_an_encoder_the_check_alone_is_made(folder: Path, tmp_path: Path) -> None:
    metrics = succeed("compat", *arguments(folder, "gate.max_negative_flips=1"), out=tmp_path / "r")
    assert metrics["compatible_with"] is None
