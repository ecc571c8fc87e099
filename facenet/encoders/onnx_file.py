"""An encoder as one ONNX file: the record inside the file, sealed by a SHA-256 over all of it, and reading it back.

Reading and sealing need neither torch nor the package `onnx`.

An ONNX file is a protobuf message, whose field 14 (``metadata_props``) holds pairs of texts, and protobuf lets a field
be appended. The pair :data:`KEY` is JSON that begins with ``{"sha256": "<64 hex digits>"``: the SHA-256 of the file
with these digits replaced by zeros. So a byte changed anywhere is noticed before a runtime sees the file. Since anybody
can seal a file, one whose weights lie in other files, or which has loops or functions, is refused too: ours never have.
What is left may still take long. So it runs in a process of its own, see :mod:`facenet.encoders.onnx_apart`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_net import OnnxNet
from facenet.encoders.record import SCHEMA, notes_of
from facenet.errors import DataError, one_line
from facenet.files import read_bytes
from facenet.foreign import install_command

KEY = "facenet"
METADATA = 14  # field of onnx.ModelProto
ZEROS = b"0" * 64
START = b'{"sha256": "'
# fields of onnx.proto that lead to tensors, each with the fields inside it: ModelProto, GraphProto, NodeProto, ...
TENSOR = "tensor"
SPARSE: dict[int, Any] = {1: TENSOR, 2: TENSOR}
NODE: dict[int, Any] = {5: {5: TENSOR, 10: TENSOR, 22: SPARSE, 23: SPARSE, 6: "graph", 11: "graph"}}
MODEL: dict[int, Any] = {7: {1: NODE, 5: TENSOR, 15: SPARSE}, 25: "functions"}
REFUSED = {"graph": "it has loops or branches", "functions": "it has functions"}
PARTS = 200_000  # fields that a file may have: those of a net of a hundred layers are some thousands
WIDEST = 65536  # numbers of a vector, as model.embedding_dim
LONGEST_RECORD = 1 << 24  # bytes


def seal(model: bytes, record: Mapping[str, Any]) -> bytes:
    """Append the record to a serialised model and put the digest of the whole into it; NaN raises ValueError."""
    text = json.dumps({"sha256": ZEROS.decode(), **record}, allow_nan=False).encode()
    entry = _text(1, KEY.encode()) + _text(2, text)
    head = model + _text(METADATA, entry)[: -len(text)]
    digest = hashlib.sha256(head)
    digest.update(text)
    return head + START + digest.hexdigest().encode() + text[len(START) + len(ZEROS) :]


def unseal(data: bytes, name: str | Path) -> dict[str, Any]:
    """Return the record of a file that is as it was written; `name` is what to call it.

    Raises:
        DataError: damaged, or an ONNX file of others, which has no record, or weights in other files, or loops.
    """
    try:
        parts = iter(range(PARTS))
        foreign = _foreign(memoryview(data), 0, len(data), MODEL, parts)
        found = [entry for entry in _metadata(memoryview(data), parts) if entry[0] == KEY.encode()]
    except ValueError as error:
        raise DataError(f"{name}: damaged, or not an ONNX file ({error}); export or copy it again") from None
    if not found:
        raise DataError(
            f"{name}: an ONNX file without a record of model and preprocessing; use one that facenet export wrote"
        )
    _, start, end = found[-1]
    first, last = start + len(START), start + len(START) + len(ZEROS)
    digest = hashlib.sha256(memoryview(data)[:first])
    digest.update(ZEROS)
    digest.update(memoryview(data)[last:])
    whole = data[start:first] == START and data[first:last] == digest.hexdigest().encode()
    if not whole or len(found) > 1:
        raise DataError(f"{name}: damaged (its SHA-256 is not the one it was written with); export or copy it again")
    if foreign:
        raise DataError(f"{name}: {foreign}, which no file of ours has; use one that facenet export wrote")
    if end - start > LONGEST_RECORD:
        raise DataError(f"{name}: its record takes {end - start} bytes, {LONGEST_RECORD} are allowed; export it again")
    try:
        record: dict[str, Any] = json.loads(data[start:end])  # an object, by its start
        json.dumps(record, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: its record is not JSON ({one_line(error)}); export it again") from error
    record.pop("sha256")
    return record


def load_onnx(path: str | Path, *, threads: int | None = None) -> Encoder:
    """Read an exported file as an encoder that runs in onnxruntime; `threads` None is one a core.

    Raises:
        DataError: missing, damaged or foreign, or onnxruntime is not installed.
    """
    try:
        data = read_bytes(path)
    except DataError as error:
        raise DataError(f"{error}; give a file that facenet export wrote") from None
    found = unseal(data, path)
    need("onnxruntime")
    if found.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {found.get('schema')!r}, this version reads {SCHEMA}; export it again")
    try:
        options, preprocess = dict(found["model"]["options"]), Preprocess.from_dict(found["preprocessing"])
        if not 1 <= int(options["embedding_dim"]) <= WIDEST:
            raise ValueError(f"embedding_dim {options['embedding_dim']}, at most {WIDEST} are allowed")
        shape, mirrors = (*preprocess.size, int(options["embedding_dim"])), bool(found["graph"]["mirrors"])
        net = OnnxNet(data, threads=threads, mirrors=mirrors, shape=shape, apart=True)
        name, fingerprint = str(found["model"]["name"]), str(found["fingerprint"])
        return Encoder(net, name, options, preprocess, *notes_of(found), fingerprint)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: its record is not one of an encoder ({one_line(error)}); export it again") from error


def need(*packages: str, extra: str = "export") -> None:
    """Raise DataError if a package, which an extra of this project installs, is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise DataError(f"{package} is not installed; run: {install_command(extra)}")


def _text(field: int, content: bytes) -> bytes:
    """Encode a field of bytes: tag, length, content."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _metadata(data: memoryview, parts: Iterator[int]) -> Iterator[tuple[bytes, int, int]]:
    """Yield (key, start, end of the value) of each pair of texts; what is not protobuf raises ValueError."""
    for field, start, end in _fields(data, 0, len(data), parts):
        if field == METADATA:
            pair = {number: (first, last) for number, first, last in _fields(data, start, end, parts)}
            if 1 in pair and 2 in pair:
                yield bytes(data[slice(*pair[1])]), *pair[2]


def _foreign(data: memoryview, at: int, end: int, inside: Any, parts: Iterator[int]) -> str:
    """Name what lies outside the file or is no plain graph, "" for nothing; what is not protobuf raises ValueError."""
    for field, start, last in _fields(data, at, end, parts):
        if inside == TENSOR:
            if field == 13 or (field == 14 and _read_varint(data, start, last)[0]):  # external_data, data_location
                return "its weights lie in another file"
        elif field in inside:
            if isinstance(inside[field], str) and inside[field] in REFUSED:
                return REFUSED[inside[field]]
            if found := _foreign(data, start, last, inside[field], parts):
                return found
    return ""


def _fields(data: memoryview, at: int, end: int, parts: Iterator[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of the fields that lie in data[at:end], as long as `parts` has numbers left."""
    while at < end:
        if next(parts, None) is None:
            raise ValueError(f"more than {PARTS} parts")
        first, (tag, at) = at, _read_varint(data, at, end)
        if tag >> 32 or (data[at - 1] == 0 and at - first > 1):  # readers of protobuf cut it, and see another field
            raise ValueError("a tag of too many bytes")
        kind = tag & 7
        if kind == 0:
            start, (_, at) = at, _read_varint(data, at, end)
        elif kind in (1, 5):
            start, at = at, at + (8 if kind == 1 else 4)
        elif kind == 2:
            length, start = _read_varint(data, at, end)
            at = start + length
        else:
            raise ValueError("not protobuf")
        if at > end:
            raise ValueError("cut off")
        yield tag >> 3, start, at


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("cut off")
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("not protobuf")
