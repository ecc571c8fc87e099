"""Verification sets of one file (lfw.bin, cfp_fp.bin, agedb_30.bin, ...) as folders of images and pairs.

A ``.bin`` set is a pickle of (list of 2P encoded images, list of P truth values): images 2i and 2i + 1 are pair i. It
names nobody. Copies of one set differ and give other scores, so the folder keeps the SHA-256 of the file.
The folder holds ``images/NUMBER.SUFFIX``, the bytes as they are, each image once under the first of its numbers;
``pairs.csv``; and ``source.json``, which is sealed and tells if either was changed.
Source: ``load_bin`` and ``calculate_roc`` of InsightFace's arcface_torch (form, and ten folds in the file's order).
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pairs import PARTS, write_pairs
from facenet.data.pictures import decode
from facenet.data.sources.closed_pickle import Array, load
from facenet.data.sources.folder import write_alignment
from facenet.errors import DataError, one_line
from facenet.faces.alignment import ARCFACE_SIDE, Alignment
from facenet.files import default_cache, explain_disk_errors, read_bytes, read_sealed, sha256_file, write_sealed
from facenet.types import Pairs, Progress

SUFFIX = ".bin"
MOST_BYTES = 1 << 28  # of a file: three times the largest of the common sets
SOURCE, TABLE, IMAGES = "source.json", "pairs.csv", "images"  # in the folder
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "PPM": ".ppm"}
REMEDY = "give a .bin set as lfw.bin, cfp_fp.bin or agedb_30.bin are"


class BinSet(NamedTuple):
    """What a ``.bin`` file holds."""

    images: list[bytes]  # 2P encoded images; one that occurs in several pairs may be one object
    same: np.ndarray  # (P,) bool
    sha256: str  # of the file


class Source(NamedTuple):
    """Which file a folder of pairs was made of."""

    file: str  # its name
    sha256: str


def read_bin(path: str | Path) -> BinSet:
    """Read a ``.bin`` set without running anything, see :mod:`facenet.data.sources.closed_pickle`; decodes no image.

    Raises:
        DataError: missing, larger than 2^28 bytes, damaged, or not (2P images, P truth values) with P of at least 10.
    """
    content = read_bytes(path, most=MOST_BYTES)
    try:
        images, same = _set_of(load(content))
    except ValueError as error:
        raise DataError(f"{path}: not a set of pairs ({one_line(error)}); {REMEDY}") from error
    return BinSet(images, same, hashlib.sha256(content).hexdigest())


def convert_bin(path: str | Path, out: str | Path, *, progress: Progress | None = None) -> Path:
    """Write a ``.bin`` set as a folder of images and pairs; returns the folder.

    Folds are the ten parts of the file in its order, as others score these sets. If all images are 112x112, they are
    marked as faces of the ArcFace template, which the common sets are. The folder appears when it is complete. One that
    was made of the same file is left as it is. `progress` is called with (done, total) images.

    Raises:
        DataError: as :func:`read_bin`; an image that is none; or `out` holds anything else.
    """
    found, out = read_bin(path), Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        before = source_of(out / TABLE)
        if before is None or before.sha256 != found.sha256:
            raise DataError(f"{out}: it holds other files; give a folder that is empty or does not exist")
        return out
    with explain_disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            _write(found, Path(path), made, progress)
            made.chmod(0o755)  # mkdtemp makes private folders
            with contextlib.suppress(FileNotFoundError):
                out.rmdir()
            made.rename(out)
        except OSError:
            if source_of(out / TABLE) is None:  # else another process has just written it
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return out


def unpacked(path: str | Path, cache_dir: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """Return the folder of a ``.bin`` set below the cache folder, written at the first call.

    Raises:
        DataError: as :func:`convert_bin`, or the cached folder was changed.
    """
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: can not be read ({one_line(error)}); {REMEDY}") from error
    folder = Path(cache_dir or default_cache()) / "pairs" / digest
    return folder if source_of(folder / TABLE) else convert_bin(path, folder, progress=progress)


def source_of(pairs: str | Path) -> Source | None:
    """Return which ``.bin`` file a table of pairs and the images beside it were made of; None for another table.

    Raises:
        DataError: the table or the images are not those that were written.
    """
    folder = Path(pairs).parent
    if Path(pairs).name != TABLE or not (folder / SOURCE).is_file():
        return None
    kept = read_sealed(folder / SOURCE)
    with contextlib.suppress(OSError):
        if kept.get("content") == _digest(folder):
            return Source(str(kept.get("file")), str(kept.get("sha256")))
    raise DataError(
        f"{folder}: its images or pairs are not those that {SOURCE} tells of; delete this folder, and give"
        f" {kept.get('file')} again"
    )


def _set_of(value: Any) -> tuple[list[bytes], np.ndarray]:
    """Return images and labels of what a pickle built; raises ValueError."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("expected a list of images and a list of truth values")
    images = [_image(one) for one in value[0]] if isinstance(value[0], tuple | list) else []
    labels: Any = value[1]
    if isinstance(labels, Array) and len(labels.shape) == 1:
        labels = list(labels.data)
    if not isinstance(labels, tuple | list) or any(not isinstance(one, int) or one not in (0, 1) for one in labels):
        raise ValueError("expected a list of truth values")
    if len(images) != 2 * len(labels) or len(labels) < PARTS:
        raise ValueError(f"{len(images)} images for {len(labels)} pairs, expected two for each of {PARTS} or more")
    return images, np.array(labels, bool)


def _image(value: Any) -> bytes:
    """Return the bytes of an encoded image, also of one that is an array (N,) or (N, 1) of bytes."""
    if isinstance(value, Array) and value.kind == "u1" and max(value.shape, default=0) == len(value.data):
        return value.data
    if not isinstance(value, bytes):
        raise ValueError("an image that is not encoded (JPEG, PNG, ...)")
    return value


def _write(found: BinSet, path: Path, folder: Path, progress: Progress | None) -> None:
    """Write a set into an empty folder."""
    (folder / IMAGES).mkdir()
    keys: dict[bytes, str] = {}
    aligned = True
    for number, image in enumerate(found.images):
        if image not in keys:
            try:
                kind, size = decode(image, lambda picture: (picture.format, picture.size))
            except DataError as error:
                raise DataError(f"{path}: image {number} of {len(found.images)}: {error}; {REMEDY}") from error
            keys[image] = f"{number:06d}"
            aligned = aligned and size == (ARCFACE_SIDE, ARCFACE_SIDE)
            (folder / IMAGES / f"{number:06d}{SUFFIXES[str(kind)]}").write_bytes(image)
        if progress:
            progress(number + 1, len(found.images))
    if aligned:
        write_alignment(folder / IMAGES, Alignment(margin=1.0, size=ARCFACE_SIDE))
    names = [keys[image] for image in found.images]
    parts = [len(part) for part in np.array_split(found.same, PARTS)]
    fold = np.repeat(np.arange(PARTS, dtype=np.int64), parts)
    write_pairs(folder / TABLE, Pairs(tuple(names[::2]), tuple(names[1::2]), found.same, fold))
    write_sealed(folder / SOURCE, {"file": path.name, "sha256": found.sha256, "content": _digest(folder)})


def _digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of the pairs and images of a folder; raises OSError."""
    digest = hashlib.sha256(f"{TABLE} {sha256_file(folder / TABLE)}\n".encode())
    for file in sorted((folder / IMAGES).iterdir()):
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()
