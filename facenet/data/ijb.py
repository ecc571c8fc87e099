"""IJB-B and IJB-C from their standard metadata: faces with landmarks, templates, template pairs, lists of galleries.

A template is a set of faces of one person. Its faces come from media: a photograph, or a video of which several frames
are used. The files lie in ``meta/`` (or right under the root), the pictures in ``loose_crop/``; NAME is ijbb or ijbc:

- ``NAME_face_tid_mid.txt``: image, template, medium of each face.
- ``NAME_name_5pts_score.txt``: image, five landmarks (x, y) and the detector's score of each face, in the same order.
- ``NAME_template_pair_label.txt``: two templates and 1 or 0 of each pair (8 million pairs of IJB-B, 15.7 of IJB-C).
- ``NAME_1N_gallery_S1.csv`` and ``S2`` (or ``G1``, ``G2``) and ``NAME_1N_probe_mixed.csv``: template, person.

Source: Whitelam et al. 2017 (IJB-B); Maze et al. 2018 (IJB-C); the files that InsightFace's eval_ijbc.py reads.
Letters: N faces, T templates.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import DataError, one_line
from facenet.files import is_inside, read_bytes, sha256_file

NAMES = ("ijbc", "ijbb")
IMAGES, PAIRS, FACES, LANDMARKS = "loose_crop", "template_pair_label", "face_tid_mid", "name_5pts_score"
GALLERIES = {"S1": ("S1", "G1"), "S2": ("S2", "G2")}  # name -> what its file may call it
POINTS = 5
MOST_BYTES = 1 << 28  # of a list of faces; that of IJB-C has a fifth
BLOCK_PAIRS = 1 << 19
REMEDY = "give the folder that holds meta/ and loose_crop/ of IJB-B or IJB-C"


class IjbFaces(NamedTuple):
    """N faces, each a row: the picture, its landmarks, and whose template and medium it belongs to."""

    images: tuple[str, ...]  # paths below `folder`
    folder: Path
    landmarks: np.ndarray  # (N, 5, 2) float32, pixels; the centre of the first pixel is at 0
    scores: np.ndarray  # (N,) float32, of the detector
    templates: np.ndarray  # (N,) int64
    media: np.ndarray  # (N,) int64; a number means one medium within a template


class TemplateList(NamedTuple):
    """Templates of a gallery or of probes, each once, with the person it shows."""

    templates: np.ndarray  # (T,) int64
    people: np.ndarray  # (T,) int64


class Ijb(NamedTuple):
    """What a folder of IJB-B or IJB-C holds; the pairs are read by :func:`read_template_pairs`."""

    name: str  # ijbb or ijbc
    faces: IjbFaces
    pairs: Path
    galleries: dict[str, TemplateList]  # "S1" and "S2"; {} if their lists are not there
    probes: TemplateList | None
    sha256: dict[str, str]  # of each metadata file


def read_ijb(root: str | Path) -> Ijb:
    """Read the metadata of a folder; opens no picture.

    Raises:
        DataError: a file is missing or damaged, or the lists do not belong together.
    """
    root = Path(root)
    meta = root / "meta" if (root / "meta").is_dir() else root
    name = next((name for name in NAMES if (meta / f"{name}_{FACES}.txt").is_file()), None)
    if name is None:
        raise DataError(f"{root}: no {NAMES[0]}_{FACES}.txt or {NAMES[1]}_{FACES}.txt in {meta}; {REMEDY}")
    if not (root / IMAGES).is_dir():
        raise DataError(f"{root}: no folder {IMAGES}; {REMEDY}")
    files = {what: meta / f"{name}_{what}.txt" for what in (FACES, LANDMARKS, PAIRS)}
    for file in files.values():
        if not file.is_file():
            raise DataError(f"{file}: no such file; {REMEDY}")
    faces = _faces(files[FACES], files[LANDMARKS], root / IMAGES)
    lists = {which: meta / f"{name}_1N_gallery_{_named(meta, name, which)}.csv" for which in GALLERIES}
    probes = meta / f"{name}_1N_probe_mixed.csv"
    there = [file for file in (*lists.values(), probes) if file.is_file()]
    if there and len(there) < len(lists) + 1:
        missing = next(file for file in (*lists.values(), probes) if file not in there)
        raise DataError(f"{missing}: no such file, but {there[0].name} is there; {REMEDY}")
    known = np.unique(faces.templates)
    return Ijb(
        name,
        faces,
        files[PAIRS],
        {which: _template_list(file, known) for which, file in lists.items()} if there else {},
        _template_list(probes, known) if there else None,
        {file.name: sha256_file(file) for file in (*files.values(), *there)},
    )


def read_template_pairs(
    file: str | Path, templates: np.ndarray, block: int = BLOCK_PAIRS
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the pairs in blocks of B: rows (B,) of both templates in the sorted `templates` (T,), and whether they show
    one person (B,) bool.

    Raises:
        DataError: no pairs, a line that is not "template template label", or a template without a face.
    """
    file, done = Path(file), 0
    try:
        with file.open(encoding="ascii") as lines:
            while len(given := _numbers(lines, max_rows=block)):
                if given.shape[1] != 3 or not np.isin(given[:, 2], (0, 1)).all():
                    raise ValueError("expected lines TEMPLATE TEMPLATE LABEL, LABEL 1 or 0")
                first, second = (_rows_of(given[:, side], templates) for side in (0, 1))
                yield first, second, given[:, 2] == 1
                done += len(given)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}, after pair {done}: {one_line(error)}; copy it again") from error
    if not done:
        raise DataError(f"{file}: no pairs; {REMEDY}")


def _numbers(lines: Any, **options: Any) -> np.ndarray:
    """Return lines of whole numbers as an array (B, columns); no rows at the end. Raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of no line left
        return np.loadtxt(lines, np.int64, comments=None, ndmin=2, **options)


def _rows_of(numbers: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Return the rows of templates in the sorted ones; raises ValueError for one without a face."""
    rows = np.searchsorted(templates, numbers).clip(max=len(templates) - 1)
    absent = np.flatnonzero(templates[rows] != numbers)
    if len(absent):
        raise ValueError(f"template {numbers[absent[0]]} has no face")
    return rows


def _named(meta: Path, name: str, which: str) -> str:
    """Return what the file of a gallery calls it: IJB-B says S1, IJB-C G1."""
    spellings = GALLERIES[which]
    return next((one for one in spellings if (meta / f"{name}_1N_gallery_{one}.csv").is_file()), spellings[0])


def _faces(members: Path, landmarks: Path, folder: Path) -> IjbFaces:
    """Join the two lists of faces, which have a line for each face in the same order."""
    images, numbers = _columns(members, 2, np.int64)
    others, points = _columns(landmarks, 2 * POINTS + 1, np.float32)
    if images != others:
        row = next((i for i, pair in enumerate(zip(images, others, strict=False)) if pair[0] != pair[1]), -1)
        where = f"line {row + 1} names other images" if row >= 0 else f"{len(images)} and {len(others)} lines"
        raise DataError(f"{members} and {landmarks.name}: {where}; take both from one copy of the set")
    bad = next((image for image in images if not is_inside(image)), None)
    if bad is not None:
        raise DataError(f"{members}: the path {bad[:80]!r} leads outside {folder}; copy the list again")
    spread = np.ptp(points[:, :-1].reshape(-1, POINTS, 2), axis=1).max(1)
    broken = np.flatnonzero(~(spread > 0) | ~np.isfinite(points).all(1) | (points[:, -1] < 0))
    if len(broken):
        raise DataError(f"{landmarks}, line {broken[0] + 1}: expected five points and a score; copy the list again")
    shaped = points[:, :-1].reshape(-1, POINTS, 2)
    return IjbFaces(tuple(images), folder, shaped, points[:, -1].copy(), numbers[:, 0], numbers[:, 1])


def _columns(file: Path, count: int, kind: type) -> tuple[list[str], np.ndarray]:
    """Return the first column of a list as texts, and the `count` others as numbers (N, count)."""
    try:
        lines = read_bytes(file, most=MOST_BYTES).decode().splitlines()
        rows = [line.split() for line in lines]
        wrong = next((number for number, row in enumerate(rows, 1) if len(row) != count + 1), None)
        if wrong is not None or not rows:
            raise ValueError(f"line {wrong or 1}: expected an image and {count} numbers")
        return [row[0] for row in rows], np.loadtxt(lines, kind, comments=None, usecols=range(1, count + 1), ndmin=2)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: {one_line(error)}; copy it again") from error


def _template_list(file: Path, known: np.ndarray) -> TemplateList:
    """Read templates and people from the first two columns of a table that has a line for each face."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            given = _numbers(lines, delimiter=",", skiprows=1, usecols=(0, 1))
        if not len(given):
            raise ValueError("no line below the header")
        pairs = np.unique(given, axis=0)
        again = np.flatnonzero(pairs[1:, 0] == pairs[:-1, 0])
        if len(again):
            raise ValueError(f"template {pairs[again[0], 0]} shows two people")
        _rows_of(pairs[:, 0], known)
        return TemplateList(pairs[:, 0], pairs[:, 1])
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: {one_line(error)}; copy it again") from error
