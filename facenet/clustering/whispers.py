"""Chinese whispers: each face takes, in rounds, the label that its nearest neighbours vote for with most weight.

An edge of a face at sq_dist d <= t (the threshold) weighs ((t - d) / 2)^2: the squared margin by which its cosine
exceeds that of the threshold. So a few near faces outvote many at the threshold. An edge is not mutual if the face is
not among the neighbours of its neighbour. Such an edge weighs a tenth: hubs lie near everybody, and clusters would
merge over them.

Letters: N faces, k neighbours, E edges.
Source: Biemann 2006 (Chinese whispers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facenet.types import Neighbours

if TYPE_CHECKING:
    from scipy import sparse

ROUNDS, PARTS = 40, 16
ONE_WAY = np.float32(0.1)  # of a mutual edge's weight
FLOOR = np.float32(1e-6)  # what an edge exactly at the threshold weighs


def edges(found: Neighbours, threshold: float, columns: int | None = None) -> sparse.csr_array:
    """Turn the nearest others of N faces, (N, k), into weights: a row for each face, (N, columns), N columns if None.

    Absent places (row -1) and those beyond the threshold are no edges. About 8 E bytes.
    """
    from scipy import sparse

    near = (found.rows >= 0) & (found.sq_dist <= np.float32(threshold))
    starts = np.zeros(len(near) + 1, np.int32 if near.size < 2**31 else np.int64)
    np.cumsum(near.sum(1), out=starts[1:])
    weights = ((np.float32(threshold) - found.sq_dist[near]) / 2) ** 2 + FLOOR
    shape = (len(near), len(near) if columns is None else columns)
    return sparse.csr_array((weights, found.rows[near].astype(starts.dtype), starts), shape=shape)


def weaken_one_way(weights: sparse.csr_array) -> sparse.csr_array:
    """Leave to the edges (N, N) that have no opposite a tenth of their weight; at most 32 E bytes."""
    from scipy import sparse

    opposite = weights.T.tocsr()
    opposite.data[:] = 1 - ONE_WAY
    more = weights.multiply(opposite)
    del opposite  # as large as the others
    return sparse.csr_array(weights * ONE_WAY + more)


def whisper(weights: sparse.csr_array, labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Let the N faces of weights (N, M) vote until nobody changes, at most 40 rounds; their labels (N,).

    `labels` (M,) int32 are what all begin with; those from N on are never changed, so that faces may vote for labels
    already given. A round visits the faces that have a changed neighbour in random order (from `seed`), in 16 parts;
    each part votes on the labels that the parts before it left. Equal votes go to the lower label, and a face without
    edges keeps its label. Memory: a few numbers for each face and, for a part of them, for each edge.
    """
    labels, count = labels.astype(np.int32), weights.shape[0]
    rng = np.random.default_rng(seed)
    active = np.flatnonzero(np.diff(weights.indptr))
    for _ in range(ROUNDS):
        before = labels.copy()
        for part in np.array_split(rng.permutation(active), PARTS):
            if len(part):
                labels[part] = vote(weights, part, labels)
        changed = labels != before
        if not changed.any():
            break
        active = np.flatnonzero(weights @ changed.astype(np.float32))  # faces with a changed neighbour
    return labels[:count]


def vote(weights: sparse.csr_array, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each of `rows` (n,), all with edges, the label of largest summed weight; ties: the lower label."""
    from scipy import sparse

    starts, ends = weights.indptr[rows], weights.indptr[rows + 1]
    bounds = np.concatenate(([0], np.cumsum(ends - starts))).astype(weights.indptr.dtype)
    places = np.repeat(starts - bounds[:-1], ends - starts) + np.arange(bounds[-1], dtype=bounds.dtype)
    votes = sparse.csr_array(
        (weights.data[places], labels[weights.indices[places]].astype(bounds.dtype, copy=False), bounds),
        shape=(len(rows), int(labels.max()) + 1),
    )
    votes.sum_duplicates()  # a column for each label, in order
    most = np.maximum.reduceat(votes.data, votes.indptr[:-1])
    first = np.where(votes.data == np.repeat(most, np.diff(votes.indptr)), votes.indices, votes.shape[1])
    return np.minimum.reduceat(first, votes.indptr[:-1])
