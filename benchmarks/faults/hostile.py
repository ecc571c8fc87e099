"""Files made on purpose: pickles that would run a command, paths that leave their folder, addresses for paths."""

from __future__ import annotations

import csv
import io
import os
import pickle
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.faults.kinds import KINDS, opened, reseal_rows
from benchmarks.faults.outcomes import Kind, fresh_copy, outcome_of, value_digest
from benchmarks.faults.tiny import PEOPLE, PICTURES
from facenet.data.align_folder import COLUMNS, TABLE, read_table
from facenet.data.pairs import read_pairs
from facenet.data.sources.kinds import scan
from facenet.data.sources.table import scan_csv
from facenet.encoders import lookup as encoders
from facenet.encoders.bundle import load_bundle
from facenet.encoders.onnx_file import seal
from facenet.errors import FacenetError
from facenet.files import read_json
from facenet.gallery.gallery import Gallery
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.old_embeddings import read_old
from facenet.types import EmbeddingSet

ADDRESSES = ("https://127.0.0.1:9/encoder", "hf://facenet/encoder", "s3://bucket/last.ckpt", "file:///etc/passwd")


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Return what an unpickler would call."""
        return os.mkdir, (self.marker,)


def _zipped(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": payload}, file)
    return file.getvalue()


def _legacy(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _array(payload: Payload) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], object), allow_pickle=True)
    return file.getvalue()


FORMS: tuple[Callable[[Payload], bytes], ...] = (
    _zipped,
    _array,
    lambda payload: pickle.dumps(payload, 0),
    _legacy,
    lambda payload: pickle.dumps(payload),
)


def pickled(place: Path, kinds: Mapping[str, Kind], count: int) -> dict[str, int]:
    """Replace files of each kind by payloads, with sums that fit, and use them.

    Those that a kind of text takes as text count as refused: nothing of them was run.
    """
    counts = {"files": count, "refused": 0, "crashes": 0, "hangs": 0, "executions": 0}
    files = []
    for name, kind in kinds.items():
        sound = place / name / "sound"
        for pattern in dict.fromkeys((kind.files, kind.sealed)):
            files += [(name, path.relative_to(sound)) for path in sorted(sound.glob(pattern)) if path.is_file()]
    for number in range(count if files else 0):
        (name, chosen), form = files[number % len(files)], FORMS[(number + number // len(files)) % len(FORMS)]
        kind, marker = kinds[name], place / f"executed{number}"
        tried = fresh_copy(place / name / "sound", place / name / "tried")
        (tried / chosen).write_bytes(form(Payload(marker)))
        if kind.reseal:
            kind.reseal(tried, chosen.as_posix())
        outcome, message = outcome_of(kind, tried, "", True)
        counts["executions"] += marker.exists()
        counts[outcome if outcome in ("crashes", "hangs") else "refused"] += 1
        if outcome in ("crashes", "hangs") or marker.exists():
            print(f"pickles: {outcome}: {name} {chosen}: {message[:200]}", flush=True)
    return counts


def traversed(place: Path, count: int) -> dict[str, int]:
    """Use files whose paths lead outside their folders, with sums that fit; none may be followed."""
    counts = {"files": count, "refused": 0, "followed": 0, "crashes": 0}
    outside = place / "outside"
    (outside / "p0").mkdir(parents=True)
    secret = outside / "secret.png"
    Image.fromarray(PICTURES[0]).save(secret)
    paths = ("../secret.png", str(secret), "p0/../../secret.png", "p0/a\0b.png")
    cases: list[tuple[Callable[..., Any], str]] = [
        *((use, path) for path in paths for use in (_embeddings, _table)),
        (_embeddings, "."),
        (_table, "p0/" + "long" * 2000),
        (_linked_table, str(secret)),
        *((_faces, path) for path in paths[:3]),
        *((use, path) for path in paths[:2] for use in (_onnx, _gallery, _removed)),
    ]
    for number in range(count):
        use, path = cases[number % len(cases)]
        folder = outside / f"case{number}"
        folder.mkdir()
        try:
            use(folder, path)
            what = "followed"
        except FacenetError as error:
            what = "crashes" if "\n" in str(error) else "refused"
        except Exception as error:  # whatever it is, it is what this campaign looks for
            print(f"traversals: {use.__name__}: {type(error).__name__}: {error}"[:200], flush=True)
            what = "crashes"
        counts[what] += 1
    return counts


def addressed() -> dict[str, int]:
    """Give addresses in place of files and folders: each must be refused without a connection."""
    counts = {"addresses": 0, "refused": 0, "crashes": 0, "connections": 0}
    uses: tuple[Callable[[str], Any], ...] = (
        encoders.load,
        load_bundle,
        read_old,
        EmbeddingSet.load,
        Gallery.open,
        scan,
        read_pairs,
        AtomicCheckpointIO().load_checkpoint,
    )
    with mock.patch.object(socket.socket, "connect", side_effect=OSError("no network here")) as connect:
        for use in uses:
            for address in ADDRESSES:
                counts["addresses"] += 1
                try:
                    use(address)
                except FacenetError as error:
                    counts["refused" if "\n" not in str(error) else "crashes"] += 1
                except Exception as error:  # whatever it is, it is what this campaign looks for
                    print(f"addresses: {address}: {type(error).__name__}: {error}"[:200], flush=True)
                    counts["crashes"] += 1
        counts["connections"] = connect.call_count
    return counts


def _embeddings(folder: Path, path: str) -> None:
    kind = KINDS["embeddings"]
    kind.make(folder)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[row, path if row == 3 else name, name.split("/")[0]] for row, name in enumerate(PEOPLE)]
        csv.writer(file, lineterminator="\n").writerows([["row", "path", "identity"], *rows])
    assert kind.reseal is not None
    kind.reseal(folder, "items.csv")
    kind.use(folder)


def _table(folder: Path, path: str) -> None:
    (folder / "p0").mkdir()
    (folder / "faces.csv").write_text(f'path,identity\n"{path}",Ada\n')
    scan_csv(folder / "faces.csv")


def _linked_table(folder: Path, path: str) -> None:
    (folder / "link.png").symlink_to(path)
    _table(folder, "link.png")


def _faces(folder: Path, path: str) -> None:
    KINDS["faces_csv"].make(folder)
    text = (folder / TABLE).read_text()
    (folder / TABLE).write_text(text.replace(f"used,{PEOPLE[2]}.jpg", f"used,{path}"))
    assert path in (folder / TABLE).read_text()
    assert text.startswith(COLUMNS[0])
    read_table(folder / TABLE)


def _onnx(folder: Path, path: str) -> None:
    """A constant's values moved into another file: field 14 of a tensor is 1, field 13 the place."""
    KINDS["onnx"].make(folder)
    entry = b"".join(_field(number, text) for number, text in ((1, b"location"), (2, path.encode())))
    tensor = b"\x08\x04\x10\x01" + _field(8, b"moved") + _field(13, entry) + b"\x70\x01"
    model = (folder / "model.part").read_bytes() + _field(7, _field(5, tensor))
    (folder / "tiny.onnx").write_bytes(seal(model, read_json(folder / "part.json")))
    KINDS["onnx"].use(folder)


def _field(number: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def _gallery(folder: Path, path: str) -> None:
    KINDS["galleries"].make(folder)
    with closing(opened(folder / "items.sqlite")) as db:
        db.execute("UPDATE items SET path = ?", (path,))
        reseal_rows(db)
    KINDS["galleries"].use(folder)


def _removed(folder: Path, path: str) -> None:
    """A checkpoint names its predecessor, which the next one replaces."""
    victim = folder.parent / "secret.png"
    reader, before = AtomicCheckpointIO(), value_digest(victim.read_bytes())
    reader.save_checkpoint({"epoch": 0}, folder / "last.ckpt")
    reader.remove_checkpoint(folder / path)
    if victim.exists() and value_digest(victim.read_bytes()) == before:
        raise FacenetError("left alone")
