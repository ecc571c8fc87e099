"""IJB-B and IJB-C: faces to templates, pairs of templates at a false accept rate, and probes in two galleries.

The vector of a template is normalise(sum_m mean_{f in m} w_f v_f): v_f the unit vectors of its faces, w_f their weights
(1, or the detector's scores), m its media. The frames of a video so count as one picture.
A distance is D = 2 - 2 cos of two templates. TAR at FAR is VAL at FAR of :mod:`.roc`, read at the largest threshold
that keeps the rate. InsightFace's script reads it at the point of the ROC whose FAR is nearest, which may exceed the
rate; that number is given beside it, since published tables hold it.
A probe is searched in gallery S1 and in gallery S2. It has a mate in at most one of them. Rank-k counts the probes with
a mate, of both galleries together; TPIR at FPIR is given for each gallery, and their mean.
Source: Whitelam et al. 2017 and Maze et al. 2018 (protocols); eval_ijbc.py of InsightFace's arcface_torch (arithmetic
of 1:1); Grother and Ngan, NIST FRVT (TPIR at FPIR).
Letters: N faces, T templates, D embedding width, P pairs of templates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.ijb import IjbFaces, TemplateList
from facenet.data.pictures import decode, upright_rgb
from facenet.data.preprocess import Preprocess, stack
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation.identification import identify
from facenet.evaluation.roc import FARS, at_far, far_name
from facenet.faces.alignment import Alignment
from facenet.faces.detector import Face
from facenet.interrupts import thread_pool
from facenet.types import Progress

RANKS, FPIRS = (1, 5, 10), (1e-1, 1e-2)
BLOCK_BYTES = 1 << 25  # of the vectors on one side of a block of pairs
LEAST_NORM = 1e-9  # of the sum of a template: a shorter one has no direction
Pairs = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]  # blocks of (rows, rows, whether they show one person)


class TemplateVectors(NamedTuple):
    """T templates by number, in ascending order, with their unit vectors."""

    templates: np.ndarray  # (T,) int64
    vectors: np.ndarray  # (T, D) float64

    def rows(self, templates: np.ndarray) -> np.ndarray:
        """Return the vectors (M, D) of some of the templates."""
        return self.vectors[np.searchsorted(self.templates, templates)]


class TemplateSums:
    """Sums of the faces of T templates, which grow as faces are embedded: no vector of a face is kept."""

    def __init__(self, templates: np.ndarray, media: np.ndarray, weights: np.ndarray, dim: int) -> None:
        self.templates, self._row = np.unique(templates, return_inverse=True)
        _, medium, counts = np.unique(np.stack([templates, media], 1), axis=0, return_inverse=True, return_counts=True)
        self._weights = np.asarray(weights, np.float64) / counts[medium.reshape(-1)]  # (N,) w_f / |m|
        self._sums = np.zeros((len(self.templates), dim))  # (T, D)

    def add(self, first: int, vectors: np.ndarray) -> None:
        """Add the vectors (B, D) of faces `first` to first + B."""
        rows = slice(first, first + len(vectors))
        np.add.at(self._sums, self._row[rows], self._weights[rows, None] * vectors.astype(np.float64))

    def unit(self) -> TemplateVectors:
        """Return the templates' unit vectors.

        Raises:
            DataError: the faces of a template add up to nothing, as with scores of 0.
        """
        norms = np.linalg.norm(self._sums, axis=1)
        nothing = np.flatnonzero(~(norms > LEAST_NORM))
        if len(nothing):
            raise DataError(
                f"template {self.templates[nothing[0]]}: its faces add up to nothing, perhaps since all their scores"
                " are 0; pass weigh_by_score=false"
            )
        return TemplateVectors(self.templates, self._sums / norms[:, None])


def template_vectors(
    vectors: np.ndarray, templates: np.ndarray, media: np.ndarray, weights: np.ndarray | None = None
) -> TemplateVectors:
    """Return the vectors of T templates from those of their N faces (N, D); `weights` (N,) are 1 unless given.

    Raises:
        DataError: as :meth:`TemplateSums.unit`.
    """
    sums = TemplateSums(templates, media, np.ones(len(vectors)) if weights is None else weights, vectors.shape[1])
    sums.add(0, vectors)
    return sums.unit()


def embed_templates(
    encoder: Encoder,
    faces: IjbFaces,
    *,
    weigh_by_score: bool = True,
    margin: float = 1.0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> TemplateVectors:
    """Cut, embed and add up the faces of every template; memory holds two batches and the templates.

    A face is cut by its landmarks with the encoder's own template. `margin` is the side of the cut over ArcFace's
    template for an encoder that names none. `progress` is called with (done, total) faces.

    Raises:
        ConfigError: an encoder whose faces are cut by boxes.
        DataError: a picture is missing or can not be read, or as :meth:`TemplateSums.unit`.
    """
    cut = face_cutter(encoder.preprocess, margin)
    weights = faces.scores if weigh_by_score else np.ones(len(faces.images))
    sums = TemplateSums(faces.templates, faces.media, weights, encoder.dim)
    total = len(faces.images)
    with thread_pool(min(32, os.cpu_count() or 1)) as pool:

        def submit(start: int) -> list[Any]:
            rows = range(start, min(start + batch_size, total))
            return [pool.submit(cut, faces.folder / faces.images[row], faces.landmarks[row]) for row in rows]

        waiting = submit(0)
        for start in range(0, total, batch_size):
            current, waiting = waiting, submit(start + batch_size)
            images = encoder.preprocess.normalise(stack([future.result() for future in current]))
            sums.add(start, encoder.embed_batch(images, names=faces.images[start : start + batch_size]))
            if progress:
                progress(min(start + batch_size, total), total)
    return sums.unit()


def face_cutter(preprocess: Preprocess, margin: float = 1.0) -> Callable[[Path, np.ndarray], np.ndarray]:
    """Return a function of a picture's file and five landmarks (5, 2) that returns the face as the network reads it.

    Landmarks count pixels from the centre of the first one, as those of IJB do. The result is uint8 (H, W, 3).

    Raises:
        ConfigError: faces that are cut by boxes, of which landmarks tell nothing.
    """
    plain, side = replace(preprocess, align=None), math.ceil(max(preprocess.size) / preprocess.crop)
    align = preprocess.align or Alignment(margin=margin, size=min(side, 2048))
    if align.template == "box":
        raise ConfigError("ijb: the encoder reads faces that are cut by boxes, and IJB gives landmarks; take another")

    def cut(file: Path, landmarks: np.ndarray) -> np.ndarray:
        face = Face((0.0, 0.0, 1.0, 1.0), landmarks.astype(np.float64) + 0.5, 1.0)
        if abs(align.transform(face)[0]) < LEAST_NORM:
            raise DataError(f"{file}: its landmarks are no face's; copy the list of landmarks again")
        return plain.read(decode(file, lambda picture: align.crop(upright_rgb(picture), face)))

    return cut


def verify_templates(
    templates: TemplateVectors,
    pairs: Pairs,
    fars: Sequence[float] = FARS,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Measure TAR at each FAR over P pairs of templates: plain numbers for ``metrics.json``.

    Memory is about 40 bytes a pair. `progress` is called with the number of pairs that are done.

    Raises:
        DataError: only one class of pairs, or as the blocks.
        ConfigError: a FAR outside (0, 1].
    """
    same, different, done = [], [], 0
    step = max(1, BLOCK_BYTES // (8 * templates.vectors.shape[1]))
    for first, second, labels in pairs:
        distances = np.empty(len(labels))
        for at in range(0, len(labels), step):
            one, two = (templates.vectors[rows[at : at + step]] for rows in (first, second))
            distances[at : at + step] = 2 - 2 * np.einsum("pd,pd->p", one, two)
        distances = distances.clip(0, 4)
        same.append(distances[labels])
        different.append(distances[~labels])
        done += len(labels)
        if progress:
            progress(done)
    near, far = (np.sort(np.concatenate(part)) if part else np.empty(0) for part in (same, different))
    if not len(near) or not len(far):
        raise DataError(f"ijb: expected pairs of one person and of two, got {len(near)} and {len(far)}")
    rows = {}
    for rate, nearest in zip(fars, tar_at_nearest(near, far, fars), strict=True):
        row = at_far(near, far, rate)
        rows[far_name(rate)] = {"tar": row.pop("val"), **row, "tar_at_nearest_far": nearest}
    return {"pairs": done, "same": len(near), "different": len(far), "tar_at_far": rows}


def tar_at_nearest(same: np.ndarray, different: np.ndarray, fars: Sequence[float]) -> list[float]:
    """Return the TAR at the ROC point whose FAR is nearest to each rate, of several such points the highest.

    Points are those where the curve bends, and its ends: what scikit-learn's ``roc_curve`` returns and eval_ijbc.py
    reads. A point may exceed the rate. `same` (S,) and `different` (M,) are sorted distances.
    """
    order = np.argsort(np.concatenate([same, different]), kind="stable")
    labels = order < len(same)
    values = np.concatenate([same, different])[order]
    del order
    ends = np.flatnonzero(np.append(values[1:] > values[:-1], True))
    del values
    accepted = np.cumsum(labels, dtype=np.int32)[ends]
    wrong = (ends + 1 - accepted).astype(np.int32)
    if len(ends) > 2:
        bends = (np.diff(wrong, 2) != 0) | (np.diff(accepted, 2) != 0)
        kept = np.concatenate([[True], bends, [True]])
        accepted, wrong = accepted[kept], wrong[kept]
    accepted, wrong = (np.append(0, side)[::-1] for side in (accepted, wrong))  # the most accepting point first
    rates = wrong / len(different)
    return [float(accepted[np.argmin(np.abs(rates - far))] / len(same)) for far in fars]


def identify_templates(
    templates: TemplateVectors, galleries: dict[str, TemplateList], probes: TemplateList
) -> dict[str, Any]:
    """Search every probe in each gallery: its metrics by the gallery's name, and `mean`, of both galleries together.

    Raises:
        DataError: no probe has a mate in a gallery.
    """
    asked = templates.rows(probes.templates)
    found = {
        name: identify(templates.rows(each.templates), each.people, asked, probes.people, ranks=RANKS, fpirs=FPIRS)
        for name, each in galleries.items()
    }
    mated = sum(one.probes for one in found.values())
    tpir: dict[str, float | None] = {}
    for fpir in FPIRS:
        each = [one.tpir_at_fpir[fpir]["tpir"] for one in found.values()]
        tpir[far_name(fpir)] = None if None in each else float(np.mean(each))
    cmc = {str(k): sum(one.cmc[k] * one.probes for one in found.values()) / mated for k in RANKS}
    metrics = {name: one.metrics() for name, one in found.items()}
    return {**metrics, "mean": {"rank1": cmc["1"], "cmc": cmc, "tpir_at_fpir": tpir, "probes": mated}}
