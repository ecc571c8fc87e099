"""Every pair of a labelled embedding set: VAL at FAR and thresholds, exactly, without a matrix of N x N distances.

Pairs are compared in tiles. All same pairs are kept, and of the different ones the floor(far |P_diff|) + 1 nearest:
the tail that decides every smaller FAR as well. A tail that would outgrow the memory allowed is refused and named; a
sample of the faces tells so large a FAR as precisely as anyone needs. By hand, because libraries that find the nearest
pairs keep k a row, and no k bounds the tail: the pairs of one face may be all of it.
Letters: N embeddings, D embedding width, S same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.evaluation.roc import FARS, allowed_accepts, at_far, far_name
from facenet.texts import numbered
from facenet.types import Progress
from facenet.vectors import finite_rows

BLOCK_ROWS, TILE_COLUMNS = 512, 2048  # a tile is 4 MB of float32
BYTES_OF_TAIL = 16  # for each kept different pair, at the worst moment: twice the tail, and its copy
BYTES_OF_SAME = 12  # for each same pair: the parts, their concatenation, sorting


@dataclass(frozen=True)
class AllPairs:
    """What :func:`all_pairs` measured; fractions in [0, 1], thresholds in squared L2."""

    faces: int  # of known identity
    identities: int
    unknown: int  # faces without identity, left out
    same: int
    different: int
    val_at_far: dict[float, dict[str, Any]]  # far -> val, low, high, threshold, resolvable, negatives, reason, counts

    def metrics(self) -> dict[str, Any]:
        """Return plain nested numbers for ``metrics.json``."""
        counts = {name: getattr(self, name) for name in ("faces", "identities", "unknown", "same", "different")}
        counts["pairs"] = self.same + self.different
        return counts | {"val_at_far": {far_name(far): dict(row) for far, row in self.val_at_far.items()}}


def all_pairs(
    vectors: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    fars: Sequence[float] = FARS,
    *,
    block_rows: int = BLOCK_ROWS,
    tile_columns: int = TILE_COLUMNS,
    memory_gb: float = 2.0,
    progress: Progress | None = None,
) -> AllPairs:
    """Measure VAL at each FAR over all N (N - 1) / 2 pairs of labelled unit vectors (N, D).

    A row of `val_at_far` holds what :func:`at_far` gives: the threshold with FAR(threshold) <= far and
    the largest possible VAL, exactly; and `accepted_same`, `accepted_different`, the counts at that threshold. If
    it has no threshold, `reason` says why: far |P_diff| < 1, or a tail beyond `memory_gb`. Rows with the label ""
    (unknown) are left out. The intervals take pairs for independent; pairs that share a face are not, so the true
    ones are wider. Time is one product of all vectors with each other, memory the tail and the same pairs. `progress`
    is called with (done, total) pairs.

    Raises:
        DataError: NaN, other lengths, or no different pair.
        ConfigError: a FAR outside (0, 1], or same pairs that do not fit into `memory_gb`.
    """
    known, codes = _labelled(vectors, labels)
    counts = np.bincount(codes).tolist() if len(codes) else []
    positives = sum(n * (n - 1) // 2 for n in counts)
    negatives = len(codes) * (len(codes) - 1) // 2 - positives
    if negatives == 0:
        raise DataError(f"all pairs: expected two or more identities, got {len(counts)}; add faces of other people")
    known = finite_rows(known, "all pairs")
    allowed = {float(far): allowed_accepts(far, negatives) for far in fars}
    left = memory_gb * 1e9 - BYTES_OF_SAME * positives
    if left < 0:
        raise ConfigError(
            f"all pairs: {positives:,} same pairs need {BYTES_OF_SAME * positives / 1e9:.2g} GB, memory_gb is"
            f" {memory_gb:g}; raise it or take fewer faces of each person"
        )
    fitting = [count for count in allowed.values() if BYTES_OF_TAIL * count <= left]
    tail = _Tail(min(negatives, max(fitting, default=0) + 1))
    same = _compare_all(known, codes, tail, (block_rows, tile_columns), progress)
    same, different = _sq_dists(same), _sq_dists(tail.values())
    rows = {far: _row(same, different, far, negatives, count in fitting, memory_gb) for far, count in allowed.items()}
    return AllPairs(len(codes), len(counts), len(vectors) - len(codes), positives, negatives, rows)


def _row(
    same: np.ndarray, different: np.ndarray, far: float, negatives: int, fits: bool, memory_gb: float
) -> dict[str, Any]:
    """Return the row of one FAR from the sorted same and nearest different distances."""
    nothing = {"accepted_same": None, "accepted_different": None}
    if not fits:
        row: dict[str, Any] = {**dict.fromkeys(("val", "low", "high", "threshold")), "resolvable": False}
        need = BYTES_OF_TAIL * allowed_accepts(far, negatives) / 1e9
        reason = f"its tail needs {need:.2g} GB, memory_gb is {memory_gb:g}; raise it or take a sample of the faces"
        return {**row, "negatives": negatives, "reason": reason, **nothing}
    row = at_far(same, different, far, negatives=negatives)
    if not row["resolvable"]:
        return {**row, "reason": f"too few different pairs ({negatives})", **nothing}
    threshold = same.dtype.type(row["threshold"])  # lies between two distances, so both sides count the same
    accepted = [int(np.searchsorted(side, threshold, side="right")) for side in (same, different)]
    return {**row, "reason": None, "accepted_same": accepted[0], "accepted_different": accepted[1]}


class _Tail:
    """The `size` largest of the similarities shown so far; `bound` is what a new one must exceed."""

    def __init__(self, size: int) -> None:
        self.size, self.bound, self.count = size, np.float32(-np.inf), 0
        self.parts: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        self.parts.append(values)
        self.count += len(values)
        if self.count > 2 * self.size + (1 << 16):
            self.parts = [self.values()]
            self.count, self.bound = self.size, self.parts[0].min()

    def values(self) -> np.ndarray:
        values = np.concatenate(self.parts)
        if len(values) <= self.size:
            return values
        values.partition(len(values) - self.size)
        return values[-self.size :].copy()


def _labelled(vectors: np.ndarray, labels: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of known identity in the order of their identities, and identity numbers (N,)."""
    if vectors.ndim != 2 or len(labels) != len(vectors):
        raise DataError(f"all pairs: expected vectors (N, D) and N labels, got {vectors.shape} and {len(labels)}")
    names, found = numbered(labels)
    rows = np.flatnonzero(found != names.index("")) if "" in names else np.arange(len(found))
    codes = np.unique(found[rows], return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    rows = rows[order]
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return vectors[rows[0] : rows[-1] + 1], codes  # a view: mapped vectors stay on disk
    return vectors[rows], codes[order]


def tiles(
    vectors: np.ndarray, block_rows: int = BLOCK_ROWS, tile_columns: int = TILE_COLUMNS
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (top, left, similarities) for the tiles that cover the upper triangle of vectors @ vectors.T.

    One buffer holds every tile in turn. The first tile of each block of rows reaches below the diagonal.
    """
    buffer = np.empty(block_rows * tile_columns, np.float32)
    n = len(vectors)
    for top in range(0, n, block_rows):
        bottom = min(top + block_rows, n)
        for left in range(top, n, tile_columns):
            right = min(left + tile_columns, n)
            tile = buffer[: (bottom - top) * (right - left)].reshape(bottom - top, right - left)
            yield top, left, np.matmul(vectors[top:bottom], vectors[left:right].T, out=tile)


def pairs_before(top: int, count: int) -> int:
    """Return how many of the pairs of `count` faces have their first face above row `top`.

    >>> pairs_before(1, 4), pairs_before(4, 4)
    (3, 6)
    """
    return top * (2 * count - top - 1) // 2


def _compare_all(
    vectors: np.ndarray, codes: np.ndarray, tail: _Tail, size: tuple[int, int], progress: Progress | None
) -> np.ndarray:
    """Feed the similarities of different pairs to `tail`; return those of the same pairs, (S,)."""
    count = len(codes)
    ends = np.searchsorted(codes, codes, side="right").tolist()  # the rows of one identity lie together
    same = [np.empty(0, np.float32)]
    for top, left, tile in tiles(vectors, *size):
        bottom = top + len(tile)
        if left < ends[bottom - 1]:
            columns = [(max(0, row + 1 - left), max(0, ends[row] - left)) for row in range(top, bottom)]
            same.append(np.concatenate([line[start:end] for line, (start, end) in zip(tile, columns, strict=True)]))
            for line, (_, end) in zip(tile, columns, strict=True):
                line[:end] = -np.inf  # the same person, and what lies below the diagonal
        tail.add(tile[tile > tail.bound])
        if progress and left == top:  # pairs and not rows: the first rows are compared with most others
            progress(pairs_before(top, count), pairs_before(count, count))
    if progress:
        progress(pairs_before(count, count), pairs_before(count, count))
    return np.concatenate(same)


def _sq_dists(similarities: np.ndarray) -> np.ndarray:
    """Turn similarities into sorted squared distances 2 - 2 s >= 0, in place."""
    similarities *= -2
    similarities += 2
    np.maximum(similarities, 0, out=similarities)
    similarities.sort()
    return similarities
