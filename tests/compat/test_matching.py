"""Which images, pairs and people are compared: matching by key, and one clear line for what can not be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facenet.compat.matching import draw_enrolment, draw_pairs, share_images, share_pairs
from facenet.errors import DataError
from facenet.types import Pairs
from facenet.vectors import normalise
from tests.helpers.compat import case, sets


def test_images_are_matched_by_key_in_any_order_and_type() -> None:
    given = sets()
    order = np.random.default_rng(1).permutation(100)
    new = given["new"].subset(order)
    new = replace(new, paths=[path.replace(".jpg", ".png") for path in new.paths], identities=[""] * 100)
    shared = share_images({"old": given["old"].subset(range(10, 100)), "new": new.subset(np.flatnonzero(order != 50))})
    assert shared.keys == [key for row, key in enumerate(given["old"].keys) if row >= 10 and row != 50]
    assert shared.left_out == {"old": ["p10/p10_0001"], "new": [k for k in new.keys if k < "p02"]}
    assert shared.identities == [key.split("/")[0] for key in shared.keys], "one set that knows is enough"
    rows = [row for row in range(10, 100) if row != 50]
    for name in ("old", "new"):
        np.testing.assert_array_equal(shared.vectors[name], given[name].vectors[rows])


def test_what_can_not_be_matched_is_one_clear_line() -> None:
    given = sets(4)
    old, new = given["old"], given["new"]
    bad = new.vectors.copy()
    bad[3, 2] = np.nan
    wrong = [
        (replace(new, paths=[f"x{path}" for path in new.paths]), "no image is in all of old, new.*xp00/p00_0001"),
        (replace(new, vectors=normalise(new.vectors[:, :8])), "new has width 8, old 12.*learned projection"),
        (replace(new, vectors=bad), "compat, new: 1 of 20 vectors, row 3 .p00/p00_0004.*NaN"),
        (replace(new, vectors=2 * new.vectors), "not of unit length"),
        (replace(new, paths=[*new.paths[:-1], new.paths[0]]), "compat, new: several images have the key"),
        (replace(new, identities=["x", *new.identities[1:]]), "p00/p00_0001 shows 'p00' in old, 'x' in new"),
    ]
    for embeddings, said in wrong:
        with pytest.raises(DataError, match=said) as error:
            share_images({"old": old, "new": embeddings})
        assert "\n" not in str(error.value)


def test_pairs_without_an_image_are_refused_or_counted() -> None:
    shared, _ = case(6)
    keys = shared.keys
    pairs = Pairs((keys[0], keys[5], keys[1], "gone"), (keys[1], keys[9], keys[0], keys[2]), np.ones(4), np.arange(4))
    with pytest.raises(
        DataError, match=r"1 of 4 pairs have an image that is not in all embeddings .first missing: gone"
    ):
        share_pairs(shared, pairs)
    found = share_pairs(shared, pairs, allow_missing=True)
    assert (found.first.tolist(), found.second.tolist(), found.fold.tolist()) == ([0, 5, 1], [1, 9, 0], [0, 1, 2])
    assert (found.skipped, found.duplicated) == (1, 1)


def test_every_probe_has_a_mate_and_the_draw_is_fixed() -> None:
    shared, _ = case()
    shared = shared._replace(identities=["", "single", *shared.identities[2:]])
    enrolment, again, other = (draw_enrolment(shared, gallery_faces=2, seed=seed) for seed in (0, 0, 1))
    names = np.asarray(shared.identities)
    assert set(names[enrolment.probes]) == set(names[enrolment.gallery]) == set(names) - {"", "single"}
    assert all(np.sum(names[enrolment.gallery] == name) == 2 for name in set(names[enrolment.gallery]))
    assert not set(enrolment.probes) & set(enrolment.gallery)
    assert len(enrolment.probes) + len(enrolment.gallery) == 98
    np.testing.assert_array_equal(enrolment.gallery, again.gallery)
    assert enrolment.gallery.tolist() != other.gallery.tolist()


def test_drawn_pairs_need_people() -> None:
    shared, _ = case(6)
    assert len(draw_pairs(shared)) > 10
    with pytest.raises(DataError, match=r"compat: pairs among 1 people.*pairs=FILE"):
        draw_pairs(shared._replace(identities=["one"] * 30))
