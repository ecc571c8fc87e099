"""A face set read once from end to end: what it holds, what of it can not be used, and the index that training opens.

The work is done in blocks of images. A block that is done is kept until the index stands, so that a scan that was
stopped goes on. Letters: N images, P identities.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.data.index import Columns, Index, IndexedImages, columns_of, digest_of_image, set_folder, states
from facenet.data.pictures import decode, why
from facenet.data.records import NothingUsable, Skipped, renumber
from facenet.data.sources.duplicates import left_out
from facenet.data.sources.folder import scan_lfw
from facenet.data.sources.forms import FORMS, form_of
from facenet.data.sources.kinds import list_packed
from facenet.data.sources.listing import Listing
from facenet.errors import DataError
from facenet.files import atomic_write, digest_of, read_array, read_json, read_sealed, write_json, write_sealed
from facenet.interrupts import thread_pool
from facenet.types import Progress

ROWS = 8192  # images of a block
FOUND = np.dtype([("digest", "<u8"), ("length", "<i8"), ("width", "<u4"), ("height", "<u4"), ("usable", "?")])
BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # images a person, least of each bin


@dataclass(frozen=True)
class Scan:
    """A finished scan: the index, and what was found by image."""

    index: Index
    found: np.ndarray  # (N,) FOUND, of all images that were listed
    duplicates: int


def list_set(kind: str, root: str, progress: Progress | None = None) -> Index:
    """Return all images of a set that its structure names, in canonical order.

    Raises:
        DataError: there is no image, or no such set.
    """
    form = kind if kind in FORMS else form_of(root)
    if form is not None:
        return list_packed(form, root, progress)
    records = scan_lfw(root, progress)
    nothing = np.zeros(len(records), np.int64)
    people = tuple(name for name in dict.fromkeys(path.partition("/")[0] for path in records.paths))
    listing = Listing(records.paths, records.identities, people, nothing.astype(np.uint16), nothing, nothing)
    return Index("folder", set_folder(root), columns_of(listing), records.skipped)


def scan_set(
    kind: str, root: str, place: Path, *, decoded: bool = True, listing: Progress | None = None,
    progress: Progress | None = None,
) -> Scan:  # fmt: skip
    """Read every image of a set and write its index to `place`.

    Images that can not be read, and files that are there twice, are left out and listed in the index. Of the same bytes
    under one identity the first is kept; under two identities none is, since one of the names is wrong.

    Args:
        kind: ``folder``, or the name of a form; what kind a root of ``folder`` is is told from the path.
        root: The set.
        place: Folder of the index.
        decoded: Whether pixels are decoded; else an image is only read and hashed.
        listing: Called with (done, total) while the structure is read.
        progress: Called with (done, total) images.

    Raises:
        DataError: no such set, no usable image in it, or `place` can not be written.
    """
    listed = list_set(kind, root, listing)
    columns = listed.columns
    images = IndexedImages(listed.folder, columns, None if listed.form == "folder" else FORMS[listed.form].open_shard)
    parts = place / "parts"
    begin(parts, listed, decoded=decoded)
    found = np.zeros(len(columns.labels), FOUND)
    bad: list[tuple[int, str]] = []
    with thread_pool() as pool:
        for start in range(0, len(found), ROWS):
            rows = range(start, min(start + ROWS, len(found)))
            part = read_part(parts, start, len(rows))
            if part is None:
                part = look_at(images, rows, decoded=decoded, pool=pool)
                write_part(parts, start, *part)
            found[rows.start : rows.stop], reasons = part
            bad += reasons
            if progress:
                progress(rows.stop, len(found))
    doubles = duplicates(columns, found)
    index = assemble(listed, found, [*bad, *doubles])
    index.save(place)
    shutil.rmtree(parts)
    return Scan(index, found, len(doubles))


def begin(parts: Path, listed: Index, *, decoded: bool) -> None:
    """Keep the parts of the same scan, and delete those of another."""
    columns = listed.columns
    plan = {
        "form": listed.form,
        "images": len(columns.labels),
        "decoded": decoded,
        "states": digest_of({"states": states(listed.folder, columns.shards)}),
        "last": columns.paths[len(columns.paths) - 1],
    }
    try:
        if read_sealed(parts / "plan.json") == plan:
            return
    except DataError:
        pass
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    write_sealed(parts / "plan.json", plan)


def look_at(
    images: IndexedImages, rows: range, *, decoded: bool, pool: Any
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return what is found of the given images (n,) FOUND, and (row, reason) of those that can not be used."""

    def one(row: int) -> tuple[Any, ...]:
        data = None
        try:
            data = images.read(row)
            width, height = decode(data, lambda picture: picture.convert("RGB").size if decoded else picture.size)
        except DataError as error:
            size = 0 if data is None else len(data)
            return 0, size, 0, 0, False, why(error, data)
        return digest_of_image(data), len(data), width, height, True, ""

    told = list(pool.map(one, rows))
    found = np.array([one[:5] for one in told], FOUND)
    return found, [(row, one[5]) for row, one in zip(rows, told, strict=True) if one[5]]


def write_part(parts: Path, start: int, found: np.ndarray, reasons: Sequence[tuple[int, str]]) -> None:
    """Keep a block that is done."""
    write_json(parts / f"{start:012d}.json", {"reasons": reasons})
    with atomic_write(parts / f"{start:012d}.npy") as file:
        np.save(file, np.frombuffer(found.tobytes(), np.uint8))


def read_part(parts: Path, start: int, count: int) -> tuple[np.ndarray, list[tuple[int, str]]] | None:
    """Return a block that was done before; None if it was not, or is damaged."""
    try:
        found = read_array(parts / f"{start:012d}.npy").view(FOUND)
        reasons = read_json(parts / f"{start:012d}.json")["reasons"]
        return (found, [(row, why_not) for row, why_not in reasons]) if len(found) == count else None
    except (DataError, KeyError, ValueError, TypeError):
        return None


def duplicates(columns: Columns, found: np.ndarray) -> list[tuple[int, str]]:
    """Return (row, reason) of the images whose bytes are there twice and that are left out."""
    rows = np.flatnonzero(found["usable"])
    order = rows[np.lexsort((rows, found["length"][rows], found["digest"][rows]))]
    marks = found[["digest", "length"]][order]
    bounds = np.flatnonzero(marks[1:] != marks[:-1]) + 1
    starts, ends = np.concatenate([[0], bounds]), np.concatenate([bounds, [len(order)]])
    bad: list[tuple[int, str]] = []
    for place in np.flatnonzero(ends - starts > 1).tolist():
        bad += left_out(order[starts[place] : ends[place]].tolist(), columns.labels, columns.paths)
    return bad


def assemble(listed: Index, found: np.ndarray, bad: Sequence[tuple[int, str]]) -> Index:
    """Return the index of the listed images less the given (row, reason).

    Raises:
        NothingUsable: there is none.
    """
    columns = listed.columns
    kept = np.ones(len(found), bool)
    kept[[row for row, _ in bad]] = False
    rows = np.flatnonzero(kept)
    left = (*listed.skipped, *(Skipped(columns.paths[row], reason) for row, reason in sorted(bad)))
    if not len(rows):
        raise NothingUsable(f"{listed.folder}: no image could be read", left)
    labels = columns.labels[rows]
    places = renumber(labels, len(columns.names))
    where = columns.shard[rows], columns.offset[rows], columns.length[rows], found["digest"][rows]
    parts = columns.paths.take(rows), columns.names.take(places), labels, columns.shards
    return Index(listed.form, listed.folder, Columns(*parts, *where), left)


def summary(scan: Scan) -> dict[str, Any]:
    """Return what a set holds, as plain values for ``metrics.json``."""
    columns, found = scan.index.columns, scan.found
    counts = np.bincount(columns.labels, minlength=len(columns.names))
    bins = np.digitize(counts, BINS) - 1
    usable = found[found["usable"]]
    sides = {
        name: [int(value) for value in np.quantile(usable[name], (0, 0.5, 1), method="nearest")]
        for name in ("width", "height")
    }
    unreadable = int((~found["usable"]).sum())
    return {
        "form": scan.index.form,
        "images": len(columns.labels),
        "identities": len(columns.names),
        "unreadable": unreadable,
        "share_unreadable": unreadable / max(1, len(found)),
        "duplicates": scan.duplicates,
        "skipped": len(scan.index.skipped),
        "bytes": int(usable["length"].sum()),
        "sides": sides,
        "images_a_person": {str(least): int((bins == place).sum()) for place, least in enumerate(BINS)},
    }
