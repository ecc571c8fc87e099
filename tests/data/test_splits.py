from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet.data.cache import readable
from facenet.data.options import DataOptions
from facenet.data.pair_files import check_pairs
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import read_pairs, read_people
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records, Skipped
from facenet.data.reported import other_faces, reported_faces
from facenet.data.sources.folder import scan_lfw
from facenet.data.sources.kinds import SOURCES
from facenet.data.splits import Splits, share_of_people, split_faces
from facenet.errors import ConfigError, DataError
from facenet.types import image_key
from tests.helpers.pictures import blob, write_tree

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
    splits = split_faces(DataOptions(kind="synthetic", synthetic=SYNTHETIC, cache_dir=str(tmp_path), seed=3))
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert (len(train), len(held_out), len(evaluation)) == (12, 6, 8)
    assert not train & held_out
    assert not (train | held_out) & evaluation
    assert splits.pairs is not None
    assert set(splits.pairs.first) | set(splits.pairs.second) <= set(splits.evaluation.keys)


def test_a_folder_is_divided_by_people(face_tree: Path) -> None:
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2))
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert len(evaluation) == 6
    assert len(held_out) == 5
    assert len(train | held_out | evaluation) == 30 == len(train) + len(held_out) + len(evaluation)
    again, pairs = reported_faces(DataOptions(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2))
    assert again.paths == splits.evaluation.paths
    assert pairs.first == splits.pairs.first  # type: ignore[union-attr]
    other = split_faces(DataOptions(kind="folder", root=str(face_tree), held_out=0.2, evaluation=0.2, seed=5))
    assert set(other.evaluation.identities) != evaluation


def test_everybody_is_reported_if_evaluation_is_1(face_tree: Path) -> None:
    data = DataOptions(kind="folder", root=str(face_tree), evaluation=1)
    faces, pairs = reported_faces(data)
    assert len(set(faces.identities)) == 30
    assert len({key.split("/")[0] for key in (*pairs.first, *pairs.second)}) == 30
    assert other_faces(data, needed=False) is None
    with pytest.raises(ConfigError, match=r"data\.evaluation=1: everybody is reported"):
        split_faces(data)


def test_reported_pairs_keep_their_people_out_of_training(face_tree: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [f"p{i:03d}/p{i:03d}_0001.png,p{j:03d}/p{j:03d}_0002.png,{int(i == j)}" for i in range(4) for j in range(4)]
    pairs.write_text("first,second,same\n" + "\n".join(rows) + "\n")
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree), pairs=str(pairs)))
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
            DataOptions(
                kind="folder",
                root=str(face_tree),
                people=str(tmp_path / "people.txt"),
                pairs=str(tmp_path / "pairs.csv"),
            )
        )


def test_bad_options(face_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        split_faces(DataOptions(kind="foldr", root=str(face_tree)))
    with pytest.raises(ConfigError, match="held_out"):
        split_faces(DataOptions(kind="folder", root=str(face_tree), held_out=0.0))
    with pytest.raises(ConfigError, match=r"data\.root: not set"):
        split_faces(DataOptions(kind="lfw"))
    with pytest.raises(DataError, match="no such file"):
        split_faces(DataOptions(kind="folder", root=str(face_tree), pairs="none.txt"))
    (tmp_path / "people.txt").write_text("1\nNobody\t4\n")
    with pytest.raises(DataError, match="none of its 1 people"):
        split_faces(DataOptions(kind="folder", root=str(face_tree), people=str(tmp_path / "people.txt")))


def test_one_identity_is_too_few(tmp_path: Path) -> None:
    write_tree(tmp_path, 1, 6)
    with pytest.raises(DataError, match="1 people are too few"):
        split_faces(DataOptions(kind="folder", root=str(tmp_path)))


def test_pairs_among_too_few_people_say_so(face_tree: Path) -> None:
    splits = split_faces(DataOptions(kind="folder", root=str(face_tree)))
    assert len(splits.evaluation.names) == len(splits.held_out.names) == 4, "a tenth of 30, but at least four"
    with pytest.raises(DataError, match="pairs among 1 people"):
        held_out_pairs(splits.train.of_people(splits.train.names[:1]))


@pytest.mark.lfw
@pytest.mark.slow  # lists all of LFW; drawn trees hold the same rules in every run
def test_lfw_view1_never_sees_a_person_of_the_test_list(lfw_root: Path) -> None:
    splits = split_faces(
        DataOptions(kind="lfw", root=str(lfw_root), people="peopleDevTrain.txt", pairs="pairsDevTest.txt")
    )
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    test_people = {name for fold in read_people(lfw_root / "protocol" / "peopleDevTest.txt") for name in fold}
    assert not (train | held_out) & test_people
    assert not train & held_out
    assert evaluation <= test_people
    assert len(train | held_out) == 4038
    assert len(splits.pairs or ()) == 1000
    np.testing.assert_array_equal(np.bincount(splits.pairs.fold), 100)  # type: ignore[union-attr]


def uneven(people: int = 40) -> Records:
    """People p000 onwards with 1 to 9 images each."""
    paths = [f"p{i:03d}/{j}.png" for i in range(people) for j in range(1 + i * 5 % 9)]
    return Records.of(tuple(paths), tuple(path.split("/")[0] for path in paths))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_of_the_training_images_is_made_of_whole_people_and_nested(seed: int) -> None:
    whole = uneven()
    most, before = max(np.bincount(whole.labels)), set[str]()
    for share in (0.01, 0.1, 0.2, 0.5, 0.9, 1.0):
        kept = share_of_people(whole, share, seed)
        assert share * len(whole) <= len(kept) < share * len(whole) + most, "the least number of people that reach it"
        assert len(kept) == sum(name in set(kept.identities) for name in whole.identities), "whole people"
        assert before <= set(kept.paths)
        before = set(kept.paths)
    assert len(before) == len(whole)
    assert share_of_people(whole, 0.2, seed).paths != share_of_people(whole, 0.2, seed + 1).paths


def test_a_share_is_exact_where_it_can_be() -> None:
    equal = Records.of(tuple(f"p{i:03d}/{j}.png" for i in range(100) for j in range(3)), tuple(np.repeat([*"ab"], 150)))
    equal = Records.of(equal.paths, tuple(path.split("/")[0] for path in equal.paths))
    for share in (0.01, 0.07, 0.1, 0.29, 0.57):  # 0.07 * 300 is above 21 in floats, 0.29 * 300 below 87
        assert len(share_of_people(equal, share).names) == round(100 * share)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range(share: float, face_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_share: expected a number (above 0 and at most|at most 1 and above)"):
        split_faces(DataOptions(kind="folder", root=str(face_tree), train_share=share))
    with pytest.raises(ConfigError, match="train_share"):
        split_faces(DataOptions(kind="synthetic", synthetic=SYNTHETIC, cache_dir=str(tmp_path), train_share=share))


def test_a_share_changes_the_training_people_alone(face_tree: Path, tmp_path: Path) -> None:
    sources = (
        {"kind": "folder", "root": str(face_tree)},
        {"kind": "synthetic", "synthetic": SYNTHETIC, "cache_dir": str(tmp_path)},
    )
    for source in sources:
        whole = split_faces(DataOptions(**source, seed=2))  # type: ignore[arg-type]
        part = split_faces(DataOptions(**source, seed=2, train_share=0.4))  # type: ignore[arg-type]
        assert set(part.train.paths) < set(whole.train.paths)
        assert 0.4 * len(whole.train) <= len(part.train) < len(whole.train)
        assert part.held_out.paths == whole.held_out.paths
        assert part.evaluation.paths == whole.evaluation.paths
        assert part.pairs.first == whole.pairs.first  # type: ignore[union-attr]


def view2(root: Path, fold: int) -> Splits:
    return split_faces(DataOptions(kind="lfw", root=str(root), people="people.txt", pairs="pairs.txt", fold=fold))


def check_view2(root: Path, fold: int) -> Splits:
    """Nobody and nothing of fold number `fold` is where training, checkpoint and threshold come from."""
    lists, every = read_people(root / "protocol" / "people.txt"), read_pairs(root / "protocol" / "pairs.txt")
    held, others = set(lists[fold - 1]), {name for group in (*lists[: fold - 1], *lists[fold:]) for name in group}
    splits = view2(root, fold)
    train, held_out, evaluation = names(splits.train, splits.held_out, splits.evaluation)
    assert not train & held_out
    assert train | held_out == others, "everybody of the other folds, and nobody else"
    assert evaluation <= held
    rows = np.flatnonzero(every.fold == fold - 1)
    assert splits.pairs is not None
    assert splits.pairs.first == tuple(every.first[row] for row in rows)
    assert splits.pairs.second == tuple(every.second[row] for row in rows)
    np.testing.assert_array_equal(splits.pairs.same, every.same[rows])
    wanted = set(splits.pairs.first) | set(splits.pairs.second)
    assert set(splits.evaluation.keys) == wanted
    assert not wanted & {*splits.train.keys, *splits.held_out.keys}
    drawn = held_out_pairs(splits.held_out)
    assert {key.split("/")[0] for key in (*drawn.first, *drawn.second)} <= held_out
    return splits


def test_view2_trains_on_nobody_of_the_held_fold(view2_root: Path) -> None:
    found = [check_view2(view2_root, fold) for fold in range(1, 11)]
    assert [(len(s.train.names), len(s.held_out.names), len(s.pairs or ())) for s in found] == [(49, 5, 12)] * 10


@pytest.mark.lfw
@pytest.mark.slow  # lists all of LFW; drawn trees hold the same rules in every run
def test_lfw_view2_trains_on_nobody_of_the_held_fold(lfw_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = scan_lfw(lfw_root)
    monkeypatch.setitem(SOURCES, "lfw", lambda root: listed)  # once, for the sake of time
    for fold in (1, 10):
        splits = check_view2(lfw_root, fold)
        assert len(splits.pairs or ()) == 600
        assert int(splits.pairs.same.sum()) == 300  # type: ignore[union-attr]
        assert len(splits.train) + len(splits.held_out) + len(splits.evaluation) < len(listed)


def test_a_fold_that_can_not_be(view2_root: Path, tmp_path: Path) -> None:
    for fold in (0, 11):
        with pytest.raises(ConfigError, match=rf"fold: expected a number from 1 to 10 .*, got {fold}"):
            view2(view2_root, fold)
    with pytest.raises(ConfigError, match=r"fold=1: a fold is one of data\.people and data\.pairs.*lfw_view2"):
        split_faces(DataOptions(kind="lfw", root=str(view2_root), people="people.txt", fold=1))
    with pytest.raises(ConfigError, match=r"data=synthetic has not both"):
        split_faces(DataOptions(kind="synthetic", synthetic=SYNTHETIC, cache_dir=str(tmp_path), fold=1))
    people = (view2_root / "protocol" / "people.txt").read_text()
    one, moved = tmp_path / "one.txt", tmp_path / "moved.txt"
    one.write_text("1\np000\t3\n")
    options = {"kind": "lfw", "root": str(view2_root), "pairs": "pairs.txt"}
    with pytest.raises(DataError, match=r"one\.txt has 1 folds of people, pairs\.txt 10 of pairs"):
        split_faces(DataOptions(**options, people=str(one), fold=1))  # type: ignore[arg-type]
    moved.write_text(people.replace("p003\t3\n", "").replace("10\n6\n", "10\n5\n"))  # p003 is in no list
    with pytest.raises(DataError, match=r"fold 1 must hold the people of its pairs.* 1 are amiss \(p003\)"):
        split_faces(DataOptions(**options, people=str(moved), fold=1))  # type: ignore[arg-type]
    moved.write_text(people.replace("p013\t3\n", "p003\t3\n"))  # p003 is in two lists
    with pytest.raises(DataError, match=r"no other fold them; 1 are amiss \(p003\)"):
        split_faces(DataOptions(**options, people=str(moved), fold=1))  # type: ignore[arg-type]


def test_the_faces_of_a_fold_can_be_reported_alone(view2_root: Path) -> None:
    faces, pairs = reported_faces(
        DataOptions(kind="lfw", root=str(view2_root), people="people.txt", pairs="pairs.txt", fold=4)
    )
    assert faces.paths == view2(view2_root, 4).evaluation.paths
    assert len(pairs) == 12
    assert set(pairs.fold.tolist()) == {3}


def dirty(root: Path) -> Path:
    """30 people, 126 files, of which 7 can not be used."""
    write_tree(root, 30, 4)
    for person in ("p000", "p001"):
        (root / person / "empty.jpg").touch()
    (root / "p003" / "again.png").write_bytes((root / "p003" / "p003_0001.png").read_bytes())
    (root / "p004" / "other.png").write_bytes((root / "p005" / "p005_0001.png").read_bytes())
    (root / "alone.png").write_bytes((root / "p006" / "p006_0001.png").read_bytes())
    (root / "gone").symlink_to("/nowhere")
    return root


def test_what_can_not_be_used_is_listed_and_counted(tmp_path: Path) -> None:
    lists: list[Sequence[Skipped]] = []
    options: dict[str, Any] = {"kind": "folder", "root": str(dirty(tmp_path)), "held_out": 0.2}
    splits = split_faces(DataOptions(**options), listed=lists.append)
    assert dict(lists[0]) == {
        "p000/empty.jpg": "the file is empty",
        "p001/empty.jpg": "the file is empty",
        "gone": "a link to nothing",
        "p003/p003_0001.png": "the same file twice: p003/again.png is used",
        "p004/other.png": "the same file under another identity: p005/p005_0001.png",
        "p005/p005_0001.png": "the same file under another identity: p004/other.png",
        "alone.png": "no identity: it lies in no person's folder",
    }
    assert sum(map(len, splits[:3])) == 119
    split_faces(DataOptions(**options, max_bad_share=7 / 126))
    with pytest.raises(DataError, match=r"7 of 126 files \(6%\) can not be used.*2 the file is empty"):
        split_faces(DataOptions(**options, max_bad_share=0.05))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="max_bad_share"):
            split_faces(DataOptions(**options, max_bad_share=wrong))


def test_pairs_are_drawn_among_readable_images(tmp_path: Path) -> None:
    write_tree(tmp_path, 30, 4)
    for number in range(0, 30, 2):
        (tmp_path / f"p{number:03d}" / f"p{number:03d}_0001.png").write_bytes(b"broken %d" % number)
    options: dict[str, Any] = {"kind": "folder", "root": str(tmp_path), "held_out": 0.2, "evaluation": 0.4}
    splits = split_faces(DataOptions(**options), readable=lambda faces: readable(faces, Preprocess()))
    assert splits.pairs is not None
    broken = {image_key(one.path) for one in splits.evaluation.skipped}
    assert len(broken) > 3
    assert not broken & {*splits.pairs.first, *splits.pairs.second}
    check_pairs(splits.evaluation, splits.pairs, None)
    row = splits.evaluation.keys.index(splits.pairs.first[0])
    lost = splits._replace(evaluation=splits.evaluation.without([(row, "it broke")]))
    with pytest.raises(DataError, match=r"pairs.csv: 1 images that the pairs name .* it broke"):
        check_pairs(lost.evaluation, splits.pairs, "pairs.csv")


def test_images_of_one_name_are_in_no_drawn_pair(tmp_path: Path) -> None:
    write_tree(tmp_path, 20, 4)
    for number in range(20):
        Image.fromarray(blob(number, 9)).save(tmp_path / f"p{number:03d}" / f"p{number:03d}_0001.jpg")
    splits = split_faces(DataOptions(kind="folder", root=str(tmp_path), held_out=0.3, evaluation=0.3))
    assert splits.pairs is not None
    assert not {key for key in (*splits.pairs.first, *splits.pairs.second) if key.endswith("_0001")}
