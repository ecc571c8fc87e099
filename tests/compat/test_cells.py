"""The four cells: every number against plain loops over pairs, directions, thresholds and probes."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.compat.cells import FARS, METRICS, MODES, decisions, score_cells, verify_scores
from facenet.compat.matching import SharedImages, SharedPairs, draw_enrolment
from facenet.errors import DataError
from facenet.evaluation.roc import wilson
from tests.helpers.compat import answers_by_loops, case, right_by_loops
from tests.helpers.verification import accuracies_by_loops, at_far_by_loops, eer_by_loops


def scores_by_loops(shared: SharedImages, pairs: SharedPairs, query: str, gallery: str) -> list[list[float]]:
    """The squared distances of each pair: one of a model with itself, two of two models."""
    asks, holds = shared.vectors[query], shared.vectors[gallery]
    found = []
    for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        directions = [(i, j)] if query == gallery else [(i, j), (j, i)]
        found.append([float(sum((a - b) ** 2 for a, b in zip(asks[x], holds[y], strict=True))) for x, y in directions])
    return found


@pytest.mark.parametrize("gallery_faces", [1, 2])
def test_every_cell_against_loops(gallery_faces: int) -> None:
    shared, pairs = case()
    enrolment = draw_enrolment(shared, gallery_faces=gallery_faces)
    cells = score_cells(shared, pairs, enrolment)
    assert list(cells) == [*MODES, "reference"]
    for name, (query, gallery) in {**MODES, "reference": ("reference", "reference")}.items():
        cell, scores = cells[name], scores_by_loops(shared, pairs, query, gallery)
        np.testing.assert_allclose(cell.sq_dist, scores, atol=1e-5)
        assert cell.sq_dist.shape == (len(pairs.same), 1 if query == gallery else 2)
        distances = cell.sq_dist.ravel()
        labels, folds = (side.repeat(cell.sq_dist.shape[1]) for side in (pairs.same, pairs.fold))
        found = cell.verification
        for place, fold in enumerate(np.unique(folds)):
            best = max(accuracies_by_loops(distances[folds != fold], labels[folds != fold]).values())
            reached = np.mean((distances[folds != fold] <= found.thresholds[place]) == labels[folds != fold])
            assert reached == best
        right = right_by_loops(cell.sq_dist, pairs, found.thresholds)
        np.testing.assert_array_equal(cell.right, right)
        by_fold = [np.mean([row for row, at in zip(right, pairs.fold, strict=True) if at == f]) for f in set(folds)]
        assert found.accuracy == pytest.approx(np.mean(by_fold))
        assert found.sem == pytest.approx(np.std(by_fold, ddof=1) / np.sqrt(len(by_fold)))
        assert found.eer == pytest.approx(eer_by_loops(distances, labels))
        nearer = [a < b for a in distances[labels] for b in distances[~labels]]
        assert found.auc == pytest.approx(np.mean(nearer), abs=1e-6)
        ranks, precisions = answers_by_loops(shared, enrolment, query, gallery)
        measures = cell.measures()
        assert measures["rank1"] == np.mean([rank == 1 for rank in ranks])
        assert measures["map"] == pytest.approx(np.mean(precisions))
        assert 0.05 < measures["rank1"] < 1
        for far in FARS[:2]:
            expected = at_far_by_loops(distances, labels, far)
            assert expected is not None
            assert found.val_at_far[far]["val"] == expected[0]
        assert tuple(measures) == METRICS


def test_cells_of_two_models_count_pairs_not_scores() -> None:
    shared, pairs = case()
    cells = score_cells(shared, pairs, None)
    positives = int(pairs.same.sum())
    pure, mixed = cells["old_old"].verification, cells["new_old"].verification
    for found in (pure, mixed):
        assert (found.pairs, found.same, found.different) == (len(pairs.same), positives, len(pairs.same) - positives)
    row = mixed.val_at_far[0.1]
    assert (row["low"], row["high"]) == wilson(round(row["val"] * positives), positives)[1:]
    assert [found.val_at_far[1e-3]["resolvable"] for found in (pure, mixed)] == [False, False]
    assert mixed.val_at_far[1e-3] == {**pure.val_at_far[1e-3]}
    few = verify_scores(cells["new_old"].sq_dist, pairs, fars=(1 / (len(pairs.same) - positives + 1),))
    assert not next(iter(few.val_at_far.values()))["resolvable"], "though two scores a pair would be enough"


def test_pairs_have_no_direction_and_probes_do() -> None:
    shared, pairs = case()
    cells = score_cells(shared, pairs, draw_enrolment(shared))
    assert cells["new_old"].verification == cells["old_new"].verification
    assert cells["new_old"].measures()["map"] != cells["old_new"].measures()["map"]
    turned = pairs._replace(first=pairs.second, second=pairs.first)
    for name, cell in score_cells(shared, turned, None).items():
        assert cell.verification == cells[name].verification
        assert cell.measures()["rank1"] is None


def test_decisions_take_the_threshold_of_the_fold() -> None:
    pairs = SharedPairs(np.arange(3), np.arange(3), np.array([True, False, True]), np.array([7, 2, 7]), 0, 0)
    found = decisions(np.array([[0.5, 1.5], [0.5, 1.5], [1.0, 1.1]]), pairs, [0.4, 1.0])
    assert found.tolist() == [[True, False], [True, True], [True, False]]


def test_one_kind_of_pairs_is_refused() -> None:
    shared, pairs = case()
    with pytest.raises(DataError, match="same and different pairs"):
        score_cells(shared, pairs._replace(same=np.ones(len(pairs.same), bool)), None)
