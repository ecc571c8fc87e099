"""What a user asks for, as vectors: images, tables, vector files, embeddings, or the id of a gallery item.

Letters: Q queries, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facenet.data.records import Skipped
from facenet.data.sources.kinds import scan
from facenet.errors import ConfigError, DataError
from facenet.files import read_array
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder


@dataclass(frozen=True)
class Queries:
    """Q vectors to look for, with a name, an identity ("" if unknown) and, if there is one, an image each."""

    embeddings: EmbeddingSet  # its paths are the names
    images: Sequence[Path | None]
    itself: str = ""  # the gallery id that is asked for, which is left out of its own answer
    skipped: Sequence[Skipped] = ()  # images that could not be used, with the reason
    note: str = ""  # that a single photo shows several faces, and which one is asked for

    def __len__(self) -> int:
        """Return Q."""
        return len(self.embeddings)


def read_queries(query: str, gallery: Gallery, encoder: Encoder | None) -> Queries:
    """Turn what a user names into vectors; a path wins over an id of the same name.

    Vectors of a `.npy` file carry no encoder: they are taken for those of the gallery's own. The queries may ask a
    gallery of another encoder if the record of `encoder` lists it.

    Raises:
        DataError: neither a path nor an id, an image, folder, table or vector file that can not be used.
        ConfigError: images without an encoder.
    """
    found = _read(query, gallery, encoder)
    if encoder is None:
        return found
    return replace(found, embeddings=replace(found.embeddings, compatible_with=tuple(encoder.compatible_with)))


def _read(query: str, gallery: Gallery, encoder: Encoder | None) -> Queries:
    path = Path(query)
    if path.suffix == ".npy" and path.is_file():
        vectors = _read_vectors(path)
        names = [f"{path.name}[{row}]" for row in range(len(vectors))]
        given = EmbeddingSet(vectors, names, [""] * len(names), gallery.fingerprint or "")
        return Queries(given, [None] * len(names))
    if (path / "meta.json").is_file():
        given = EmbeddingSet.load(path)
        if encoder is not None and given.fingerprint != encoder.fingerprint:
            raise DataError(
                f"{path}: embedded by encoder {given.fingerprint[:12]}, not by {encoder.fingerprint[:12]}, "
                "the one given, whose threshold would be taken; embed again, or pass the encoder that made them"
            )
        return Queries(given, [Path(given.root) / name if given.root else None for name in given.paths])
    if path.exists():
        return _embedded(path, encoder)
    try:
        item, vector = gallery.vector(query)
    except DataError:
        raise DataError(f"query {query!r}: no such file or folder, and no id in {gallery.folder}") from None
    one = EmbeddingSet(vector[None], [item.id], [item.identity], item.fingerprint)
    return Queries(one, [Path(item.root) / item.path], itself=item.id)


def _embedded(path: Path, encoder: Encoder | None) -> Queries:
    """Return the faces of an image, a folder or a table."""
    if encoder is None:
        raise ConfigError(f"search: {path} holds images; pass encoder=DIR to embed them")
    from facenet.encoders.embedding import embed_records

    records, align = scan(path), encoder.preprocess.align
    if path.is_file() and len(records) == 1 and records.alignment is None and align and align.detector != "none":
        return _photo(path, encoder)
    embedded, kept = embed_records(encoder, records)
    return Queries(embedded, [Path(kept.root) / name for name in kept.paths], skipped=kept.skipped)


def _photo(path: Path, encoder: Encoder) -> Queries:
    """Return the meant face of a single photo, which is looked for once."""
    from facenet.evaluation.photos import embed_photos, read_photo

    photo = read_photo(encoder, path)
    vectors = embed_photos(encoder, [photo])
    return Queries(EmbeddingSet(vectors, [path.name], [""], encoder.fingerprint), [path], note=photo.others)


def _read_vectors(path: Path) -> np.ndarray:
    vectors = read_array(path)
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers of shape (Q, D) or (D,), got {vectors.dtype} {vectors.shape}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which a search refuses
        return vectors.astype(np.float32)
