from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.records import Records
from facenet.data.sources.folder import scan_folder
from facenet.encoders.embedding import embed_changed, embed_records
from facenet.errors import DataError
from tests.helpers.encoders import make
from tests.helpers.pictures import blob, write_tree


def test_files_and_arrays_give_the_same_vectors(tmp_path: Path) -> None:
    write_tree(tmp_path, 4, 3)
    encoder, records = make(), scan_folder(tmp_path)
    calls: list[tuple[int, int]] = []
    embeddings, kept = embed_records(encoder, records, batch_size=5, progress=lambda d, t: calls.append((d, t)))
    assert calls == sorted(calls)
    assert {(0, 12), (5, 12), (7, 12), (10, 12), (12, 12)} <= set(calls), "within a batch too"
    assert (embeddings.fingerprint, embeddings.root) == (encoder.fingerprint, str(tmp_path))
    assert tuple(embeddings.identities) == kept.identities == records.identities
    images = np.stack([blob(i, j) for i in range(4) for j in range(3)])
    np.testing.assert_allclose(embeddings.vectors, encoder.embed(images), atol=1e-6)
    in_memory, _ = embed_records(encoder, Records.of(records.paths, records.identities, "", images))
    np.testing.assert_allclose(in_memory.vectors, embeddings.vectors, atol=1e-6)


def test_broken_images_are_listed_and_rows_stay_aligned(tmp_path: Path) -> None:
    write_tree(tmp_path, 3, 2)
    encoder, records = make(), scan_folder(tmp_path)
    whole, _ = embed_records(encoder, records)
    (tmp_path / records.paths[2]).write_bytes(b"broken")
    embeddings, kept = embed_records(encoder, records, batch_size=2)
    assert [s.path for s in kept.skipped] == [records.paths[2]]
    np.testing.assert_allclose(embeddings.vectors, np.delete(whole.vectors, 2, 0), atol=1e-6)
    for path in records.paths:
        (tmp_path / path).write_bytes(b"broken")
    with pytest.raises(DataError, match="no image could be read"):
        embed_records(encoder, records)


def test_changes_see_the_cropped_face_and_may_resize_it(tmp_path: Path) -> None:
    write_tree(tmp_path, 3, 2)
    encoder, records = make(crop=0.5), scan_folder(tmp_path)
    seen: dict[str, tuple[int, ...]] = {}

    def halve(pixels: np.ndarray, key: str) -> np.ndarray:
        seen[key] = pixels.shape
        with pytest.raises(ValueError, match="read-only"):
            pixels[0] = 0
        return pixels[::2, ::2]

    for batch_size in (1, 4, 256):
        (plain, halved, again), kept = embed_changed(encoder, records, (None, halve, None), batch_size=batch_size)
        assert seen == dict.fromkeys(records.keys, (24, 24, 3))
        assert kept == records
        np.testing.assert_array_equal(plain.vectors, again.vectors)
        np.testing.assert_allclose(plain.vectors, embed_records(encoder, records)[0].vectors, atol=1e-6)
        middles = np.stack([blob(i, j)[12:36, 12:36][::2, ::2] for i in range(3) for j in range(2)])
        expected = make(crop=1.0).embed(middles)
        np.testing.assert_allclose(halved.vectors, expected, atol=1e-6)
        assert np.abs(halved.vectors - plain.vectors).max() > 1e-3


def test_rows_stay_with_their_changes_when_an_image_is_broken(tmp_path: Path) -> None:
    write_tree(tmp_path, 3, 2)
    encoder, records = make(), scan_folder(tmp_path)
    changes = (lambda pixels, _: 255 - pixels, None)
    whole, _ = embed_changed(encoder, records, changes)
    (tmp_path / records.paths[2]).write_bytes(b"broken")
    parts, kept = embed_changed(encoder, records, changes, batch_size=4)
    assert [s.path for s in kept.skipped] == [records.paths[2]]
    for part, all_of_them in zip(parts, whole, strict=True):
        assert tuple(part.paths) == kept.paths
        np.testing.assert_allclose(part.vectors, np.delete(all_of_them.vectors, 2, 0), atol=1e-6)
