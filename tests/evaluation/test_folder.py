"""evaluation/: what was scored can be read back and scored again, from files and from drawn faces."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import read_pairs
from facenet.data.records import Records
from facenet.data.sources.folder import scan_folder
from facenet.encoders.embedding import embed_records
from facenet.evaluation.evaluate import evaluate
from facenet.evaluation.folder import save_evaluation, thumbnails
from facenet.evaluation.verification import verify_embeddings, verify_pairs
from facenet.types import EmbeddingSet, Pairs
from tests.helpers.encoders import make
from tests.helpers.pictures import blob


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_named_and_scored_again(face_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(face_tree.parent)
    faces = scan_folder(face_tree.name)  # a relative root
    pairs, encoder, folder = held_out_pairs(faces), make(), tmp_path / "evaluation"
    metrics = evaluate(encoder, faces, pairs, save=folder)
    embeddings = EmbeddingSet.load(folder)
    assert embeddings.fingerprint == encoder.fingerprint
    assert all((Path(embeddings.root) / path).is_file() for path in embeddings.paths)
    assert Path(embeddings.root).is_absolute()
    assert not (folder / "thumbnails.npy").exists()
    rows = rows_of(folder)
    assert list(rows[0]) == ["first", "second", "same", "fold", "sq_dist"]
    assert tuple(row["first"] for row in rows) == pairs.first
    assert tuple(row["second"] for row in rows) == pairs.second
    sq_dist = np.asarray([float(row["sq_dist"]) for row in rows], np.float32)
    same, fold = np.asarray([row["same"] == "1" for row in rows]), np.asarray([int(row["fold"]) for row in rows])
    assert verify_pairs(sq_dist, same, fold).metrics() == metrics
    assert verify_embeddings(embeddings, read_pairs(folder / "pairs.csv")).metrics() == metrics


def test_drawn_faces_keep_thumbnails_and_missing_pairs_are_left_out(tmp_path: Path) -> None:
    images = np.stack([blob(i // 3, i % 3, 80) for i in range(12)])
    faces = Records(tuple(f"p{i // 3}/p{i // 3}_{i % 3:04d}.jpg" for i in range(12)), tuple("aaabbbcccddd"), "", images)
    embeddings, kept = embed_records(make(), faces)
    keys = embeddings.keys
    pairs = Pairs(
        (keys[0], "x/x", keys[4]), (keys[1], keys[2], keys[9]), np.asarray([1, 1, 0], bool), np.asarray([0, 1, 1])
    )
    save_evaluation(tmp_path, embeddings, kept, pairs)
    assert [row["first"] for row in rows_of(tmp_path)] == [keys[0], keys[4]]
    assert EmbeddingSet.load(tmp_path).root == ""
    small = np.load(tmp_path / "thumbnails.npy")
    assert (small.shape, small.dtype) == ((12, 64, 64, 3), np.uint8)
    assert np.abs(small.mean((1, 2)) - images.mean((1, 2))).max() < 1
    files = Records(faces.paths, faces.identities, str(tmp_path))
    save_evaluation(tmp_path, embeddings, files, pairs)
    assert not (tmp_path / "thumbnails.npy").exists(), "what another evaluation left"


def test_small_images_stay_as_they_are() -> None:
    images = np.stack([blob(i, 0, 48) for i in range(3)])
    np.testing.assert_array_equal(thumbnails(images), images)
    assert thumbnails(images[:0]).shape == (0, 48, 48, 3)
