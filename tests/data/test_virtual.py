"""Composites of two people's faces as virtual people."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facenet.data.virtual import FACES, REGIONS, Composites, group_of, region_masks

LABELS = np.array([3, 3, 5, 5, 5, 7, 8, 8, 8, 8, 8, 9])


def made(labels: np.ndarray = LABELS, count: int = 19, seed: int = 1) -> Composites:
    return Composites(labels, count, np.random.SeedSequence(seed))


def test_a_virtual_person_is_two_people_and_a_region() -> None:
    found = made()
    labels = found.labels(10)
    assert len(found) == len(labels) == 18
    assert np.bincount(found.region).tolist() == [6, 6, 6]
    assert (labels >= 10).all()
    assert np.array_equal((labels - 10) % len(REGIONS), found.region)
    for label in np.unique(labels):
        rows = labels == label
        assert len(set(LABELS[found.first[rows]])) == len(set(LABELS[found.second[rows]])) == 1
        assert LABELS[found.first[rows]][0] != LABELS[found.second[rows]][0]
        assert len(set(found.region[rows])) == 1
        assert rows.sum() <= FACES
        assert len(set(found.first[rows])) == len(set(found.second[rows])) == rows.sum(), "faces of their own"
    for people in range(6):
        both = made(np.repeat(np.arange(3), 8), 60, people)
        pairs = {(both.first[row] // 8, both.second[row] // 8, both.region[row]) for row in range(60)}
        assert len(pairs) == len(set(both.labels(3))), "one (A, B, region), one label"
    assert not np.isin([7, 9], LABELS[[*found.first, *found.second]]).any(), "people with one face are left out"
    assert not set(labels) & set(made().labels(10, rank=1)), "ranks have people of their own"
    assert np.array_equal(made().first, found.first)
    assert not np.array_equal(made(seed=2).first, found.first)


@pytest.mark.parametrize("labels", [np.arange(4), np.array([1, 1]), np.array([1, 1, 1, 2])])
def test_every_batch_gives_as_many_composites(labels: np.ndarray) -> None:
    """All ranks have to agree on the number, whatever their rows are."""
    assert len(made(labels)) == 18
    assert len(made(labels, count=2)) == 0


def test_pixels_come_from_the_second_face_inside_the_region() -> None:
    faces = torch.stack([torch.full((3, 50, 60), 20 * number, dtype=torch.uint8) for number in range(len(LABELS))])
    found = made()
    images = found.images(faces)
    assert images.dtype == torch.uint8
    masks = region_masks(50, 60)
    assert masks.min() == 0
    assert masks.max() == 1
    for row, region in enumerate(found.region):
        a, b = (20 * side[row] for side in (found.first, found.second))
        expected = np.round(a + masks[region] * (b - float(a)))
        assert np.array_equal(images[row, 0].numpy(), expected.astype(np.uint8))
    top, bottom, left, right = REGIONS[0]
    middle = masks[0, int((top + bottom) * 25), int((left + right) * 30)]
    assert middle == 1
    assert 0 < (masks[0] % 1 > 0).mean() < 0.5, "soft edges"


def test_faces_of_one_region_may_be_compared() -> None:
    labels = torch.from_numpy(np.concatenate([LABELS, made().labels(10)]))
    assert group_of(labels, 10).tolist() == [0] * 12 + [1] * 6 + [2] * 6 + [3] * 6
