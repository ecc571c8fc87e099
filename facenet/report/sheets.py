"""The pictures of a report: mistakes, triplets and clusters, as small JPEGs inside the page.

The embeddings of the reported faces choose them: the worst mistakes, triplets by the rule of mining, and clusters.
Nothing here is random.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.clustering.clusters import cluster
from facenet.clustering.sheets import Clusters, pick
from facenet.errors import DataError
from facenet.report.page import Picture, Sheet, Tile
from facenet.report.parts import Evaluation
from facenet.report.values import get_value
from facenet.types import EmbeddingSet
from facenet.vectors import sq_dist_matrix

WORST = 12  # mistakes of each kind
TRIPLETS = 8
TILES, MEMBERS = 4, 12  # clusters of each sort, and faces of one
ANCHORS = 400  # people among whom triplets are searched
QUALITY = 82


class Triplet(NamedTuple):
    """Rows of an anchor, a positive and its nearest semi-hard negative, with their squared distances."""

    anchor: int
    positive: int
    negative: int
    to_positive: float
    to_negative: float


class Faces:
    """Pictures of the reported faces at `side` pixels, from thumbnails, or from files with the encoder's crop."""

    def __init__(self, evaluation: Evaluation, encoder: Mapping[str, Any] | None, side: int) -> None:
        self.embeddings, self.thumbnails, self.side = evaluation.embeddings, evaluation.thumbnails, side
        self.crop = get_value(encoder, "preprocessing")
        self._done: dict[int, Picture] = {}

    @property
    def there(self) -> bool:
        """Whether pixels are available: thumbnails, or the file of the first face."""
        return self.thumbnails is not None or (len(self.embeddings) > 0 and self._path(0).is_file())

    def picture(self, row: int) -> Picture:
        """Return one face; an unreadable one is a grey square with a note in its text."""
        if row not in self._done:
            self._done[row] = self._picture(row)
        return self._done[row]

    def name(self, row: int) -> str:
        """Return the identity of a face, or the name of its file if the identity is unknown."""
        return self.embeddings.identities[row] or Path(self.embeddings.paths[row]).stem

    def _path(self, row: int) -> Path:
        return Path(self.embeddings.root) / self.embeddings.paths[row]

    def _picture(self, row: int) -> Picture:
        alt = f"face of {self.name(row)}"
        try:
            pixels = self.thumbnails[row] if self.thumbnails is not None else self._read(self._path(row))
        except DataError:
            pixels, alt = np.full((8, 8, 3), 200, np.uint8), f"{alt} (file not readable)"
        picture = Image.fromarray(pixels)
        picture.thumbnail((self.side, self.side))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY, optimize=True)
        return Picture("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), alt)

    def _read(self, path: Path) -> np.ndarray:
        """Decode a file and cut it as the encoder does, at the size of the page."""
        from facenet.data.preprocess import Preprocess
        from facenet.faces.alignment import Alignment

        height, width = get_value(self.crop, "size") or (self.side, self.side)
        scale = self.side / max(height, width)
        size = max(16, round(height * scale)), max(16, round(width * scale))
        align = get_value(self.crop, "align")
        crop, found = get_value(self.crop, "crop") or 1.0, Alignment.from_dict(align) if align else None
        return Preprocess(size=size, crop=crop, align=found).read(path)


def mistakes(evaluation: Evaluation, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs (row numbers) wrongly accepted, nearest first, and wrongly refused, farthest first."""
    accepted = evaluation.sq_dist <= threshold
    accepts = np.flatnonzero(accepted & ~evaluation.same)
    rejects = np.flatnonzero(~accepted & evaluation.same)
    by = evaluation.sq_dist
    return accepts[np.argsort(by[accepts], kind="stable")], rejects[np.argsort(-by[rejects], kind="stable")]


def mistake_sheets(evaluation: Evaluation, faces: Faces, threshold: float) -> list[Sheet]:
    """Return the sheets of the worst false accepts and false rejects."""
    accepts, rejects = mistakes(evaluation, threshold)
    kinds = ((accepts, "different people taken for one", False), (rejects, "one person not recognised", True))
    sheets = []
    for rows, text, same in kinds:
        tiles = []
        for pair in rows[:WORST].tolist():
            ends = int(evaluation.first[pair]), int(evaluation.second[pair])
            names = faces.name(ends[0]) if same else f"{faces.name(ends[0])} and {faces.name(ends[1])}"
            tiles.append(Tile([faces.picture(end) for end in ends], f"{names}: {evaluation.sq_dist[pair]:.3f}"))
        some = f", the worst {WORST} shown" if len(rows) > WORST else ""
        caption = f"{len(rows)} pairs of {text}{some}; squared distances, accepted up to {threshold:.3f}."
        sheets.append(Sheet(tiles, caption))
    return sheets


def find_triplets(embeddings: EmbeddingSet, margin: float, count: int = TRIPLETS) -> list[Triplet]:
    """Return the hardest semi-hard triplets, at most one for each person, the one with the largest loss first.

    The anchor is a person's first face. The negative n is the nearest with d(a,p) < d(a,n) < d(a,p) + margin. The
    positive is the one with the largest loss d(a,p) - d(a,n) + margin. Source: Schroff et al. 2015, section 3.2.
    """
    names = np.asarray(embeddings.identities)
    people = [np.flatnonzero(names == name) for name in sorted(set(embeddings.identities) - {""})]
    people = [rows for rows in people if len(rows) > 1][:ANCHORS]
    if not people:
        return []
    distances = sq_dist_matrix(embeddings.vectors[[rows[0] for rows in people]], np.asarray(embeddings.vectors))
    found = []
    for rows, near in zip(people, distances, strict=True):
        negatives = np.flatnonzero((names != names[rows[0]]) & (names != ""))
        for positive in rows[1:].tolist():
            bound = near[positive]
            candidates = negatives[(near[negatives] > bound) & (near[negatives] < bound + margin)]
            if len(candidates):
                negative = int(candidates[near[candidates].argmin()])
                found.append(Triplet(int(rows[0]), positive, negative, float(bound), float(near[negative])))
    found.sort(key=lambda triplet: (triplet.to_negative - triplet.to_positive, triplet))
    best: dict[int, Triplet] = {}
    for triplet in found:
        best.setdefault(triplet.anchor, triplet)
    return list(best.values())[:count]


def triplet_sheet(faces: Faces, triplets: Sequence[Triplet], margin: float) -> Sheet:
    """Return the gallery of triplets: anchor, positive, negative."""
    tiles = [
        Tile(
            [faces.picture(row) for row in triplet[:3]],
            f"{faces.name(triplet.anchor)} and {faces.name(triplet.negative)}:"
            f" {triplet.to_positive:.4f}, {triplet.to_negative:.4f}",
        )
        for triplet in triplets
    ]
    caption = (
        "Left to right: a face, another of the same person, and the nearest face of somebody else that is farther, but"
        f" by less than the margin {margin:g} (semi-hard). Numbers: squared distances of the second"
        " and the third to the first."
    )
    return Sheet(tiles, caption)


def find_clusters(embeddings: EmbeddingSet, threshold: float) -> Clusters:
    """Group the reported faces at a threshold on squared distance, see :func:`facenet.clustering.cluster`."""
    return pick(cluster(np.asarray(embeddings.vectors), threshold), embeddings.identities, TILES)


def cluster_sheets(faces: Faces, found: Clusters) -> list[Sheet]:
    """Return the sheets of the largest and the most mixed clusters, and of the people split over most clusters."""
    names = np.asarray(faces.embeddings.identities)
    sorts = (
        (found.largest, "The largest clusters."),
        (found.mixed, "The most mixed clusters: faces of several people in one."),
        (found.split, "The most split people: one person in several clusters, the faces in the order of the clusters."),
    )
    sheets = []
    for groups, caption in sorts:
        tiles = []
        for rows in groups:
            parts, people = len(np.unique(found.labels[rows])), len(set(names[rows].tolist()))
            who = faces.name(int(rows[0])) if people == 1 else f"{people} people"
            where = f"in {parts} clusters" if parts > 1 else "in one cluster"
            more = f", {MEMBERS} shown" if len(rows) > MEMBERS else ""
            pictures = [faces.picture(row) for row in rows[:MEMBERS].tolist()]
            tiles.append(Tile(pictures, f"{who}: {len(rows)} faces {where}{more}"))
        if tiles:
            sheets.append(Sheet(tiles, caption, wide=True))
    return sheets


def map_rows(embeddings: EmbeddingSet, people: int = 20, faces: int = 600) -> np.ndarray:
    """Return rows for a map: the people with most faces, equally many of each, at most `faces` in all."""
    names = np.asarray(embeddings.identities)
    known, counts = np.unique(names[names != ""], return_counts=True)
    chosen = known[np.argsort(-counts, kind="stable")][:people]
    each = max(1, faces // max(1, len(chosen)))
    return np.concatenate([np.flatnonzero(names == name)[:each] for name in chosen] or [np.zeros(0, np.int64)])
