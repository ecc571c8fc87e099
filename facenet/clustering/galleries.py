"""The faces of a gallery, grouped by person: those of one encoder, because distances of two encoders have two scales.

Letters: N faces, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from facenet.clustering.clusters import cluster, method_for
from facenet.clustering.threshold import find_threshold
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery, Item

MOST = 100_000  # faces that are held in memory, with their items
PAGE = 1000  # items that are counted at once


class GalleryClusters(NamedTuple):
    """Groups of two and more faces, the largest first, and how they were found."""

    groups: list[list[Item]]
    threshold: float | None  # None: fewer than two faces
    rule: str


def cluster_gallery(gallery: Gallery, encoder: Encoder, *, unnamed: bool = False, most: int = MOST) -> GalleryClusters:
    """Group the faces of `encoder` in a gallery, all or the `unnamed` ones, by the rule of ``facenet cluster``.

    Faces of other encoders are left out; the rule says how many. A gallery without faces has no groups.

    Raises:
        DataError: more than `most` faces, which are counted before any vector is kept.
    """
    if (count := _count(gallery, encoder.fingerprint, unnamed, most)) > most:
        raise DataError(f"{gallery.folder}: more than {most:,} faces are too many to cluster here; run facenet cluster")
    items: list[Item] = []
    vectors = np.zeros((count, encoder.dim), np.float32)
    left_out = 0
    for item, vector in _chosen(gallery, unnamed):
        if item.fingerprint != encoder.fingerprint:
            left_out += 1
        elif len(items) < count:  # else it came meanwhile
            vectors[len(items)] = vector
            items.append(item)
    others = f"; {left_out} faces of older encoders are left out" if left_out else ""
    if len(items) < 2:
        return GalleryClusters([], None, f"fewer than two faces{others}")
    method = method_for(len(items))
    threshold, told = find_threshold(len(items), method, encoder.thresholds, None)
    labels = cluster(vectors[: len(items)], threshold, method=method)
    groups: list[list[Item]] = [[] for _ in range(labels.max() + 1)]
    for item, label in zip(items, labels.tolist(), strict=True):
        groups[label].append(item)
    return GalleryClusters([group for group in groups if len(group) > 1], threshold, f"{told['rule']}{others}")


def _count(gallery: Gallery, fingerprint: str, unnamed: bool, most: int) -> int:
    """Return how many faces of an encoder there are; counting unnamed ones ends soon after `most`."""
    count = int(gallery.info()["fingerprints"].get(fingerprint, 0))
    if not unnamed or not count:
        return count
    count = after = 0
    while count <= most and (items := gallery.page(after, PAGE, identity="")):
        count, after = count + sum(item.fingerprint == fingerprint for item in items), items[-1].number
    return count


def _chosen(gallery: Gallery, unnamed: bool) -> Iterator[tuple[Item, np.ndarray]]:
    """Yield the items, or those without identity, with their vectors (D,)."""
    for items, vectors in gallery.blocks():
        yield from (pair for pair in zip(items, vectors, strict=True) if not (unnamed and pair[0].identity))
