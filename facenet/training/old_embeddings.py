"""Embeddings of the training images by the old encoder: computed once, without augmentation, and kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.encoders import lookup as encoders
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.types import EmbeddingSet, Progress

ENOUGH = 4000  # people: with so many a small net is known to reach a large one's gallery, see docs/results/upgrading.md


def expectation(people: int, faces: int) -> list[str]:
    """Return a line on what harmonic training reached from as few people; no line for ENOUGH people or more."""
    if people >= ENOUGH:
        return []
    return [
        f"harmonic training: {people} people and {faces} faces are few. A small net in the gallery of sface reached a"
        " new-old accuracy of 0.589 from 121 people and 2,548 photographs (sface alone 0.976), and 0.926 from 4,038"
        " people and 9,525 photographs (sface alone 0.992); the gate of facenet compat tells what yours reaches"
    ]


def check_old(old: str | Path | None, faces: Records, dim: int) -> None:
    """Refuse, before any image is decoded, an old encoder of another width or one that can not read aligned `faces`.

    `old` is what ``harmonic.old`` names: nothing is checked of None, or of an embeddings folder.

    Raises:
        ConfigError, DataError: as :func:`read_old` and :meth:`facenet.data.preprocess.Preprocess.of`.
    """
    record = None if old is None or (Path(old) / "meta.json").is_file() else encoders.read_record(old)
    width, values = (record or {}).get("embedding_dim"), (record or {}).get("preprocessing")
    if isinstance(width, int) and isinstance(values, dict):  # else read_old says what is damaged
        _check_width(width, dim)
        Preprocess.from_dict(values).of(faces.alignment, f"harmonic.old={old}: {faces.root}")


def read_old(old: str | Path, *, dim: int | None = None, device: str = "cpu") -> EmbeddingSet | Encoder:
    """Read what ``harmonic.old`` names: an embeddings folder, or an encoder (folder, ONNX file or pretrained name).

    An encoder's network goes to `device`.

    Raises:
        ConfigError: vectors of another width than `dim`, that of the net (None: any).
        DataError: neither of these, or damaged files.
    """
    folder = (Path(old) / "meta.json").is_file()
    found = EmbeddingSet.load(old) if folder else encoders.load(old, device=device)
    _check_width(found.dim, dim)
    return found


def _check_width(old: int, new: int | None) -> None:
    if new not in (None, old):
        raise ConfigError(
            f"harmonic.old: the old vectors have {old} dimensions, this net's have {new}; a gallery holds one"
            f" width: set model.embedding_dim={old}"
        )


def old_vectors(
    old: EmbeddingSet | Encoder, records: Records, *, cache: Path | None = None, progress: Progress | None = None
) -> np.ndarray:
    """Return the old vector of each image (N, D) float32; NaN for an image the old encoder could not read.

    Vectors of an encoder are kept under `cache`. Their key is its fingerprint with the files' names, sizes and times.

    Raises:
        DataError: an EmbeddingSet lacks some of the images; the message counts them.
    """
    if isinstance(old, EmbeddingSet):
        return _matched(old, records)
    folder = cache / "old" / _key(old, records) if cache else None
    if folder and (folder / "meta.json").is_file():
        found = EmbeddingSet.load(folder)
    else:
        found, _ = embed_records(old, records, progress=progress)
        if folder:
            found.save(folder)
    place = {path: row for row, path in enumerate(found.paths)}
    vectors = np.full((len(records), found.dim), np.nan, np.float32)
    rows = [(row, place[path]) for row, path in enumerate(records.paths) if path in place]
    vectors[[row for row, _ in rows]] = found.vectors[[there for _, there in rows]]
    return vectors


def write_old(old: EmbeddingSet | Encoder, faces: Records, folder: Path) -> None:
    """Write the old embeddings of the reported faces for facenet compat, which compares them with the new ones."""
    if isinstance(old, EmbeddingSet):
        wanted = set(faces.keys)
        old.subset([row for row, key in enumerate(old.keys) if key in wanted]).save(folder)
    else:
        embed_records(old, faces)[0].save(folder)


def _matched(old: EmbeddingSet, records: Records) -> np.ndarray:
    place = {key: row for row, key in enumerate(old.keys)}
    missing = [key for key in records.keys if key not in place]
    if missing:
        raise DataError(
            f"harmonic.old: {len(missing)} of {len(records)} training images have no old embedding"
            f" ({', '.join(missing[:3])}, ...); embed all of them with the old encoder"
        )
    return np.ascontiguousarray(old.vectors[[place[key] for key in records.keys]], np.float32)


def _key(old: Encoder, records: Records) -> str:
    digest = hashlib.sha256(f"{old.fingerprint} {records.root}\n".encode())
    records.mark(digest)
    return digest.hexdigest()[:32]
