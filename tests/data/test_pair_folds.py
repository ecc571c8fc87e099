"""pairs: LFW's formats and ours, read and written; what is malformed is named; drawn pairs keep their promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.pair_folds import make_pairs
from facenet.data.pairs import write_pairs
from facenet.errors import ConfigError, DataError
from facenet.types import Pairs

VIEW2 = "2\t1\nAda\t1\t2\nAda\t1\tBob\t3\nCy\t4\t12\nCy\t1\tDora_Eve\t10000\n"


def equal(one: Pairs, two: Pairs) -> bool:
    arrays = np.array_equal(one.same, two.same) and np.array_equal(one.fold, two.fold)
    return arrays and (one.first, one.second) == (two.first, two.second)


def labelled(sizes: list[int]) -> tuple[list[str], list[str]]:
    names = [f"P{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return [
        f"{n}/{n}_{j:04d}" for n, size in zip(dict.fromkeys(names), sizes, strict=True) for j in range(1, size + 1)
    ], names


@pytest.mark.parametrize("sizes", [[6] * 60, [40, 30, 2, 2, 2] * 6 + [1] * 50, [2] * 10 + [1] * 10, [3] * 20])
def test_drawn_pairs(sizes: list[int]) -> None:
    keys, names = labelled(sizes)
    person = dict(zip(keys, names, strict=True))
    pairs = make_pairs(keys, names, pairs_per_fold=40, folds=10)
    assert len(pairs) == 10 * 2 * int(pairs.same[pairs.fold == 0].sum()) > 0
    people: list[set[str]] = []
    for fold in range(10):
        rows = np.flatnonzero(pairs.fold == fold)
        assert pairs.same[rows].sum() == (~pairs.same[rows]).sum() <= 20
        people.append({person[side[row]] for row in rows for side in (pairs.first, pairs.second)})
    assert sum(map(len, people)) == len(set().union(*people))  # nobody in two folds
    found = list(zip(pairs.first, pairs.second, strict=True))
    assert [person[a] == person[b] for a, b in found] == pairs.same.tolist()
    assert len({frozenset(pair) for pair in found}) == len(found)
    assert all(a != b for a, b in found)
    assert equal(pairs, make_pairs(keys, names, pairs_per_fold=40, folds=10))
    if sizes == [6] * 60:
        assert len(pairs) == 400
        assert not equal(pairs, make_pairs(keys, names, pairs_per_fold=40, folds=10, seed=1))


def test_drawing_takes_the_most_that_every_fold_can_supply(tmp_path: Path) -> None:
    keys, names = labelled([3, 2])  # 4 same pairs, 6 different
    pairs = make_pairs(keys, names, folds=1)
    assert (pairs.same.sum(), len(pairs)) == (4, 8)
    keys, names = labelled([3, 3])  # 6 same pairs, 9 different
    assert len(make_pairs(keys, names, folds=1)) == 12
    keys, names = labelled([4, 1, 1])  # 6 same pairs, 9 different
    assert len(make_pairs(keys, names, folds=1)) == 12
    keys, names = labelled([8, 1])  # 28 same pairs, all 8 different ones
    assert len(make_pairs(keys, names, folds=1)) == 16
    write_pairs(tmp_path / "pairs.txt", make_pairs(*labelled([4] * 20), folds=5))
    assert (tmp_path / "pairs.txt").read_text().startswith("5\t")


def test_same_pairs_come_from_as_many_people_as_there_are() -> None:
    keys, names = labelled([200] + [3] * 29)
    pairs = make_pairs(keys, names, pairs_per_fold=60, folds=1)
    assert len({pairs.first[row].split("/")[0] for row in np.flatnonzero(pairs.same)}) == 30


def test_faces_of_nobody_known_are_left_out() -> None:
    keys, names = labelled([4] * 10)
    strangers = [f"unknown/{i}" for i in range(50)]
    pairs = make_pairs(keys + strangers, names + [""] * 50, pairs_per_fold=20, folds=2)
    assert len(pairs) == 40
    assert not {*strangers} & {*pairs.first, *pairs.second}


def test_what_can_not_be_drawn_raises() -> None:
    with pytest.raises(DataError, match=r"10 folds need 20 people, 10 of them.*got 8 people, 6.*folds=4 or fewer"):
        make_pairs(*labelled([3] * 6 + [1] * 2))
    with pytest.raises(DataError, match="0 with two images; add images"):
        make_pairs(*labelled([1] * 50))
    with pytest.raises(DataError, match="add images"):
        make_pairs(["a", "b"], ["", ""])
    with pytest.raises(DataError, match="unique"):
        make_pairs(["a", "a"], ["x", "y"])
    with pytest.raises(DataError, match="unique"):
        make_pairs(["a"], ["x", "y"])
    for options in ({"pairs_per_fold": 5}, {"pairs_per_fold": 0}, {"folds": 0}):
        with pytest.raises(ConfigError, match="even pairs_per_fold"):
            make_pairs(*labelled([4] * 40), **options)
