"""Face sets in the forms in which large ones lie on disk, written from the descriptions of the forms."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from facenet.data.sources.listing import Form, Listing

MAGIC = struct.pack("<I", 0xCED7230A)
NARROW, WIDE, PACKED = "<IfQQ", "<I4xdQQ", "<IdQQ"  # headers of records


class Face(NamedTuple):
    """A picture of a person; `identity` is a number where a form knows numbers only."""

    name: str  # without a suffix
    identity: str
    picture: bytes


def jpeg(seed: int, side: int = 32) -> bytes:
    """A small JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(file, "jpeg")
    return file.getvalue()


def commented(picture: bytes, comment: bytes) -> bytes:
    """A JPEG with a comment right at its start."""
    return picture[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + picture[2:]


def faces(people: int = 4, each: int = 3) -> list[Face]:
    """Some people, numbered from 0."""
    return [
        Face(f"{person}_{number}", str(person), jpeg(person * 100 + number))
        for person in range(people)
        for number in range(each)
    ]


def record(data: bytes) -> bytes:
    """Pack the data of one record: split wherever they hold the magic number at a multiple of 4."""
    cuts = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == MAGIC]
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(data)]
    packed = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        part = data[start:end]
        packed += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return packed


def headed(picture: bytes, labels: Sequence[float], key: int, layout: str = NARROW, *, extra: str = "") -> bytes:
    """Put a header before a picture; several labels, or none, follow it."""
    if len(labels) == 1:
        return struct.pack(layout, 0, labels[0], key, 0) + picture
    kind = extra or ("<f" if layout == NARROW else "<d")
    return struct.pack(layout, len(labels), 0, key, 0) + b"".join(struct.pack(kind, one) for one in labels) + picture


def write_records(path: Path, records: Sequence[tuple[int, bytes]], *, index: bool = True) -> None:
    """Write (key, data) as a .rec file, and the .idx beside it."""
    content, lines = bytearray(), []
    for key, data in records:
        lines.append(f"{key}\t{len(content)}\n")
        content += record(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if index:
        path.with_suffix(".idx").write_text("".join(lines))


def write_recordio(
    path: Path,
    people: Sequence[Face],
    *,
    index: bool = True,
    header: bool = True,
    labels: int = 1,
    layout: str = NARROW,
    extra: str = "",
) -> None:
    """Write faces as RecordIO, as InsightFace does (`header`: a first record and one for each person) or without."""
    first = 1 if header else 0
    rows = list(enumerate(people, first))
    more = [[float(face.identity), *(0.5 for _ in range(labels - 1))] for face in people]
    records = [
        (key, headed(face.picture, values, key, layout, extra=extra))
        for (key, face), values in zip(rows, more, strict=True)
    ]
    if header:
        keys: dict[str, list[int]] = {}
        for key, face in rows:
            keys.setdefault(face.identity, []).append(key)
        end = len(people) + 1
        ranges = [(values[0], values[-1] + 1) for values in keys.values()]
        records.insert(0, (0, headed(b"", (end, end + len(ranges)), 0, layout, extra=extra)))
        records += [(key, headed(b"", values, key, layout, extra=extra)) for key, values in enumerate(ranges, end)]
    write_records(path, records, index=index)


def write_tar(
    path: Path, people: Sequence[Face], *, labelled: bool = True, top: str = "", form: int = tarfile.GNU_FORMAT
) -> None:
    """Write faces as a tar of <key>.jpg and <key>.cls, or of <identity>/<name>.jpg below the folder `top`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for face in people:
            if labelled:
                add_member(tar, f"{face.name}.jpg", face.picture)
                add_member(tar, f"{face.name}.cls", face.identity.encode())
                add_member(tar, f"{face.name}.json", b"{}")
            else:
                add_member(tar, f"{top}{face.identity}/{face.name}.jpg", face.picture)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_zip(path: Path, people: Sequence[Face], *, stored: bool = True, top: str = "") -> None:
    """Write faces as a zip of <identity>/<name>.jpg below the folder `top`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for face in people:
            archive.writestr(f"{top}{face.identity}/{face.name}.jpg", face.picture)


def write_parquet(
    path: Path, people: Sequence[Face], *, nested: bool = True, text: bool = False, rows: int = 4
) -> None:
    """Write faces as parquet: image {bytes, path} and label as Hugging Face does, or image and identity alone."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": f.picture, "path": f"{f.name}.jpg"} if nested else f.picture for f in people]
    who = {"identity": [f.identity for f in people]} if text else {"label": [int(f.identity) for f in people]}
    pyarrow.parquet.write_table(pyarrow.table({"image": images, **who}), path, row_group_size=rows)


def write_folder(root: Path, people: Sequence[Face]) -> None:
    """Write faces as files <identity>/<name>.jpg."""
    for face in people:
        file = root / face.identity / f"{face.name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(face.picture)


def pictures_of(form: Form, root: Path) -> tuple[Listing, list[bytes]]:
    """List a set, and read all of its images."""
    listing = form.list_images(root, None)
    folder = root if root.is_dir() else root.parent
    shards = [form.open_shard(folder / shard) for shard in listing.shards]
    rows = zip(listing.shard.tolist(), listing.offset.tolist(), listing.length.tolist(), strict=True)
    found = [shards[shard].read(offset, length) for shard, offset, length in rows]
    for shard in shards:
        shard.close()
    return listing, found
