"""Align a folder of photos: a folder of face crops, in parallel, resumable, with a table of boxes.

``faces.csv`` has a line for every box found, and for every photo without one. A photo is listed after its faces are
written, so an interrupted run continues after the last line. ``align.json`` holds the options of the alignment.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.data.pictures import read_picture, why
from facenet.data.records import Records, Skipped
from facenet.data.sources.folder import read_alignment, write_alignment
from facenet.errors import ConfigError, DataError, one_line
from facenet.faces.alignment import Alignment
from facenet.faces.detector import find_faces
from facenet.faces.options import ALL
from facenet.files import atomic_write, csv_text, is_inside, read_bytes
from facenet.types import Progress

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # left and right in the picture
LANDMARKS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
COLUMNS = ("photo", "width", "height", "status", "file", "left", "top", "box_width", "box_height", "score", *LANDMARKS)
TABLE = "faces.csv"
FORMATS = {"jpg": ("JPEG", {"quality": 95}), "png": ("PNG", {"compress_level": 1})}
MOST_SIDE = 1 << 20  # pixels; larger pictures are not decoded
USED, OTHER, NONE = "used", "another face is meant", "no face found"


class Line(NamedTuple):
    """A line of the table: one face of a photo, or a photo without a face."""

    photo: str
    width: int
    height: int
    status: str  # used, or the reason why not
    file: str = ""
    box: tuple[float, ...] = ()
    score: float | None = None
    landmarks: tuple[float, ...] = ()

    def cells(self) -> list[Any]:
        """Return the cells in the order of `COLUMNS`; pixels with two decimals."""
        numbers = [f"{value:.2f}" for value in (*self.box, *self.landmarks)] or [""] * 14
        score = "" if self.score is None else f"{self.score:.4f}"
        return [self.photo, self.width, self.height, self.status, self.file, *numbers[:4], score, *numbers[4:]]

    @classmethod
    def of(cls, cells: Sequence[str]) -> Line:
        """Read what :meth:`cells` wrote; raises ValueError."""
        photo, width, height, status, file, *rest = cells
        if len(rest) != len(COLUMNS) - 5:
            raise ValueError("too few cells")
        likely = rest.pop(4)
        numbers = tuple(float(cell) for cell in rest) if rest[0] else ()
        score = float(likely) if likely else None
        size = int(width), int(height)
        if not all(map(math.isfinite, (*numbers, score or 0))) or (numbers and min(size) < 1) or max(size) > MOST_SIDE:
            raise ValueError(f"numbers out of range for {photo[:80]!r}")
        if status == USED and not (numbers and is_inside(file)):
            raise ValueError(f"no face, or a file outside the folder, for {photo[:80]!r}")
        return cls(photo, *size, status, file, numbers[:4], score, numbers[4:])


def align_folder(
    records: Records,
    out: str | Path,
    alignment: Alignment,
    *,
    kind: str = "jpg",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the faces of photos to ``out/<identity>/<image>``; a second call continues after the photos listed.

    Args:
        records: The photos.
        out: The folder of faces; not the one of the photos.
        alignment: How a face is cut; its `pick` chooses the face. With "all" every face of a photo is cut: the
            likeliest keeps the name, others get ``_2``, ``_3``.
        kind: A key of :data:`FORMATS`.
        progress: Called with (done, total) photos, first of all with those of an earlier run.

    Returns:
        The content of `metrics.json`, see :func:`summarise`.

    Raises:
        ConfigError: an unknown format.
        DataError: `out` is the photos' own folder, was made with other options, or can not be written.
    """
    out = Path(out)
    if kind not in FORMATS:
        raise ConfigError(f"format: unknown {kind!r}; known: {', '.join(FORMATS)}")
    done, names = _earlier(records, out, alignment, kind), targets(records.paths, kind)
    write_alignment(out, alignment)
    lines = [line for line in done if line.photo in names]
    with atomic_write(out / TABLE) as file:  # drops half a line of an interrupted run
        file.write(csv_text([COLUMNS, *(line.cells() for line in done)]).encode())
    known = {line.photo for line in lines}
    waiting = [row for row, path in enumerate(records.paths) if path not in known]

    def one(row: int) -> list[Line]:
        source = records.source(row)
        return _cut(source, records.paths[row], out, names[records.paths[row]], alignment, kind)

    if progress:
        progress(len(known), len(records))
    try:
        with (out / TABLE).open("ab", buffering=0) as table:
            for number, found in enumerate(_parallel(one, waiting), 1):
                table.write(csv_text(line.cells() for line in found).encode())
                lines += found
                if progress:
                    progress(len(known) + number, len(records))
    except OSError as error:
        raise DataError(f"{out}: writing failed ({error.strerror}); what is listed in {TABLE} is complete") from error
    return summarise(lines, records.skipped)


def _earlier(records: Records, out: Path, alignment: Alignment, kind: str) -> list[Line]:
    """Return the lines of an earlier run with the same options; raises DataError if `out` can not be used."""
    if records.alignment is not None:
        raise DataError(f"{records.root}: these faces are aligned already (align.json); give the photos")
    if out.resolve() == Path(records.root).resolve():
        raise DataError(f"{out}: this is the folder of the photos; choose another folder for the faces")
    before = read_alignment(out)
    done = read_table(out / TABLE)
    if before is None and done:
        raise DataError(f"{out}: holds {TABLE} but no align.json; choose an empty folder")
    now, then = alignment.to_dict() | {"format": kind}, (before or alignment).to_dict()
    then["format"] = next((PurePosixPath(line.file).suffix[1:] for line in done if line.status == USED), kind)
    changed = [key for key in now if now[key] != then[key]]
    if changed:
        old, new = (" ".join(f"{key}={values[key]}" for key in changed) for values in (then, now))
        raise DataError(
            f"{out}: holds faces cut with {old}, and {new} is asked for; give another out=, delete this folder to cut"
            f" its faces anew, or give {old} to go on"
        )
    return done


def summarise(lines: Sequence[Line], left_out: Sequence[Skipped] = ()) -> dict[str, Any]:
    """Return the numbers of photos, of photos with a face, of crops, and of what is not used by reason.

    ``not_used`` counts photos of which no face is used, by the reason of their likeliest box. ``boxes_not_used`` counts
    the boxes of all photos that are not used. ``distance_from_centre`` is the median distance between the centres of
    used face and picture. Its unit is the longer side of the picture.
    """
    photos = {line.photo for line in lines}
    used = [line for line in lines if line.status == USED]
    off = [
        float(np.hypot(line.box[0] + line.box[2] / 2 - line.width / 2, line.box[1] + line.box[3] / 2 - line.height / 2))
        / max(line.width, line.height)
        for line in used
    ]
    lost, boxes = list(left_out), [Skipped(line.photo, line.status).kind for line in lines if _dropped(line)]
    with_face = {line.photo for line in used}
    first = {line.photo: line.status for line in reversed(lines) if line.photo not in with_face}
    lost += [Skipped(*item) for item in first.items()]
    return {
        "photos": len(photos) + len(left_out),
        "photos_with_face": len(with_face),
        "faces": len(used),
        "found": len(with_face) / max(1, len(photos) + len(left_out)),
        "distance_from_centre": median(off) if off else None,
        "not_used": _counts(one.kind for one in lost),
        "boxes_not_used": _counts(boxes),
    }


def _dropped(line: Line) -> bool:
    """Whether the line is a box that is not used."""
    return line.status != USED and bool(line.box)


def _counts(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def skipped(lines: Sequence[Line]) -> list[Skipped]:
    """Return what is not used, with the reasons: photos without a face first, then boxes beside a used face."""
    with_face = {line.photo for line in lines if line.status == USED}
    left = sorted((line for line in lines if line.status != USED), key=lambda line: line.photo in with_face)
    return [Skipped(line.photo, _reason(line)) for line in left]


def _reason(line: Line) -> str:
    """Return why a line is not used, and of a box where it lies: a photo may have several."""
    if not line.box:
        return line.status
    left, top, width, height = (round(value) for value in line.box)
    return f"{line.status}: {width} x {height} pixels at ({left}, {top})"


def targets(paths: Sequence[str], kind: str) -> dict[str, str]:
    """Return the path of each photo's face: that of the photo with the new suffix.

    If two photos would have the same path, the suffix is appended to the whole name.

    >>> targets(["a/1.png", "a/1.jpg", "b/1.JPG"], "jpg")
    {'a/1.png': 'a/1.png.jpg', 'a/1.jpg': 'a/1.jpg', 'b/1.JPG': 'b/1.jpg'}
    """
    named = {path: PurePosixPath(path).with_suffix(f".{kind}").as_posix() for path in paths}
    shared = Counter(named.values())
    return {path: name if shared[name] == 1 or path == name else f"{path}.{kind}" for path, name in named.items()}


def read_table(file: str | Path) -> list[Line]:
    """Read the whole lines of ``faces.csv``; a missing file has none.

    Raises:
        DataError: the file is no such table, or damaged.
    """
    file = Path(file)
    if not file.exists():
        return []
    try:
        text = read_bytes(file).decode()
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(io.StringIO(whole, newline=""), strict=True))
        if rows and tuple(rows[0]) != COLUMNS:
            raise DataError(f"{file}: expected the columns {', '.join(COLUMNS)}; choose another folder")
        return [Line.of(row) for row in rows[1:]]
    except DataError:
        raise
    except (ValueError, OverflowError, csv.Error) as error:
        raise DataError(f"{file}: damaged ({one_line(error)}); delete it and align the photos again") from error


def _parallel(one: Callable[[int], list[Line]], rows: Sequence[int]) -> Iterator[list[Line]]:
    """Yield the results in order; at most 64 photos for each worker are in memory."""
    workers = min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(rows), 64 * workers):
            yield from pool.map(one, rows[start : start + 64 * workers])


def _cut(
    source: Path | bytes | np.ndarray, photo: str, out: Path, name: str, alignment: Alignment, kind: str
) -> list[Line]:
    """Write the faces of one photo and return its lines."""
    try:
        picture = Image.fromarray(source) if isinstance(source, np.ndarray) else read_picture(source)
    except DataError as error:
        return [Line(photo, 0, 0, why(error, source))]
    faces = find_faces(np.asarray(picture))
    if not faces:
        return [Line(photo, *picture.size, NONE)]
    usable = [face for face in faces if not alignment.why_unusable(face)]
    meant = usable if alignment.pick == ALL else [alignment.choose(faces, picture.size)] if usable else []
    lines = []
    for face in faces:
        status, file = alignment.why_unusable(face) or OTHER, ""
        number = next((place for place, other in enumerate(meant, 1) if other is face), 0)
        if number:
            path = PurePosixPath(name)
            status, file = USED, name if number == 1 else path.with_stem(f"{path.stem}_{number}").as_posix()
            _save(alignment.crop(picture, face), out / file, kind)
        box, points = (tuple(round(float(value), 2) for value in part) for part in (face.box, face.landmarks.flat))
        lines.append(Line(photo, *picture.size, status, file, box, round(face.score, 4), points))
    return lines


def _save(face: Image.Image, file: Path, kind: str) -> None:
    """Write a picture under a temporary name, then move it: a file with the final name is complete."""
    form, options = FORMATS[kind]
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    face.save(part, form, **options)
    part.replace(file)
