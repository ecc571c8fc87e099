"""Verification: from the squared distances of labelled pairs to accuracy, ROC, EER, VAL at FAR and thresholds.

One sort of the distances gives every number exactly, ties included. A pair is accepted when D <= d, so
VAL(d) = |TA(d)| / |P_same| and FAR(d) = |FA(d)| / |P_diff|.
A threshold lies halfway between two neighbouring distances, never on one that it was not meant to accept.
Source: Schroff et al. 2015, section 4 (VAL and FAR) and 5.6 (LFW: the threshold of a fold is chosen on the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pairs import pair_rows
from facenet.distance import sq_dist as row_sq_dist
from facenet.distance import sq_dist_matrix
from facenet.errors import ConfigError, DataError
from facenet.types import EmbeddingSet, Pairs

FARS = (1e-1, 1e-2, 1e-3)
Z = 1.959963984540054  # two-sided 95 % of the normal distribution
MAX_SQ_DIST = 4.0
TILE_COLUMNS = 4096


class Roc(NamedTuple):
    """Points of the ROC, from "accept nothing" (0, 0, -inf) to (1, 1), one for each distinct distance."""

    far: np.ndarray  # (M,) float64
    val: np.ndarray  # (M,) float64
    threshold: np.ndarray  # (M,) float64, accept D <= threshold


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` measured; fractions in [0, 1], thresholds in squared L2."""

    accuracy: float  # mean over the folds
    sem: float  # standard error of that mean: std / sqrt(folds)
    std: float  # over the folds, ddof = 1
    fold_accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]  # of each fold, chosen on the other folds
    threshold: float  # their mean
    auc: float
    eer: float
    val_at_far: dict[float, dict[str, Any]]  # far -> val, low, high, threshold, resolvable, negatives
    pairs: int
    same: int
    different: int
    skipped: int = 0  # pairs left out because an embedding was missing

    def metrics(self) -> dict[str, Any]:
        """Return plain nested numbers for ``metrics.json``; FARs are named ``1e-3``, see :func:`far_name`."""
        content = {name: getattr(self, name) for name in ("accuracy", "sem", "std", "auc", "eer")}
        content["val_at_far"] = {far_name(far): dict(row) for far, row in self.val_at_far.items()}
        content["folds"], content["thresholds"] = list(self.fold_accuracies), list(self.thresholds)
        return content | {name: getattr(self, name) for name in ("threshold", "pairs", "same", "different", "skipped")}


def far_name(far: float) -> str:
    """Name a FAR without a dot where it needs none (dots separate the parts of a metric's name); float() reads it.

    >>> far_name(0.001), far_name(0.0025)
    ('1e-3', '2.5e-3')
    """
    return format(Decimal(repr(float(far))).normalize(), "e")


def verify(
    sq_dist: np.ndarray,
    same: np.ndarray,
    folds: np.ndarray,
    *,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
) -> Verification:
    """Score P pairs by cross-validation over the folds; everything else is pooled over them.

    accuracy = mean_f acc_f(t_f), t_f = argmax_t of the accuracy on the pairs outside fold f. Where several
    thresholds are best, the middle one is taken. `grid` restricts t_f to given thresholds (the common reference:
    ``np.arange(0, 4, 0.01)``), of which the first best is taken.
    EER = (FAR + 1 - VAL) / 2 at the first ROC point where |FAR - (1 - VAL)| is least.
    VAL at FAR is the VAL at the largest threshold with FAR(d) <= far, with the 95 % Wilson interval of VAL at
    that threshold; where far |P_diff| < 1 it is not resolvable, and None.

    Args:
        sq_dist: squared distances (P,), in [0, 4] for unit vectors.
        same: whether a pair shows one person (P,), bool.
        folds: fold labels (P,), at least two distinct ones.
        fars: false accept rates in (0, 1].
        grid: thresholds (G,), optional.

    Raises:
        DataError: no pairs, other lengths, NaN, a single fold, or only one class (also outside a fold).
        ConfigError: a FAR outside (0, 1] or an empty grid.
    """
    distances, labels = _checked(sq_dist, same)
    folds = np.asarray(folds)
    if folds.shape != labels.shape:
        raise DataError(f"verify: expected one fold for each of {len(labels)} pairs, got shape {folds.shape}")
    order = np.argsort(distances, kind="stable")
    distances, labels = distances[order], labels[order]
    accuracies, thresholds = _cross_validate(distances, labels, folds[order], grid)
    auc, eer = _auc_and_eer(_roc(distances, labels))
    std = float(np.std(accuracies, ddof=1))
    return Verification(
        accuracy=float(np.mean(accuracies)),
        sem=std / float(np.sqrt(len(accuracies))),
        std=std,
        fold_accuracies=tuple(accuracies),
        thresholds=tuple(thresholds),
        threshold=float(np.mean(thresholds)),
        auc=auc,
        eer=eer,
        val_at_far={float(far): _at_far(distances, labels, _checked_far(far)) for far in fars},
        pairs=len(labels),
        same=int(labels.sum()),
        different=int((~labels).sum()),
    )


def verify_embeddings(
    embeddings: EmbeddingSet,
    pairs: Pairs,
    *,
    allow_missing: bool = False,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
) -> Verification:
    """Score `pairs` on the squared distances ||a - b||^2 of their embeddings, see :func:`verify`.

    Raises:
        DataError: pairs without an embedding, unless `allow_missing`; then `skipped` counts them.
    """
    first, second, missing = pair_rows(pairs, embeddings.keys)
    found = (first >= 0) & (second >= 0)
    skipped = len(pairs) - int(found.sum())
    if skipped and not allow_missing:
        raise DataError(
            f"verify: {skipped} of {len(pairs)} pairs have no embedding (first missing: {missing[0]}); "
            "embed these images or pass allow_missing=true"
        )
    distances = row_sq_dist(embeddings.vectors[first[found]], embeddings.vectors[second[found]])
    result = verify(distances, pairs.same[found], pairs.fold[found], fars=fars, grid=grid)
    return replace(result, skipped=skipped)


def roc(sq_dist: np.ndarray, same: np.ndarray) -> Roc:
    """Return every point (FAR(d), VAL(d), d) of P pairs at their distinct distances d, after (0, 0, -inf).

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class.
    """
    distances, labels = _checked(sq_dist, same)
    order = np.argsort(distances, kind="stable")
    return _roc(distances[order], labels[order])


def score_at(sq_dist: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, Any]:
    """Score P pairs at a threshold that was chosen elsewhere, as for one held fold of View 2.

    accuracy = correct / pairs, a pair being correct when (D <= threshold) == same; AUC and EER as in :func:`verify`.
    Returns accuracy, correct, pairs, same, different, threshold, auc, eer: plain numbers for ``metrics.json``.

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class; or a threshold that is not finite.
    """
    distances, labels = _checked(sq_dist, same)
    if not np.isfinite(threshold):
        raise DataError(f"verify: expected a finite threshold (squared L2), got {threshold}; choose it on other pairs")
    order = np.argsort(distances, kind="stable")
    correct = int(np.count_nonzero((distances <= threshold) == labels))
    auc, eer = _auc_and_eer(_roc(distances[order], labels[order]))
    positives = int(np.count_nonzero(labels))
    return {
        "accuracy": correct / len(labels),
        "correct": correct,
        "pairs": len(labels),
        "same": positives,
        "different": len(labels) - positives,
        "threshold": float(threshold),
        "auc": auc,
        "eer": eer,
    }


def best_threshold(sq_dist: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold of highest accuracy on P pairs; of several best ones, the middle one.

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class.
    """
    distances, labels = _checked(sq_dist, same)
    order = np.argsort(distances, kind="stable")
    return _best(distances[order], labels[order], None)


def rank1(
    queries: np.ndarray,
    query_ids: Sequence[str] | np.ndarray,
    gallery: np.ndarray,
    gallery_ids: Sequence[str] | np.ndarray,
    *,
    block_rows: int = 1024,
) -> float:
    """Return the share of Q queries (Q, D) whose nearest gallery vector (N, D) bears their identity.

    Queries are not taken out of the gallery; of equally near gallery rows the first counts.

    Raises:
        DataError: no query, an empty gallery, or ids of another length.
    """
    if not len(queries) or not len(gallery) or len(queries) != len(query_ids) or len(gallery) != len(gallery_ids):
        raise DataError(
            f"rank1: expected queries and a gallery with an id for each row, got {len(queries)} and {len(gallery)} "
            f"vectors with {len(query_ids)} and {len(gallery_ids)} ids"
        )
    nearest = [
        sq_dist_matrix(queries[at : at + block_rows], gallery).argmin(1) for at in range(0, len(queries), block_rows)
    ]
    return float(np.mean(np.asarray(gallery_ids)[np.concatenate(nearest)] == np.asarray(query_ids)))


def _checked(sq_dist: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances, labels = np.asarray(sq_dist), np.asarray(same, bool)
    if distances.dtype not in (np.float32, np.float64):
        distances = distances.astype(np.float64)
    if distances.ndim != 1 or distances.shape != labels.shape:
        raise DataError(f"verify: expected sq_dist and same of shape (P,), got {distances.shape} and {labels.shape}")
    if not len(labels):
        raise DataError("verify: expected at least one same and one different pair, got no pairs")
    bad = len(labels) - int(np.isfinite(distances).sum())
    if bad:
        raise DataError(
            f"verify: {bad} of {len(labels)} distances are NaN or infinite; the encoder gave broken vectors"
        )
    _both_classes(labels, "verify")
    return distances, labels


def _both_classes(labels: np.ndarray, where: str) -> None:
    positives = int(np.count_nonzero(labels))
    if positives in (0, len(labels)):
        kind = "different" if positives == 0 else "same"
        raise DataError(f"{where}: expected same and different pairs, got {len(labels)} {kind} ones only; add others")


def _checked_far(far: float) -> float:
    if not 0 < far <= 1:
        raise ConfigError(f"far: expected a false accept rate in (0, 1], got {far}")
    return float(far)


def _cross_validate(
    distances: np.ndarray, labels: np.ndarray, folds: np.ndarray, grid: np.ndarray | None
) -> tuple[list[float], list[float]]:
    """Choose each fold's threshold on the other folds, from sorted pairs (P,), and score the fold with it."""
    names = np.unique(folds)
    if len(names) < 2:
        raise DataError(f"verify: expected at least two folds, got {len(names)}; cut the pairs into ten equal parts")
    accuracies, thresholds = [], []
    for name in names:
        held = folds == name
        _both_classes(labels[~held], f"verify, outside fold {name}")
        threshold = _best(distances[~held], labels[~held], grid)
        accuracies.append(float(np.mean((distances[held] <= threshold) == labels[held])))
        thresholds.append(threshold)
    return accuracies, thresholds


def _best(distances: np.ndarray, labels: np.ndarray, grid: np.ndarray | None) -> float:
    """Return the threshold of highest accuracy on sorted pairs (P,)."""
    right = np.zeros(len(labels) + 1, np.int64)  # right[k]: correct decisions, less a constant, when k are accepted
    np.cumsum(np.where(labels, 1, -1), out=right[1:])
    if grid is not None:
        steps = np.sort(np.asarray(grid, np.float64))
        if not len(steps):
            raise ConfigError("grid: expected at least one threshold, got none")
        return float(steps[np.argmax(right[np.searchsorted(distances, steps, side="right")])])
    cuts = np.flatnonzero(np.concatenate([[True], distances[1:] > distances[:-1], [True]]))
    cuts = cuts[right[cuts] == right[cuts].max()]
    return _cut(distances, int(cuts[(len(cuts) - 1) // 2]))


def _cut(distances: np.ndarray, accepted: int) -> float:
    """Return the threshold that accepts the first `accepted` of sorted distances (P,): midway to the next one.

    The ends are 0 and 4. The value is a number of the distances' own type, so it never rounds onto the next one.
    """
    if accepted == 0:
        return _midway(distances.dtype.type(0), distances[0])
    if accepted == len(distances):
        last = distances[-1]
        return float(last) if last >= MAX_SQ_DIST else _midway(last, distances.dtype.type(MAX_SQ_DIST))
    return _midway(distances[accepted - 1], distances[accepted])


def _midway(low: Any, high: Any) -> float:
    if low >= high:  # nothing between them: right below `high`
        return float(np.nextafter(high, -np.inf, dtype=type(high)))
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def _roc(distances: np.ndarray, labels: np.ndarray) -> Roc:
    """Return the ROC of sorted pairs (P,): one point where each run of equal distances ends."""
    ends = np.flatnonzero(np.append(distances[1:] > distances[:-1], True))
    accepted_same = np.cumsum(labels)[ends]
    accepted_different = ends + 1 - accepted_same
    far = np.append(0, accepted_different / accepted_different[-1])
    val = np.append(0, accepted_same / accepted_same[-1])
    return Roc(far, val, np.append(-np.inf, distances[ends]))


def _auc_and_eer(curve: Roc) -> tuple[float, float]:
    """Return the area under the ROC by trapezia, and the EER at its first point where FAR and FRR are nearest."""
    point = int(np.argmin(np.abs(curve.far - (1 - curve.val))))
    auc = float(np.sum(np.diff(curve.far) * (curve.val[1:] + curve.val[:-1])) / 2)
    return auc, float(curve.far[point] + 1 - curve.val[point]) / 2


def _at_far(distances: np.ndarray, labels: np.ndarray, far: float, negatives: int | None = None) -> dict[str, Any]:
    """Return VAL at `far` of sorted pairs (P,); `negatives` tells their number when only the nearest are given."""
    different = distances[~labels]
    negatives = len(different) if negatives is None else negatives
    positives = int(labels.sum())
    allowed = _allowed(far, negatives)
    if allowed == 0:
        return {"val": None, "low": None, "high": None, "threshold": None, "resolvable": False, "negatives": negatives}
    accepted = len(distances)
    if allowed < negatives:  # everything below the first different pair that must be rejected
        accepted = int(np.searchsorted(distances, different[allowed], side="left"))
    val, low, high = _wilson(int(labels[:accepted].sum()), positives)
    threshold = _cut(distances, accepted)
    return {"val": val, "low": low, "high": high, "threshold": threshold, "resolvable": True, "negatives": negatives}


def _allowed(far: float, negatives: int) -> int:
    """Return the largest k with k / negatives <= far; 0.29 of 100 is 29, though 0.29 * 100 < 29 in floats."""
    count = min(negatives, int(far * negatives) + 1)
    return count if count / negatives <= far else count - 1


def _wilson(hits: int, count: int) -> tuple[float | None, float | None, float | None]:
    """Return hits / count with its 95 % Wilson interval; None without counts."""
    if count == 0:
        return None, None, None
    share, extra = hits / count, Z * Z / count
    centre = (share + extra / 2) / (1 + extra)
    half = Z * float(np.sqrt(share * (1 - share) / count + extra / (4 * count))) / (1 + extra)
    return share, max(0.0, centre - half), min(1.0, centre + half)


def all_pairs_thresholds(
    vectors: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    fars: Sequence[float] = FARS,
    *,
    block_rows: int = 512,
) -> dict[float, dict[str, Any]]:
    """Return for each FAR the threshold over all N (N - 1) / 2 pairs of labelled unit vectors (N, D).

    {far: {threshold, val, resolvable, negatives}}: FAR(threshold) <= far with the largest possible VAL, exactly.
    Pairs are compared in tiles; only the floor(far |P_diff|) + 1 nearest different pairs are kept (about 8 bytes
    each), and every same pair. Rows with the label "" (unknown) are left out. Where far |P_diff| < 1 the FAR is
    not resolvable, threshold and val are None; val is None also when there is no same pair.

    Raises:
        DataError: NaN, other lengths, or no different pair.
        ConfigError: a FAR outside (0, 1].
    """
    vectors, codes = _labelled(vectors, labels)
    counts = np.bincount(codes).tolist() if len(codes) else []
    positives = sum(n * (n - 1) // 2 for n in counts)
    negatives = len(codes) * (len(codes) - 1) // 2 - positives
    if negatives == 0:
        raise DataError(f"thresholds: expected two or more identities, got {len(counts)}; add faces of other people")
    fars = [_checked_far(far) for far in fars]
    tail = _Tail(min(negatives, max((_allowed(far, negatives) for far in fars), default=0) + 1))
    same = _compare_all(vectors, codes, tail, block_rows)
    distances = np.concatenate([same, tail.values()])
    distances = np.maximum(2 - 2 * distances, 0)
    is_same = np.arange(len(distances)) < len(same)
    order = np.argsort(distances, kind="stable")
    rows = {far: _at_far(distances[order], is_same[order], far, negatives) for far in fars}
    return {far: {k: row[k] for k in ("threshold", "val", "resolvable", "negatives")} for far, row in rows.items()}


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
    names = np.asarray(labels)
    if vectors.ndim != 2 or names.shape != vectors.shape[:1]:
        raise DataError(f"thresholds: expected vectors (N, D) and N labels, got {vectors.shape} and {names.shape}")
    rows = np.flatnonzero(names != "") if names.dtype.kind in "US" else np.arange(len(names))
    codes = np.unique(names[rows], return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    sorted_vectors = np.ascontiguousarray(vectors[rows[order]], np.float32)
    if not np.isfinite(sorted_vectors).all():
        raise DataError("thresholds: some vectors are NaN or infinite; the encoder gave broken vectors")
    return sorted_vectors, codes[order]


def _compare_all(vectors: np.ndarray, codes: np.ndarray, tail: _Tail, block_rows: int) -> np.ndarray:
    """Feed the similarities of different pairs to `tail`, in tiles of the upper triangle; return the same pairs'."""
    n = len(codes)
    ends = np.searchsorted(codes, codes, side="right").tolist()  # the rows of one identity lie together
    buffer = np.empty((block_rows, TILE_COLUMNS), np.float32)
    same = [np.empty(0, np.float32)]
    for top in range(0, n, block_rows):
        bottom = min(top + block_rows, n)
        for left in range(top, n, TILE_COLUMNS):
            right = min(left + TILE_COLUMNS, n)
            tile = buffer.reshape(-1)[: (bottom - top) * (right - left)].reshape(bottom - top, right - left)
            np.matmul(vectors[top:bottom], vectors[left:right].T, out=tile)
            if left < ends[bottom - 1]:
                for row in range(top, bottom):
                    same.append(tile[row - top, max(0, row + 1 - left) : max(0, ends[row] - left)].copy())
                    tile[row - top, : max(0, ends[row] - left)] = -np.inf
            tail.add(tile[tile > tail.bound])
    return np.concatenate(same)
