"""Parquet files of images, as copies of face sets on a hub have them; needs the package pyarrow."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from facenet.data.pictures import Unreadable
from facenet.data.records import NothingUsable
from facenet.data.sources.folder import same_name
from facenet.data.sources.listing import Form, Listing
from facenet.data.sources.shards import MOST_BYTES, is_packed, relative, shards_of
from facenet.errors import ConfigError, DataError, one_line
from facenet.foreign import install_command
from facenet.types import Progress

SUFFIX = (".parquet",)
IMAGE, LABEL, IDENTITY = "image", "label", "identity"  # names of columns
GROUPS = 2  # row groups that a shard keeps decoded
MOST_GROUP = 1 << 28  # bytes of a row group: 256 MB
ROW_BITS = 32  # of an offset; the bits above them are the row group's number


def is_parquet(path: Path) -> bool:
    """Return whether a path is a .parquet file, or a folder of them and of no folders."""
    return is_packed(path, SUFFIX)


def list_images(root: Path, progress: Progress | None = None) -> Listing:
    """List the images of a parquet file, or of the parquet files of a folder; `progress` counts files.

    Columns: ``image``, bytes or a struct with the field ``bytes``; ``label`` (integers) or ``identity`` (text or
    integers). Names are row numbers, counted through all files. An offset holds the row group and the row in it.
    Lengths are 0: they are known once an image is read.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: a damaged file, a column that is missing or of another type, a row group too large, or no row.
    """
    shards = shards_of(root, SUFFIX)
    if not shards:
        raise DataError(f"{root}: no .parquet file in it; give a .parquet file or a folder of them")
    offsets: list[np.ndarray] = []
    identities: list[Any] = []
    for number, path in enumerate(shards):
        places, who = _list_file(path)
        offsets.append(places)
        identities.append(who)
        if progress:
            progress(number + 1, len(shards))
    total = sum(len(places) for places in offsets)
    if not total:
        raise NothingUsable(f"{root}: no row in it", ())
    texts = [isinstance(who, list) for who in identities if len(who)]
    if len(set(texts)) > 1:
        raise DataError(f"{root}: some of its files have labels, others names; give them apart")
    return Listing(
        np.arange(total, dtype=np.int64),
        [name for who in identities for name in who] if texts[0] else np.concatenate(identities),
        relative(shards, root),
        np.repeat(np.arange(len(shards), dtype=np.uint16), [len(places) for places in offsets]),
        np.concatenate(offsets),
        np.zeros(total, np.int64),
    )


class ParquetShard:
    """A parquet file. An image is read with its whole row group, of which the last two stay decoded.

    A row group of 1,000 images of 10 KB takes about 10 ms. Random access therefore costs about that for each image,
    and two row groups of memory. For training, write small row groups, or pack the set in another form.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises ConfigError or DataError."""
        self._path, self._file = path, _opened(path)
        self._column = _image_column(path, self._file)
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Return the image of a row group and row; `length` is not used. Raises Unreadable."""
        group, row = offset >> ROW_BITS, offset & ((1 << ROW_BITS) - 1)
        where = f"{self._path}: row group {group}, row {row}"
        with self._lock:
            images = self._decoded(group, where)
        try:
            image = images[row].as_py()
        except (IndexError, ValueError) as error:
            raise Unreadable(f"{where}: no such row") from error
        except Exception as error:  # pyarrow has many kinds of errors
            raise Unreadable(f"{where}: damaged ({one_line(error)})") from error
        if not isinstance(image, bytes) or not image:
            raise Unreadable(f"{where}: no image in it")
        if len(image) > MOST_BYTES:
            raise Unreadable(f"{where}: an image of more than {MOST_BYTES >> 20} MB")
        return image

    def _decoded(self, group: int, where: str) -> Any:
        """Return the column of images of a row group."""
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        if self._file is None or not 0 <= group < self._file.num_row_groups:
            raise Unreadable(f"{where}: no such row group, or a closed file")
        try:
            images = self._file.read_row_group(group, columns=[self._column], use_threads=False).column(0)
            images.validate(full=True)
            if len(self._column.split(".")) > 1:
                images = _field(images)
        except Exception as error:  # pyarrow has many kinds of errors
            raise Unreadable(f"{where}: damaged ({one_line(error)})") from error
        self._groups[group] = images
        while len(self._groups) > GROUPS:
            self._groups.popitem(last=False)
        return images

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None
            self._groups.clear()


FORM = Form(list_images, ParquetShard)


def _opened(path: Path) -> Any:
    """Open a parquet file."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading parquet needs pyarrow: {install_command('parquet')}") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return parquet.ParquetFile(path, page_checksum_verification=True)
    except Exception as error:  # pyarrow has many kinds of errors
        raise DataError(f"{path}: not readable as parquet ({one_line(error)}); download it again") from error


def _image_column(path: Path, file: Any) -> str:
    """Return the name of the column of image bytes, with the field of a struct after a dot."""
    import pyarrow

    schema = file.schema_arrow
    kind = schema.field(IMAGE).type if IMAGE in schema.names else None
    binary = (pyarrow.types.is_binary, pyarrow.types.is_large_binary)
    if kind is not None and any(one(kind) for one in binary):
        return IMAGE
    fields = [kind.field(place) for place in range(kind.num_fields)] if kind and pyarrow.types.is_struct(kind) else []
    if any(field.name == "bytes" and any(one(field.type) for one in binary) for field in fields):
        return f"{IMAGE}.bytes"
    raise DataError(
        f"{path}: no column {IMAGE!r} of bytes, or of a struct with bytes; its columns: {', '.join(schema.names)[:120]}"
    )


def _field(images: Any) -> Any:
    """Return the bytes of a column of structs; where a struct is missing, so are they."""
    import pyarrow
    import pyarrow.compute

    return pyarrow.compute.struct_field(images, "bytes")


def _list_file(path: Path) -> tuple[np.ndarray, np.ndarray | list[str]]:
    """Return the offset of each row of a file, and who is on it."""
    file = _opened(path)
    try:
        _image_column(path, file)
        name = next((name for name in (LABEL, IDENTITY) if name in file.schema_arrow.names), None)
        if name is None:
            raise DataError(f"{path}: no column {LABEL!r} or {IDENTITY!r}; add one")
        rows = _rows(path, file)
        values = file.read(columns=[name], use_threads=False).column(0)
        values.validate(full=True)
        who = _identities(path, name, values)
    except DataError:
        raise
    except Exception as error:  # pyarrow has many kinds of errors
        raise DataError(f"{path}: not readable as parquet ({one_line(error)}); download it again") from error
    finally:
        file.close()
    if sum(rows) != len(who):
        raise DataError(f"{path}: {len(who)} values in {name!r} for {sum(rows)} rows; download it again")
    groups = [(group << ROW_BITS) + np.arange(count, dtype=np.int64) for group, count in enumerate(rows)]
    return np.concatenate([np.empty(0, np.int64), *groups]), who


def _rows(path: Path, file: Any) -> list[int]:
    """Return how many rows each row group has.

    The metadata of columns are not asked for: pyarrow (26) ends the process where they are damaged.
    """
    size, counts = path.stat().st_size, []
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if not 0 <= group.total_byte_size <= MOST_GROUP:
            held = f"row group {number} holds {group.total_byte_size >> 20} MB"
            raise DataError(f"{path}: {held}, more than {MOST_GROUP >> 20}; write it with smaller row groups")
        if not 0 <= group.num_rows <= size:  # an image takes a byte at least
            raise DataError(f"{path}: {group.num_rows} rows in row group {number}; download it again")
        counts.append(group.num_rows)
    return counts


def _identities(path: Path, name: str, values: Any) -> np.ndarray | list[str]:
    """Return labels (N,) int64, -1 where there is none, or names."""
    import pyarrow

    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pyarrow.types.is_integer(values.type):
        labels = np.asarray(values.cast(pyarrow.int64()).fill_null(-1).to_numpy(), np.int64)
        if (labels < -1).any():
            raise DataError(f"{path}: a label of {labels.min()} in {name!r}; labels are at least 0, or -1 for unknown")
        return labels
    if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
        known: dict[str, str] = {}
        return [known.setdefault(text, same_name(text)) for text in values.fill_null("").to_pylist()]
    raise DataError(f"{path}: the column {name!r} is of {values.type}; expected integers or text")
