"""Group faces by identity from squared distances, score the groups by known identities, and keep them as a table.

A method looks at the vectors once and returns a function from a threshold to labels. ``average_linkage`` is the paper's
agglomerative clustering: quadratic in memory, for some thousand faces. ``chinese_whispers`` lets each face take the
label that its k nearest neighbours vote for: linear in memory, for any number of faces.

Letters: N faces, M new ones, D embedding width, k neighbours, E edges.
Source: Schroff et al. 2015, section 5.8 (agglomerative clustering); Biemann 2006 (Chinese whispers); Amigo et al.
2009 (BCubed).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from facenet.clustering import whispers
from facenet.errors import ConfigError, DataError, choose
from facenet.files import read_csv, write_csv
from facenet.neighbours import knn_graph, knn_search
from facenet.texts import numbered
from facenet.types import Neighbours
from facenet.vectors import finite_rows

SMALL = 3_000  # "auto" takes average linkage up to this many faces
MOST_LINKED = 20_000  # average linkage beyond it would need more than 3 GB
NEIGHBOURS = 32
COLUMNS = ("cluster", "path", "identity")  # of clusters.csv

Cut = Callable[[float], np.ndarray]  # a threshold on squared L2 -> labels (N,)


def average_linkage(vectors: np.ndarray, *, neighbours: int = 0, seed: int = 0, threads: int | None = None) -> Cut:
    """Merge the two clusters A, B of least mean squared L2 while it is at most the threshold.

    d(A, B) = mean over a in A, b in B of ||a - b||^2: the mean of the *squared* distances over all N_A N_B pairs.
    About 16 bytes for each of the N (N - 1) / 2 pairs; `neighbours`, `seed` and `threads` have no effect.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    count = len(vectors)
    if count < 2:
        return lambda threshold: np.zeros(count, np.int64)
    tree = linkage(pdist(vectors, "sqeuclidean"), "average")
    return lambda threshold: fcluster(tree, threshold, "distance").astype(np.int64)


def chinese_whispers(
    vectors: np.ndarray, *, neighbours: int = NEIGHBOURS, seed: int = 0, threads: int | None = None
) -> Cut:
    """Let each face take, in rounds, the label with most weight among its nearest neighbours.

    The neighbours are those of :func:`facenet.neighbours.knn_graph`, the votes those of
    :mod:`facenet.clustering.whispers`. Memory: what the graph takes, 12 k N bytes, and 32 E bytes for the E edges
    within the threshold.
    """
    found = knn_graph(vectors, neighbours, threads=threads, seed=seed)

    def cut(threshold: float) -> np.ndarray:
        weights = whispers.weaken_one_way(whispers.edges(found, threshold))
        return whispers.whisper(weights, np.arange(len(vectors)), seed=seed).astype(np.int64)

    return cut


METHODS: dict[str, Callable[..., Cut]] = {
    "average_linkage": average_linkage,
    "chinese_whispers": chinese_whispers,
}


def method_for(count: int, method: str = "auto") -> str:
    """Return the name of the method for so many faces; "auto" is average linkage up to 3,000, else Chinese whispers.

    Raises:
        ConfigError: an unknown method.
        DataError: more faces than average linkage takes.
    """
    if method == "auto":
        return "average_linkage" if count <= SMALL else "chinese_whispers"
    choose(METHODS, method, "method")
    if method == "average_linkage" and count > MOST_LINKED:
        raise DataError(f"average_linkage: {count} faces are more than {MOST_LINKED}; use method=chinese_whispers")
    return method


def cluster(
    vectors: np.ndarray,
    threshold: float,
    *,
    method: str = "auto",
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """Group N unit vectors (N, D): labels (N,) int64 from 0, the largest cluster first, the same for the same seed.

    `threshold` is a squared L2 in [0, 4], best that of :func:`facenet.evaluation.thresholds.threshold_for`: the usable
    value falls as N grows. Clusters of one size stand in the order of their first faces. `threads` changes only the
    time.

    Raises:
        DataError: no vectors, or NaN among them.
        ConfigError: an unknown method, a threshold outside [0, 4], or `neighbours` < 1.
    """
    vectors = checked(vectors, threshold, neighbours)
    run = METHODS[method_for(len(vectors), method)]
    return largest_first(run(vectors, neighbours=neighbours, seed=seed, threads=threads)(float(threshold)))


def assign(
    new: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    *,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """Give M new unit vectors (M, D) the clusters `labels` (N,) of N known ones, or new ones: labels (M,) int64.

    The new faces whisper: each takes the label of most weight among its k nearest known faces and its k nearest new
    ones within the threshold. The labels of the known faces stay. So faces of an unknown person find each other, and
    outvote a stranger who looks alike. New clusters are numbered after the highest of `labels`, the largest first.
    Time grows with M N.

    Raises:
        DataError: labels that do not fit, no vectors, other widths, or NaN among them.
        ConfigError: a threshold outside [0, 4], or `neighbours` < 1.
    """
    new, vectors = (checked(rows, threshold, neighbours) for rows in (new, vectors))
    labels = np.asarray(labels)
    if labels.shape != vectors.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"assign: expected a cluster number >= 0 for each of {len(vectors)} known faces")
    names, codes = np.unique(labels, return_inverse=True)
    old = knn_search(vectors, new, neighbours, threads=threads)
    young = knn_graph(new, neighbours, threads=threads, seed=seed)
    # columns: the M new faces, then the C clusters, whose labels 0 to C - 1 are the lower ones, which win equal votes
    rows = np.where(old.rows < 0, -1, len(new) + codes[old.rows])
    both = Neighbours(np.hstack((rows, young.rows)), np.hstack((old.sq_dist, young.sq_dist)))
    weights = whispers.edges(both, threshold, len(new) + len(names))
    begin = np.concatenate((np.arange(len(new)) + len(names), np.arange(len(names))))
    found = whispers.whisper(weights, begin, seed=seed)
    result, fresh = names[np.minimum(found, len(names) - 1)].astype(np.int64), found >= len(names)
    if fresh.any():
        result[fresh] = names[-1] + 1 + largest_first(found[fresh])
    return result


def checked(vectors: np.ndarray, threshold: float, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Return the vectors as contiguous float32; raises what :func:`cluster` says."""
    rows = finite_rows(vectors, "cluster")
    if not 0 <= threshold <= 4:
        raise ConfigError(f"cluster: expected a threshold on squared L2 in [0, 4], got {threshold}")
    if neighbours < 1:
        raise ConfigError(f"cluster: expected neighbours >= 1, got {neighbours}")
    return rows


def scores(labels: np.ndarray, identities: Sequence[str] | np.ndarray) -> dict[str, float]:
    """Compare cluster labels (N,) with identities (N,); faces of identity "" (unknown) are left out.

    With n_ij faces of identity j in cluster i: pairwise precision = sum C(n_ij, 2) / sum C(n_i, 2), recall with n_j
    below. BCubed precision = 1/N sum n_ij^2 / n_i, recall with n_j. F1 is their harmonic mean. NMI = mutual information
    over the mean of the two entropies. A share of nothing (no pairs claimed, no pairs to find) is 1.
    `clusters_per_identity` is 1 if there are as many clusters as people, above 1 if people are split. scikit-learn has
    no BCubed, so that one is computed here.

    Raises:
        DataError: other lengths, or no known identity.
    """
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import pair_confusion_matrix

    labels = np.asarray(labels)
    if labels.shape != (len(identities),):
        raise DataError(f"scores: expected one identity for each label, got {labels.shape} and {len(identities)}")
    distinct, names = numbered(identities)
    known = names != distinct.index("") if "" in distinct else np.ones(len(names), bool)
    if not known.any():
        raise DataError("scores: expected identities, got none that is known; scores need labelled faces")
    found, n_i = np.unique(labels[known], return_inverse=True, return_counts=True)[1:]
    true, n_j = np.unique(names[known], return_inverse=True, return_counts=True)[1:]
    cells, n_ij = np.unique(found.astype(np.int64) * len(n_j) + true, return_counts=True)
    i, j = cells // len(n_j), cells % len(n_j)
    total = int(known.sum())
    (_, claimed), (missed, both) = pair_confusion_matrix(true, found).tolist()
    bcubed = [float((n_ij**2 / n).sum() / total) for n in (n_i[i], n_j[j])]
    return {
        **_f1("pairwise", *(both / n if n else 1.0 for n in (both + claimed, both + missed))),
        **_f1("bcubed", *bcubed),
        "nmi": float(normalized_mutual_info_score(true, found)),
        "clusters": len(n_i),
        "identities": len(n_j),
        "clusters_per_identity": len(n_i) / len(n_j),
    }


def largest_first(labels: np.ndarray) -> np.ndarray:
    """Number clusters (N,) from 0, the largest first; those of one size in the order of their first faces."""
    first, codes, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)[1:]
    place = np.empty(len(sizes), np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return place[codes]


def _f1(name: str, precision: float, recall: float) -> dict[str, float]:
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": f1}


def write_clusters(file: str | Path, labels: np.ndarray, paths: Sequence[str], identities: Sequence[str]) -> None:
    """Write ``clusters.csv``: a line for each of N faces, sorted by cluster and path."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(labels[order]), 1)) + 1

    def lines() -> Iterator[tuple[int, str, str]]:
        for start, end in zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True):
            rows = order[start:end].tolist()
            yield from sorted((int(labels[row]), paths[row], identities[row]) for row in rows)

    write_csv(file, COLUMNS, lines())


def read_clusters(file: str | Path, paths: Sequence[str]) -> np.ndarray:
    """Read the clusters (N,) int64 of the faces of these paths; further lines of the file are not used.

    Raises:
        DataError: no such file, other columns, a cluster that is no number, a path with two clusters or with none.
    """
    found: dict[str, int] = {}
    for row in read_csv(file, ("cluster", "path"), remedy="facenet cluster writes clusters.csv"):
        path, text = row["path"], row["cluster"]
        if not re.fullmatch("[0-9]{1,18}", text):
            raise DataError(f"{file}: cluster of {path}: expected a number of at least 0, got {text[:40]!r}")
        if found.setdefault(path, int(text)) != int(text):
            raise DataError(f"{file}: {path} is in clusters {found[path]} and {text}; cluster the known faces again")
    missing = [path for path in paths if path not in found]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(paths)} known faces are not in it, the first {missing[0]};"
            " pass the embeddings that it was made from"
        )
    return np.asarray([found[path] for path in paths], np.int64)
