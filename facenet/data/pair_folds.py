"""Verification pairs drawn from labelled images, in folds: balanced, and a person appears in one fold only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from facenet.data.pairs import pair_rows
from facenet.data.records import Records
from facenet.errors import ConfigError, DataError
from facenet.types import Pairs

People = list[np.ndarray]  # the image rows of each person of a fold


def make_pairs(
    keys: Sequence[str], identities: Sequence[str], *, pairs_per_fold: int = 600, folds: int = 10, seed: int = 0
) -> Pairs:
    """Draw balanced verification pairs from N labelled images; a person appears in one fold only.

    People are dealt over the folds by their number of images. A fold holds n same pairs, drawn from its people in
    turn, and n different pairs, drawn from two people at random; no pair twice, no image with itself.
    n = pairs_per_fold / 2, or the largest number that all folds can supply. Images without identity ("") are left
    out. The same arguments give the same pairs.

    Raises:
        DataError: too few people for so many folds, or keys that are not unique.
        ConfigError: `pairs_per_fold` is not an even number >= 2, or `folds` < 1.
    """
    if pairs_per_fold < 2 or pairs_per_fold % 2 or folds < 1:
        raise ConfigError(
            f"pairs: expected an even pairs_per_fold >= 2 and folds >= 1, got {pairs_per_fold} and {folds}"
        )
    if len(keys) != len(identities) or len(set(keys)) != len(keys):
        raise DataError(
            f"pairs: expected one identity for each of the unique image keys, got {len(set(keys))} unique of "
            f"{len(keys)} keys and {len(identities)} identities; remove images that differ only in file type"
        )
    rng = np.random.default_rng(seed)
    groups = _split(identities, folds, rng)
    half = min(pairs_per_fold // 2, *(min(_capacity(group)) for group in groups))
    rows: list[tuple[int, int]] = []
    for group in groups:
        rows += _same(group, half, rng) + _different(group, half, rng)
    same = np.tile(np.repeat([True, False], half), folds)
    fold = np.repeat(np.arange(folds, dtype=np.int64), 2 * half)
    return Pairs(tuple(keys[a] for a, _ in rows), tuple(keys[b] for _, b in rows), same, fold)


def make_pairs_in_folds(keys: Sequence[str], identities: Sequence[str], *, of: str, remedy: str, seed: int) -> Pairs:
    """Draw balanced pairs by :func:`make_pairs` in ten folds, or in five or two when people are few.

    `of` and `remedy` say in an error what was paired and what to give more of.

    Raises:
        DataError: people are too few for two folds.
    """
    for folds in (10, 5, 2):
        try:
            return make_pairs(keys, identities, pairs_per_fold=600, folds=folds, seed=seed)
        except DataError as error:
            reason = error
    raise DataError(f"{of} among {len(set(identities))} people: {reason}; give {remedy}")


def held_out_pairs(held_out: Records, seed: int = 0) -> Pairs:
    """Draw balanced pairs in ten folds (fewer when people are few) among the held-out faces.

    Images that only their file type tells from others (``1.jpg`` and ``1.png``) are in no pair: pairs name keys.
    """
    remedy = "more people with several images, or a larger share"
    own = _of_unique_keys(held_out)
    return make_pairs_in_folds(own.keys, own.identities, of="pairs", remedy=remedy, seed=seed)


def draw_pairs(
    faces: Records,
    *,
    pairs_per_fold: int,
    folds: int,
    seed: int,
    readable: Callable[[Records], Records] = lambda faces: faces,
) -> tuple[Pairs, Records]:
    """Draw exactly so many pairs among faces by :func:`make_pairs`; returns them, and the faces that they name.

    `readable` returns the faces that can be decoded. Only faces that were drawn are shown to it: if some can not be
    read, they are left out and all pairs are drawn again. Images that only their file type tells from others are in no
    pair. The same arguments and faces give the same pairs.

    Raises:
        DataError: fewer people or pairs than asked for; the message says how many there could be.
        ConfigError: as :func:`make_pairs`.
    """
    left = _of_unique_keys(faces)
    while True:
        pairs = make_pairs(left.keys, left.identities, pairs_per_fold=pairs_per_fold, folds=folds, seed=seed)
        possible = len(pairs) // folds
        if possible < pairs_per_fold:
            raise DataError(
                f"{faces.root}: {folds} folds of {pairs_per_fold} pairs are asked for, and its {len(left.names)} people"
                f" supply {possible} pairs in each of {folds} folds; ask for pairs_per_fold={possible} or fewer, or for"
                " fewer folds"
            )
        first, second, _ = pair_rows(pairs, left.keys)
        rows = np.unique(np.concatenate([first, second]))
        named = left.subset(rows)
        kept = readable(named)
        if len(kept) == len(named):
            return pairs, kept
        broken = set(named.paths) - set(kept.paths)
        left = left.subset([row for row, path in enumerate(left.paths) if path not in broken])


def _of_unique_keys(faces: Records) -> Records:
    """Return the images that no other image shares its key with."""
    counts = Counter(faces.keys)
    return faces.subset([row for row, key in enumerate(faces.keys) if counts[key] == 1])


def _split(identities: Sequence[str], folds: int, rng: np.random.Generator) -> list[People]:
    """Deal the people over the folds, those with most images first, back and forth."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(identities):
        if name:
            rows.setdefault(name, []).append(row)
    names = sorted(rows)
    names = [names[i] for i in rng.permutation(len(names))]
    names.sort(key=lambda name: -len(rows[name]))
    several = sum(len(rows[name]) > 1 for name in names)
    possible = min(several, len(names) // 2)
    if possible < folds:
        remedy = f"ask for folds={possible} or fewer" if possible else "add images"
        raise DataError(
            f"pairs: {folds} folds need {2 * folds} people, {folds} of them with two images; got {len(names)} people, "
            f"{several} with two images; {remedy}"
        )
    order = [*range(folds), *range(folds - 1, -1, -1)]
    dealt: list[People] = [[] for _ in range(folds)]
    for place, name in enumerate(names):
        dealt[order[place % (2 * folds)]].append(np.asarray(rows[name], np.int64))
    return dealt


def _capacity(group: People) -> tuple[int, int]:
    """Count the same and the different pairs a fold can supply."""
    sizes = [len(rows) for rows in group]
    total, same = sum(sizes) * (sum(sizes) - 1) // 2, sum(n * (n - 1) // 2 for n in sizes)
    return same, total - same


def _same(group: People, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw `count` same pairs: one from each person in turn, the people in random order."""
    people = [group[i] for i in rng.permutation(len(group)) if len(group[i]) > 1]
    limits = np.asarray([len(rows) * (len(rows) - 1) // 2 for rows in people])
    turns = next(turn for turn in range(1, count + 1) if np.minimum(limits, turn).sum() >= count)
    drawn = [rng.choice(limit, size=min(limit, turns), replace=False) for limit in limits]
    pairs = []
    for turn in range(turns):
        for rows, ranks in zip(people, drawn, strict=True):
            if turn < len(ranks):
                upper = int((1 + np.sqrt(1 + 8.0 * ranks[turn])) / 2)  # rank = upper (upper - 1) / 2 + lower
                lower = int(ranks[turn]) - upper * (upper - 1) // 2
                pairs.append((int(rows[lower]), int(rows[upper])))
    return pairs[:count]


def _different(group: People, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw `count` different pairs: two people at random, then an image of each."""
    sizes = np.asarray([len(rows) for rows in group])
    pairs: dict[tuple[int, int], None] = {}  # a set that keeps its order
    for _ in range(64):
        one = rng.integers(len(group), size=2 * count)
        two = (one + rng.integers(1, len(group), size=2 * count)) % len(group)
        images = rng.integers(sizes[one]), rng.integers(sizes[two])
        for a, i, b, j in zip(one, images[0], two, images[1], strict=True):
            pair = int(group[a][i]), int(group[b][j])
            if pair[::-1] not in pairs:
                pairs[pair] = None
        if len(pairs) >= count:
            return list(pairs)[:count]
    rest = [  # nearly every pair is wanted: list those not drawn yet
        (int(i), int(j))
        for a, rows in enumerate(group)
        for others in group[a + 1 :]
        for i in rows
        for j in others
        if (i, j) not in pairs and (j, i) not in pairs
    ]
    return [*pairs, *(rest[i] for i in rng.permutation(len(rest)))][:count]
