"""Group faces by identity from squared distances, and score the groups where identities are known.

``average_linkage`` is the paper's agglomerative clustering, quadratic in memory: for some thousand faces.
``chinese_whispers`` lets each face take the label that its k nearest neighbours vote for, linear in memory.
Source: Schroff et al. 2015, section 5.8 (agglomerative clustering); Biemann 2006 (Chinese whispers); Amigo et al.
2009 (BCubed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from facenet.errors import ConfigError, DataError, choose
from facenet.index import nearest

SMALL = 3_000  # "auto" takes average linkage up to this many faces
MOST_LINKED = 20_000  # average linkage beyond it would need more than 3 GB
ROUNDS, PARTS = 40, 16


def average_linkage(vectors: np.ndarray, threshold: float, *, neighbours: int = 32, seed: int = 0) -> np.ndarray:
    """Merge the two clusters A, B of least mean squared L2 while it is at most `threshold`; labels (N,).

    d(A, B) = mean over a in A, b in B of ||a - b||^2: the mean of the *squared* distances over all N_A N_B pairs.
    About 16 bytes for each of the N (N - 1) / 2 pairs; `neighbours` and `seed` have no effect.

    Raises:
        DataError: more than 20,000 faces.
    """
    count = len(vectors)
    if count > MOST_LINKED:
        raise DataError(f"average_linkage: {count} faces are more than {MOST_LINKED}; use method=chinese_whispers")
    if count < 2:
        return np.zeros(count, np.int64)
    tree = linkage(pdist(vectors, "sqeuclidean"), "average")
    return fcluster(tree, threshold, "distance").astype(np.int64)


def chinese_whispers(vectors: np.ndarray, threshold: float, *, neighbours: int = 32, seed: int = 0) -> np.ndarray:
    """Let each face take, in rounds, the label with most weight among its nearest neighbours; labels (N,).

    Edges join a face to its k = `neighbours` nearest others with sq_dist <= threshold and weigh
    (threshold - sq_dist) / 2, the cosine above that of the threshold. A round visits the faces in random order
    (from `seed`), in 16 parts, each part voting on the labels that the parts before it left; equal votes go to the
    lower label. It ends when nobody changes, after 40 rounds at most. Memory: about 30 k N bytes.
    """
    count = len(vectors)
    found = nearest(vectors, vectors, min(neighbours + 1, count))
    mates = np.where(found.rows < 0, 0, found.rows).astype(np.int32)  # (N, k + 1), oneself among them
    weights = np.maximum((np.float32(threshold) - found.sq_dist) / 2, 0) + np.float32(1e-6)
    weights[(found.sq_dist > threshold) | (found.rows < 0) | (found.rows == np.arange(count)[:, None])] = 0
    mates[weights == 0] = -1
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32)
    active = np.flatnonzero(weights.any(1))
    for _ in range(ROUNDS):
        before = labels.copy()
        for part in np.array_split(rng.permutation(active), PARTS):
            if len(part):
                labels[part] = _vote(labels[mates[part]], weights[part])
        changed = labels != before
        if not changed.any():
            break
        active = np.flatnonzero((changed[mates] & (weights > 0)).any(1))
    return labels.astype(np.int64)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "average_linkage": average_linkage,
    "chinese_whispers": chinese_whispers,
}


def cluster(
    vectors: np.ndarray, threshold: float, *, method: str = "auto", neighbours: int = 32, seed: int = 0
) -> np.ndarray:
    """Group N unit vectors (N, D): labels (N,) int64 from 0, the largest cluster first, the same for the same seed.

    `threshold` is a squared L2 in [0, 4], best the encoder's calibrated one; the usable value falls as N grows.
    "auto" is average linkage up to 3,000 faces and Chinese whispers above. Clusters of one size stand in the order of
    their first faces.

    Raises:
        DataError: no vectors, or NaN among them.
        ConfigError: an unknown method, a threshold outside [0, 4], or `neighbours` < 1.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise DataError(f"cluster: expected vectors (N, D) with N >= 1, got shape {vectors.shape}; embed some images")
    if not np.isfinite(vectors).all():
        raise DataError("cluster: some vectors are NaN or infinite; the encoder gave broken vectors")
    if not 0 <= threshold <= 4:
        raise ConfigError(f"cluster: expected a threshold on squared L2 in [0, 4], got {threshold}")
    if neighbours < 1:
        raise ConfigError(f"cluster: expected neighbours >= 1, got {neighbours}")
    if method == "auto":
        method = "average_linkage" if len(vectors) <= SMALL else "chinese_whispers"
    run = choose(METHODS, method, "method")
    vectors = np.ascontiguousarray(vectors, np.float32)
    return _largest_first(run(vectors, float(threshold), neighbours=neighbours, seed=seed))


def scores(labels: np.ndarray, identities: Sequence[str] | np.ndarray) -> dict[str, float]:
    """Compare cluster labels (N,) with identities (N,); faces of identity "" (unknown) are left out.

    With n_ij faces of identity j in cluster i: pairwise precision = sum C(n_ij, 2) / sum C(n_i, 2), recall with n_j
    below; BCubed precision = 1/N sum n_ij^2 / n_i, recall with n_j; F1 their harmonic means; NMI = mutual
    information over the mean of the two entropies. A share of nothing (no pairs claimed, no pairs to find) is 1.

    Raises:
        DataError: other lengths, or no known identity.
    """
    names = np.asarray(identities)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.shape != names.shape:
        raise DataError(f"scores: expected one identity for each label, got {labels.shape} and {names.shape}")
    known = names != "" if names.dtype.kind in "US" else np.ones(len(names), bool)
    if not known.any():
        raise DataError("scores: expected identities, got none that is known; scores need labelled faces")
    i, n_i = np.unique(labels[known], return_inverse=True, return_counts=True)[1:]
    j, n_j = np.unique(names[known], return_inverse=True, return_counts=True)[1:]
    cells, n_ij = np.unique(i.astype(np.int64) * len(n_j) + j, return_counts=True)
    i, j = cells // len(n_j), cells % len(n_j)
    total = int(known.sum())
    pairs = [float((n.astype(np.int64) * (n - 1)).sum()) for n in (n_ij, n_i, n_j)]
    bcubed = [float((n_ij**2 / n).sum() / total) for n in (n_i[i], n_j[j])]
    return {
        **_f1("pairwise", *(pairs[0] / n if n else 1.0 for n in pairs[1:])),
        **_f1("bcubed", *bcubed),
        "nmi": _nmi(n_ij / total, n_i / total, n_j / total, i, j),
        "clusters": len(n_i),
        "identities": len(n_j),
    }


def _vote(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return for each row of labels (n, k) the one with the largest sum of weights (n, k); ties: the lower label."""
    rows, k = labels.shape
    order = np.argsort(labels, axis=1, kind="stable")
    labels, weights = np.take_along_axis(labels, order, 1), np.take_along_axis(weights, order, 1)
    first = np.ones((rows, k), bool)  # where a run of equal labels begins
    np.not_equal(labels[:, 1:], labels[:, :-1], out=first[:, 1:])
    starts = np.flatnonzero(first)
    sums = np.zeros((rows, k), np.float32)
    sums.reshape(-1)[starts] = np.add.reduceat(weights.reshape(-1), starts)
    return labels[np.arange(rows), sums.argmax(1)]


def _largest_first(labels: np.ndarray) -> np.ndarray:
    first, codes, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)[1:]
    place = np.empty(len(sizes), np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return place[codes]


def _f1(name: str, precision: float, recall: float) -> dict[str, float]:
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": f1}


def _nmi(p_ij: np.ndarray, p_i: np.ndarray, p_j: np.ndarray, i: np.ndarray, j: np.ndarray) -> float:
    entropy = -float((p_i * np.log(p_i)).sum() + (p_j * np.log(p_j)).sum()) / 2
    information = float((p_ij * np.log(p_ij / (p_i[i] * p_j[j]))).sum())
    return max(0.0, information / entropy) if entropy > 0 else 1.0
