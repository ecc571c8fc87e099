"""An evaluation reports what its parts measure; what was scored can be read back and scored again."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from facenet.data.options import DataOptions
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import read_pairs
from facenet.data.records import Records
from facenet.data.sources.folder import scan_folder
from facenet.data.splits import split_faces
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError, DataError
from facenet.evaluation.baselines import BASELINES, compare_baselines
from facenet.evaluation.evaluate import (
    evaluate,
    evaluate_all,
    evaluate_embeddings,
    evaluate_fold,
    save_evaluation,
    thumbnails,
)
from facenet.evaluation.leakage import people_record
from facenet.evaluation.options import EvaluationOptions, ProtocolOptions
from facenet.evaluation.verification import verify_embeddings, verify_pairs
from facenet.types import EmbeddingSet, Pairs
from tests.helpers.encoders import make
from tests.helpers.pictures import blob


def test_baselines_are_scored_on_the_same_pairs(face_tree: Path) -> None:
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree), evaluation=0.3))
    assert splits.pairs is not None
    encoder = make()
    scores = compare_baselines(encoder, splits.evaluation, splits.pairs, splits.train, EvaluationOptions())
    assert set(scores) == {*(f"{name}_baseline" for name in BASELINES), "untrained"}
    assert all(0.4 <= score["accuracy"] <= 1 for score in scores.values())
    # these test pictures are told apart by colour alone
    assert scores["color_baseline"]["accuracy"] > 0.9
    given = splits.pairs
    same, fold = np.append(given.same, True), np.append(given.fold, given.fold[-1])
    more = Pairs((*given.first, "nobody/0.jpg"), (*given.second, given.first[0]), same, fold)
    with pytest.raises(DataError, match="allow_missing"):
        compare_baselines(encoder, splits.evaluation, more, splits.train, EvaluationOptions())
    assert scores == compare_baselines(
        encoder, splits.evaluation, more, splits.train, EvaluationOptions(allow_missing=True)
    )
    result = evaluate(encoder, splits.evaluation, splits.pairs)
    assert result["pairs"] == len(splits.pairs)
    assert np.isfinite(result["accuracy"])


def test_a_fold_is_scored_at_the_threshold_of_other_people(face_tree: Path, tmp_path: Path) -> None:
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree), evaluation=0.3, held_out=0.3))
    assert splits.pairs is not None
    encoder, held = make(), splits.held_out
    chosen = held_out_pairs(held)
    encoder.training["people"] = people_record({"train": splits.train.names}, encoder.fingerprint)
    found = evaluate_fold(encoder, splits.evaluation, splits.pairs, held, chosen, save=tmp_path)
    score = found["verification"]
    assert (found["leakage"]["people"], found["leakage"]["shared_people"]) == (len(splits.evaluation.names), 0)
    assert EmbeddingSet.load(tmp_path).paths == list(splits.evaluation.paths)

    def distances(faces: Records, pairs: Pairs) -> np.ndarray:
        vectors = dict(zip(faces.keys, embed_records(encoder, faces)[0].vectors, strict=True))
        return np.array(
            [((vectors[a] - vectors[b]) ** 2).sum() for a, b in zip(pairs.first, pairs.second, strict=True)]
        )

    on_held = distances(held, chosen)
    best = max(np.mean((on_held <= t) == chosen.same) for t in on_held)
    assert np.mean((on_held <= score["threshold"]) == chosen.same) == best
    right = (distances(splits.evaluation, splits.pairs) <= score["threshold"]) == splits.pairs.same
    assert (score["correct"], score["pairs"]) == (right.sum(), len(splits.pairs))
    assert 0.5 < score["accuracy"] == right.mean()
    with pytest.raises(DataError, match=r"pairs have no embedding"):
        evaluate_fold(encoder, splits.evaluation.subset([0]), splits.pairs, held, chosen)


def test_everything_is_about_the_same_faces(face_tree: Path, tmp_path: Path) -> None:
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree), evaluation=0.5))
    assert splits.pairs is not None
    encoder = make()
    name = splits.evaluation.names[0]
    encoder.training["people"] = people_record({"train": [*splits.train.names, name]}, encoder.fingerprint)
    plain = evaluate_all(encoder, splits.evaluation, splits.pairs)
    assert set(plain) == {"verification", "leakage"}
    assert plain["verification"] == evaluate(encoder, splits.evaluation, splits.pairs)
    assert (plain["leakage"]["people"], plain["leakage"]["shared_people"]) == (len(splits.evaluation.names), 1)
    asked = EvaluationOptions(identification=True, protocol=ProtocolOptions(strangers=0.3))
    full = evaluate_all(
        encoder, splits.evaluation, splits.pairs, dataclasses.replace(asked, quantise="int8"), save=tmp_path
    )
    assert full["verification"] == plain["verification"]
    assert full["identification"]["probes"] + full["identification"]["strangers"] + full["identification"][
        "gallery"
    ] == len(splits.evaluation)
    assert full["quantised"]["int8"]["bytes_per_face"] == encoder.dim
    again = evaluate_embeddings(EmbeddingSet.load(tmp_path), splits.pairs, asked)
    assert again["verification"] == full["verification"]
    assert again["identification"] == full["identification"]
    assert again["leakage"]["shared_people"] is None, "embeddings alone do not know"


def test_without_pairs_all_of_them_are_scored(face_tree: Path) -> None:
    faces = split_faces(DataOptions(kind="folder", root=str(face_tree))).train
    embeddings, _ = embed_records(make(), faces)
    found = evaluate_embeddings(embeddings, None, EvaluationOptions(fars=(0.1, 1e-9)))
    count = len(faces)
    assert found["all_pairs"]["pairs"] == count * (count - 1) // 2
    assert found["all_pairs"]["val_at_far"]["1e-9"]["reason"].startswith("too few different pairs")
    with pytest.raises(ConfigError, match="grid: unknown name '500'"):
        EvaluationOptions(grid=500)
    with pytest.raises(ConfigError, match="pass pairs=FILE"):
        evaluate_embeddings(embeddings, None, EvaluationOptions(quantise="int8"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_named_and_scored_again(face_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(face_tree.parent)
    faces = scan_folder(face_tree.name)  # a relative root
    pairs, encoder, folder = held_out_pairs(faces), make(), tmp_path / "evaluation"
    metrics = evaluate_all(encoder, faces, pairs, save=folder)["verification"]
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
    faces = Records.of(
        tuple(f"p{i // 3}/p{i // 3}_{i % 3:04d}.jpg" for i in range(12)), tuple("aaabbbcccddd"), "", images
    )
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
    files = Records.of(faces.paths, faces.identities, str(tmp_path))
    save_evaluation(tmp_path, embeddings, files, pairs)
    assert not (tmp_path / "thumbnails.npy").exists(), "what another evaluation left"


def test_small_images_stay_as_they_are() -> None:
    images = np.stack([blob(i, 0, 48) for i in range(3)])
    np.testing.assert_array_equal(thumbnails(images), images)
    assert thumbnails(images[:0]).shape == (0, 48, 48, 3)
