"""Into and out of a gallery: metadata tables, and its items as embeddings folder, Parquet file or Qdrant collection.

Whoever outgrows one machine takes the vectors along with their ids, identities, paths, metadata and encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError, choose
from facenet.files import atomic_write, read_csv
from facenet.foreign import install_command
from facenet.gallery.gallery import Gallery, Item
from facenet.types import EmbeddingSet, Progress

Blocks = Iterator[tuple[list[Item], np.ndarray]]  # items and their vectors (n, D)

KEYS = ("id", "path")  # columns of a metadata table that are no metadata


def read_embeddings(folder: str | Path, record: Mapping[str, Any] | None) -> EmbeddingSet:
    """Read embeddings for a gallery; they may join the galleries of the encoders that their encoder's `record` lists.

    Raises:
        DataError: no such folder, a damaged file, or embeddings of another encoder than the one given.
    """
    embeddings = EmbeddingSet.load(folder, mmap=True)
    if record is None:
        return embeddings
    if embeddings.fingerprint != record.get("fingerprint"):
        raise DataError(f"{folder}: embedded by another encoder than the one given as encoder=; embed again")
    return replace(embeddings, compatible_with=tuple(str(item) for item in record.get("compatible_with", [])))


def read_metadata(file: str | Path, paths: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Read ids and metadata for the images `paths` from a table: CSV, or JSON lines, whose values keep their types.

    The column `path` names the image, `id` its id (by default the path). Everything else is metadata. Images that the
    table does not name have none.

    Raises:
        DataError: no such file, not readable as that, no column `path`, a path twice or none of the given ones.
    """
    file = Path(file)
    rows: dict[str, dict[str, Any]] = {}
    for line, row in enumerate(_rows(file), 1):
        path = row.get("path")
        if not isinstance(path, str) or not path:
            raise DataError(f"{file}: row {line} has no path; metadata tables need a column path")
        if path in rows:
            raise DataError(f"{file}: row {line} names {path} again; keep one of the two")
        rows[path] = row
    known = set(paths)
    unknown = [path for path in rows if path not in known]
    if unknown:
        raise DataError(f"{file}: {unknown[0]} and {len(unknown) - 1} more are no images of these embeddings")
    found = [rows.get(path, {}) for path in paths]
    ids = [path if row.get("id") in (None, "") else str(row["id"]) for row, path in zip(found, paths, strict=True)]
    return ids, [{key: value for key, value in row.items() if key not in KEYS} for row in found]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".csv":
        yield from read_csv(file, ("path",), remedy="metadata tables need a column path and whole lines", whole=True)
        return
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            if file.suffix in (".jsonl", ".ndjson"):
                for text in stream:
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise ValueError(f"expected one JSON object a line, got {text[:40]!r}")
                    yield row
            else:
                raise ValueError("expected .csv or .jsonl")
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: not readable as a metadata table ({why})") from error


def write_items(
    gallery: Gallery, form: str, out: str | Path, *, collection: str = "faces", progress: Progress | None = None
) -> int:
    """Write every item of a gallery in a form of `FORMS` to `out`; returns how many.

    "npy": an embeddings folder and ``metadata.jsonl``; if there are several encoders, one folder for each, named by
    its fingerprint's first 12 digits. "parquet": one file. "qdrant": a `collection` in a local folder, or on the server
    at `out` if that is an http address (key: environment variable QDRANT_API_KEY). Vectors there have the name of their
    encoder's fingerprint, so that a search names the encoder whose space it asks.

    Raises:
        ConfigError: an unknown form, or the form's package is missing.
        DataError: an empty gallery, or `out` there already or not writable.
    """
    write = choose({**FORMS, "qdrant": None}, form, "export")
    if form != "qdrant" and (Path(out).is_file() or (Path(out).is_dir() and any(Path(out).iterdir()))):
        raise DataError(f"{out}: it is there already; give another path")
    total = len(gallery)
    if not total:
        raise DataError(f"{gallery.folder}: the gallery is empty, there is nothing to export")

    def blocks() -> Blocks:
        done = 0
        for items, vectors in gallery.blocks():
            yield items, vectors
            done += len(items)
            if progress:
                progress(done, total)

    if write:
        write(blocks(), out)
    else:
        counts = gallery.info()["fingerprints"]
        _write_qdrant(blocks(), out, collection, [name for name, count in counts.items() if count])
    return total


def _write_npy(blocks: Blocks, out: str | Path) -> None:
    parts: dict[str, list[tuple[Item, np.ndarray]]] = {}
    for items, vectors in blocks:
        for item, vector in zip(items, vectors, strict=True):
            parts.setdefault(item.fingerprint, []).append((item, vector))
    for fingerprint, rows in parts.items():
        folder = Path(out) / fingerprint[:12] if len(parts) > 1 else Path(out)
        items = [item for item, _ in rows]
        root, paths = _below_one_root(items)
        vectors = np.stack([vector for _, vector in rows])
        EmbeddingSet(vectors, paths, [item.identity for item in items], fingerprint, root).save(folder)
        with atomic_write(folder / "metadata.jsonl") as file:
            for item, path in zip(items, paths, strict=True):
                line = {**item.metadata, "id": item.id, "path": path}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _below_one_root(items: Sequence[Item]) -> tuple[str, list[str]]:
    """Return the root of all items, or the folder that several roots have in common, and their paths below it.

    An item without a picture, as a service enrols, is named by its number.
    """
    roots = {item.root: Path(item.root).resolve() for item in items if item.root}
    paths = [item.path or f"item/{item.number}" for item in items]
    if len(roots) < 2:
        return next(iter(roots), ""), paths
    root = Path(os.path.commonpath(list(roots.values())))
    below = {given: folder.relative_to(root) for given, folder in roots.items()}
    named = zip(items, paths, strict=True)
    return str(root), [(below[item.root] / path).as_posix() if item.root else path for item, path in named]


def _write_parquet(blocks: Blocks, out: str | Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"export=parquet needs pyarrow: {install_command('parquet')}") from error

    writer = None
    with atomic_write(out) as file:
        for items, vectors in blocks:
            names = ("number", "id", "identity", "path", "root", "fingerprint")
            columns = {name: [getattr(item, name) for item in items] for name in names}
            columns["metadata"] = [json.dumps(item.metadata, ensure_ascii=False) for item in items]
            flat = pyarrow.array(vectors.ravel())
            table = pyarrow.table(columns | {"vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer:
            writer.close()


def _write_qdrant(blocks: Blocks, out: str | Path, collection: str, fingerprints: Sequence[str]) -> None:
    try:
        from qdrant_client import QdrantClient, models
    except ImportError as error:
        raise ConfigError(f"export=qdrant needs qdrant-client: {install_command('qdrant')}") from error

    where = str(out)
    remote = where.startswith(("http://", "https://"))
    client = None
    try:
        server = {"url": where, "api_key": os.environ.get("QDRANT_API_KEY"), "check_compatibility": False}
        client = QdrantClient(**(server if remote else {"path": where}))
        if client.collection_exists(collection):
            raise DataError(f"{where}: a collection {collection!r} is there already; give another (collection=NAME)")
        for start, (items, vectors) in enumerate(blocks):
            if not start:  # Euclidean, not cosine: the score is the root of sq_dist, and vectors come back unchanged
                parameters = models.VectorParams(size=vectors.shape[1], distance=models.Distance.EUCLID)
                client.create_collection(collection, vectors_config=dict.fromkeys(fingerprints, parameters))
            points = [
                models.PointStruct(
                    id=payload.pop("number"), vector={payload["fingerprint"]: vector.tolist()}, payload=payload
                )
                for payload, vector in zip((item._asdict() for item in items), vectors, strict=True)
            ]
            client.upload_points(collection, points, wait=True)
    except DataError:
        raise
    except Exception as error:  # the client's own and those of three transports
        raise DataError(f"{where}: not exported to Qdrant ({str(error).splitlines()[0][:200]})") from error
    finally:
        if client:
            client.close()


FORMS: dict[str, Callable[[Blocks, str | Path], None]] = {"npy": _write_npy, "parquet": _write_parquet}
