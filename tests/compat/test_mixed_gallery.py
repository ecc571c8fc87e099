"""The mixed gallery and the regressions: ends equal the cells, and every step and person equals a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from facenet.compat.cells import score_cells
from facenet.compat.matching import draw_enrolment
from facenet.compat.mixed_gallery import backfilled, mixed_curve, regressions, summary
from facenet.errors import ConfigError
from facenet.evaluation.verification import verify_pairs
from tests.helpers.compat import answers_by_loops, case


def test_the_curve_runs_from_one_cell_to_the_other() -> None:
    shared, pairs = case()
    enrolment = draw_enrolment(shared)
    cells, rows = score_cells(shared, pairs, enrolment), mixed_curve(shared, pairs, enrolment, steps=6)
    assert [row["share"] for row in rows] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    for row, name in ((rows[0], "new_old"), (rows[-1], "new_new")):
        measures = cells[name].measures()
        assert {key: measures[key] for key in ("accuracy", "rank1", "map")} == {
            k: v for k, v in row.items() if k != "share"
        }
    assert rows[0] != rows[3] != rows[-1]
    assert mixed_curve(shared, pairs, enrolment, steps=6) == rows
    assert mixed_curve(shared, pairs, enrolment, steps=6, seed=1)[2] != rows[2]
    assert [row["rank1"] for row in mixed_curve(shared, pairs, None, steps=2)] == [None, None]
    with pytest.raises(ConfigError, match="steps"):
        mixed_curve(shared, pairs, enrolment, steps=1)


def test_a_step_against_loops() -> None:
    shared, pairs = case()
    enrolment = draw_enrolment(shared)
    row = mixed_curve(shared, pairs, enrolment, steps=5, seed=3)[1]
    rng = np.random.default_rng([3, 29])
    order, faces = rng.permutation(100).tolist(), rng.permutation(len(enrolment.gallery)).tolist()
    old, new = shared.vectors["old"], shared.vectors["new"]
    images = [new[i] if i in order[:25] else old[i] for i in range(100)]
    distances = [
        [float(np.sum((new[x] - images[y]) ** 2)) for x, y in ((i, j), (j, i))]
        for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    ]
    flat = np.asarray(distances, np.float32).ravel()
    assert row["accuracy"] == pytest.approx(verify_pairs(flat, pairs.same.repeat(2), pairs.fold.repeat(2)).accuracy)
    done = {int(enrolment.gallery[place]) for place in faces[: len(faces) // 4]}
    gallery = np.array([new[i] if i in done else old[i] for i in range(100)])
    ranks, precisions = answers_by_loops(
        shared._replace(vectors={**shared.vectors, "mixed": gallery}), enrolment, "new", "mixed"
    )
    assert row["rank1"] == np.mean([rank == 1 for rank in ranks])
    assert row["map"] == pytest.approx(np.mean(precisions))


def test_a_backfill_only_ever_grows() -> None:
    order = np.random.default_rng(0).permutation(37)
    done = [backfilled(37, share, order) for share in (0, 0.1, 0.5, 0.99, 1)]
    assert [int(some.sum()) for some in done] == [0, 4, 18, 37, 37]
    assert all((later >= earlier).all() for earlier, later in itertools.pairwise(done))


@pytest.mark.parametrize("backwards", [False, True])
def test_regressions_against_loops(backwards: bool) -> None:
    shared, pairs = case(14, 5)
    if backwards:  # the worse model comes as the new one
        shared = shared._replace(vectors={"old": shared.vectors["new"], "new": shared.vectors["old"]})
    enrolment = draw_enrolment(shared, gallery_faces=2)
    cells = score_cells(shared, pairs, enrolment)
    found = regressions(shared, cells, enrolment)
    ranks_of = {
        mode: dict(
            zip(enrolment.probes.tolist(), answers_by_loops(shared, enrolment, *mode.split("_"))[0], strict=True)
        )
        for mode in ("old_old", "new_old", "new_new")
    }
    expected = []
    for person in sorted(set(shared.identities)):
        asking = [row for row in enrolment.probes.tolist() if shared.identities[row] == person]
        there = [row for row in enrolment.gallery.tolist() if shared.identities[row] == person]
        rank1, far, scaled = {}, {}, {}
        for mode, ranks in ranks_of.items():
            query, gallery = (shared.vectors[side] for side in mode.split("_"))
            rank1[mode] = sum(ranks[row] == 1 for row in asking) / len(asking)
            values = [float(np.sum((query[a] - gallery[b]) ** 2)) for a in asking for b in there]
            far[mode] = sum(values) / len(values)
            scaled[mode] = far[mode] / cells[mode].verification.threshold
        loss = rank1["old_old"] - min(rank1["new_old"], rank1["new_new"])
        farther = max(scaled["new_old"], scaled["new_new"]) - scaled["old_old"]
        if loss > 0 or farther > 0:
            expected.append((-loss, -farther, person, len(asking), *rank1.values(), *far.values()))
    expected.sort()
    assert [row.person for row in found] == [row[2] for row in expected]
    assert 2 < len(found) <= 14
    for row, wanted in zip(found, expected, strict=True):
        assert row[1:-1] == pytest.approx(wanted[3:], abs=1e-5)
        assert row.farther == pytest.approx(-wanted[1], abs=1e-5)
    counts = summary(found, 14)
    assert counts == {
        "people": 14,
        "rank1_worse": sum(row[0] < 0 for row in expected),
        "farther": sum(row[1] < 0 for row in expected),
    }
    assert 0 < counts["rank1_worse"] <= len(found)
    assert regressions(shared, cells, None) == []


def test_nobody_regresses_under_the_same_encoder() -> None:
    shared, pairs = case()
    shared = shared._replace(vectors={"old": shared.vectors["old"], "new": shared.vectors["old"].copy()})
    enrolment = draw_enrolment(shared)
    cells = score_cells(shared, pairs, enrolment)
    cells["new_old"] = cells["old_old"]  # two scores a pair choose the same threshold or, on ties, one close to it
    assert regressions(shared, cells, enrolment) == []
