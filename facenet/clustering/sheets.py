"""Contact sheets of clusters: PNG pages of the largest, the most mixed, and of the people split over most clusters.

A row is a cluster, or a person, with a few of its faces. `facenet.evaluation.sheets` draws the pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facenet.data.preprocess import Preprocess
from facenet.evaluation.sheets import Row, Tile, draw

TITLES = {
    "largest": "The largest clusters",
    "mixed": "The most mixed clusters: several people in one, by the faces that are not the commonest person's",
    "split": "The most split people: one person in several clusters, the faces in the order of the clusters",
}


class Clusters(NamedTuple):
    """Which clusters and which people to show; each entry is the rows of its faces."""

    largest: list[np.ndarray]  # of two faces or more
    mixed: list[np.ndarray]  # with most faces of others than its commonest person, unknown ones not counted
    split: list[np.ndarray]  # people over most clusters, rows in the order of their clusters
    labels: np.ndarray  # (N,) cluster of each face


def pick(labels: np.ndarray, identities: Sequence[str] | np.ndarray, count: int) -> Clusters:
    """Choose `count` of each sort from cluster numbers (N,) and identities (N,), "" where unknown."""
    labels, names = np.asarray(labels), np.asarray(identities)
    sizes, known = np.bincount(labels), names != ""
    people, person = np.unique(names[known], return_inverse=True)
    cells, faces = np.unique(labels[known] * max(1, len(people)) + person, return_counts=True)
    cluster, person = cells // max(1, len(people)), cells % max(1, len(people))
    commonest = np.zeros_like(sizes)
    np.maximum.at(commonest, cluster, faces)
    foreign = np.bincount(labels[known], minlength=len(sizes)) - commonest
    parts = np.bincount(person, minlength=len(people))
    split = [np.flatnonzero(names == people[i]) for i in _most(parts, 2, count)]
    return Clusters(
        [np.flatnonzero(labels == i) for i in _most(sizes, 2, count)],
        [np.flatnonzero(labels == i) for i in _most(foreign, 1, count)],
        [rows[np.argsort(labels[rows], kind="stable")] for rows in split],
        labels,
    )


def write_sheets(
    labels: np.ndarray,
    identities: Sequence[str],
    files: Sequence[Path],
    folder: Path,
    *,
    count: int = 12,
    members: int = 12,
    look: Preprocess | None = None,
) -> list[Path]:
    """Write ``largest.png``, ``mixed.png``, ``split.png`` with at most `count` rows of `members` faces; their paths.

    N cluster numbers, identities ("" where unknown) and image files. A sort without any member has no page. Of a mixed
    cluster some faces of each person are shown, of a split person some of each cluster. `look` is the
    encoder's preprocessing.
    """
    found, names = pick(labels, identities, count), np.asarray(identities)
    written = []
    for sort, title in TITLES.items():
        rows: list[Row] = []
        for group in getattr(found, sort):
            by = labels if sort == "split" else names
            shown = _some_of_each(group, by, members)
            tags = [f"cluster {labels[i]}" if sort == "split" else names[i] or "unknown" for i in shown]
            caption = _person(group, labels, names) if sort == "split" else _cluster(group, labels, names)
            rows.append(Row(caption, [Tile(files[i], [tag]) for i, tag in zip(shown, tags, strict=True)]))
        if rows:
            written.append(folder / f"{sort}.png")
            draw(written[-1], title, rows, look=look, across=members)
    return written


def _cluster(rows: np.ndarray, labels: np.ndarray, names: np.ndarray) -> str:
    people, faces = np.unique(names[rows][names[rows] != ""], return_counts=True)
    text = f"cluster {labels[rows[0]]}: {len(rows)} faces"
    if not len(people):
        return text
    order = np.argsort(-faces, kind="stable")
    most = ", ".join(f"{people[i]} {faces[i]}" for i in order[:4])
    more = f", and {len(people) - 4} more" if len(people) > 4 else ""
    return f"{text}, purity {faces.max() / faces.sum():.2f}: {most}{more}"


def _person(rows: np.ndarray, labels: np.ndarray, names: np.ndarray) -> str:
    clusters, faces = np.unique(labels[rows], return_counts=True)
    order = np.argsort(-faces, kind="stable")
    most = ", ".join(f"{faces[i]} in cluster {clusters[i]}" for i in order[:4])
    more = f", and {len(clusters) - 4} more" if len(clusters) > 4 else ""
    return f"{names[rows[0]]}: {len(rows)} faces in {len(clusters)} clusters: {most}{more}"


def _some_of_each(rows: np.ndarray, by: np.ndarray, members: int) -> list[int]:
    """Choose rows in turn from every group of `by`, the largest first, and show each group's together."""
    codes, sizes = np.unique(by[rows], return_inverse=True, return_counts=True)[1:]
    order = np.lexsort((codes, -sizes[codes]))  # groups together, the largest first
    first = np.concatenate(([True], codes[order][1:] != codes[order][:-1]))
    turn = np.arange(len(rows)) - np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    chosen = np.sort(np.argsort(turn, kind="stable")[:members])
    return [int(i) for i in rows[order[chosen]]]


def _most(values: np.ndarray, least: int, count: int) -> list[int]:
    """Return the places of the `count` highest values of at least `least`; ties in their order."""
    order = np.argsort(-values, kind="stable")[:count]
    return [int(i) for i in order if values[i] >= least]
