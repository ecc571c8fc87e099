from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.pairs import read_people
from facenet.data.splits import held_out_pairs, reported_faces, split_faces
from facenet.errors import ConfigError, DataError
from tests.conftest import write_tree

SYNTHETIC = {
    "train_identities": 12,
    "held_out_identities": 6,
    "evaluation_identities": 8,
    "train_images": [1, 5],
    "held_out_images": [3, 3],
    "evaluation_images": [4, 4],
    "size": 32,
    "difficulty": 0.3,
}


def names(*parts: object) -> list[set[str]]:
    return [set(part.identities) for part in parts]  # type: ignore[attr-defined]


def test_synthetic_sets_share_nobody(tmp_path: Path) -> None:
    splits = split_faces(kind="synthetic", synthetic=SYNTHETIC, cache_dir=str(tmp_path), seed=3)
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert (len(train), len(held_out), len(evaluation)) == (12, 6, 8)
    assert not train & held_out
    assert not (train | held_out) & evaluation
    assert splits.pairs is not None
    assert set(splits.pairs.first) | set(splits.pairs.second) <= set(splits.evaluation.keys)


def test_a_folder_is_divided_by_people(face_tree: Path) -> None:
    splits = split_faces(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2)
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert len(evaluation) == 6
    assert len(held_out) == 5
    assert len(train | held_out | evaluation) == 30 == len(train) + len(held_out) + len(evaluation)
    again, pairs = reported_faces(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2)
    assert again.paths == splits.evaluation.paths
    assert pairs.first == splits.pairs.first  # type: ignore[union-attr]
    other = split_faces(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2, seed=5)
    assert set(other.evaluation.identities) != evaluation


def test_reported_pairs_keep_their_people_out_of_training(face_tree: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [f"p{i:03d}/p{i:03d}_0001.png,p{j:03d}/p{j:03d}_0002.png,{int(i == j)}" for i in range(4) for j in range(4)]
    pairs.write_text("first,second,same\n" + "\n".join(rows) + "\n")
    splits = split_faces(kind="folder", root=str(face_tree), pairs=str(pairs))
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert evaluation == {"p000", "p001", "p002", "p003"}
    assert not evaluation & (train | held_out)
    assert len(splits.evaluation) == 8, "only the images the pairs name"


def test_people_in_both_lists_are_refused(face_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "people.txt").write_text("3\np000\t4\np001\t4\np010\t4\n")
    (tmp_path / "pairs.csv").write_text(
        "first,second,same\np000/p000_0001,p000/p000_0002,1\np001/p001_0001,p000/p000_0001,0\n"
    )
    with pytest.raises(DataError, match=r"2 people of the reported pairs are in the training list \(p000, p001"):
        split_faces(
            kind="folder", root=str(face_tree), people=str(tmp_path / "people.txt"), pairs=str(tmp_path / "pairs.csv")
        )


def test_bad_options(face_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        split_faces(kind="foldr", root=str(face_tree))
    with pytest.raises(ConfigError, match="held_out"):
        split_faces(kind="folder", root=str(face_tree), held_out=0.0)
    with pytest.raises(ConfigError, match=r"data\.root: not set"):
        split_faces(kind="lfw")
    with pytest.raises(DataError, match="no such file"):
        split_faces(kind="folder", root=str(face_tree), pairs="none.txt")
    (tmp_path / "people.txt").write_text("1\nNobody\t4\n")
    with pytest.raises(DataError, match="none of its 1 people"):
        split_faces(kind="folder", root=str(face_tree), people=str(tmp_path / "people.txt"))


def test_one_identity_is_too_few(tmp_path: Path) -> None:
    write_tree(tmp_path, 1, 6)
    with pytest.raises(DataError, match="1 people are too few"):
        split_faces(kind="folder", root=str(tmp_path))


def test_pairs_among_too_few_people_say_so(face_tree: Path) -> None:
    splits = split_faces(kind="folder", root=str(face_tree))
    assert len(splits.evaluation.names) == len(splits.held_out.names) == 4, "a tenth of 30, but at least four"
    with pytest.raises(DataError, match="pairs among 1 people"):
        held_out_pairs(splits.train.of_people(splits.train.names[:1]))


@pytest.mark.lfw
def test_lfw_view1_never_sees_a_person_of_the_test_list(lfw_root: Path) -> None:
    splits = split_faces(kind="lfw", root=str(lfw_root), people="peopleDevTrain.txt", pairs="pairsDevTest.txt")
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    test_people = {name for fold in read_people(lfw_root / "protocol" / "peopleDevTest.txt") for name in fold}
    assert not (train | held_out) & test_people
    assert not train & held_out
    assert evaluation <= test_people
    assert len(train | held_out) == 4038
    assert len(splits.pairs or ()) == 1000
    np.testing.assert_array_equal(np.bincount(splits.pairs.fold), 100)  # type: ignore[union-attr]
