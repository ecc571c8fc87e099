from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.records import Records, scan_folder
from facenet.embed import embed_records
from facenet.errors import DataError
from tests.conftest import blob, write_tree
from tests.test_bundle import make


def test_files_and_arrays_give_the_same_vectors(tmp_path: Path) -> None:
    write_tree(tmp_path, 4, 3)
    encoder, records = make(), scan_folder(tmp_path)
    calls: list[tuple[int, int]] = []
    embeddings, kept = embed_records(encoder, records, batch_size=5, progress=lambda d, t: calls.append((d, t)))
    assert calls == [(5, 12), (10, 12), (12, 12)]
    assert (embeddings.fingerprint, embeddings.root) == (encoder.fingerprint, str(tmp_path))
    assert tuple(embeddings.identities) == kept.identities == records.identities
    images = np.stack([blob(i, j) for i in range(4) for j in range(3)])
    np.testing.assert_allclose(embeddings.vectors, encoder.embed(images), atol=1e-6)
    in_memory, _ = embed_records(encoder, Records(records.paths, records.identities, "", images))
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
