"""The metadata of IJB are read and joined; each way in which a copy is not whole is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facenet.data.ijb import read_ijb, read_template_pairs
from facenet.errors import DataError
from tests.helpers.ijb import write_ijb


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_ijb(tmp_path / "IJBC", people=4)


def test_faces_pairs_and_lists_are_those_of_the_files(root: Path) -> None:
    found = read_ijb(root)
    members = [line.split() for line in (root / "meta" / "ijbc_face_tid_mid.txt").read_text().splitlines()]
    points = [line.split() for line in (root / "meta" / "ijbc_name_5pts_score.txt").read_text().splitlines()]
    assert [list(row) for row in zip(found.faces.images, found.faces.templates, found.faces.media, strict=True)] == [
        [image, int(template), int(medium)] for image, template, medium in members
    ]
    np.testing.assert_allclose(found.faces.landmarks.reshape(-1, 10), [[*map(float, row[1:-1])] for row in points])
    np.testing.assert_allclose(found.faces.scores, [float(row[-1]) for row in points])
    known = np.unique(found.faces.templates)
    for block in (3, 8, 1000):
        parts = list(read_template_pairs(found.pairs, known, block))
        first, second, same = (np.concatenate(column) for column in zip(*parts, strict=True))
        lines = [[*map(int, line.split())] for line in found.pairs.read_text().splitlines()]
        assert np.stack([known[first], known[second], same], 1).tolist() == lines
        assert max(len(part[0]) for part in parts) <= block
    assert found.galleries["S1"].templates.tolist() == [1, 21]
    assert found.galleries["S2"].people.tolist() == [1, 3]
    assert found.probes is not None
    assert len(found.probes.templates) == 8
    assert set(found.sha256) == {path.name for path in (root / "meta").iterdir()}


def test_ijb_b_and_lists_beside_the_pictures_are_found(tmp_path: Path) -> None:
    root = write_ijb(tmp_path / "IJBB", people=4, name="ijbb")
    for path in (root / "meta").iterdir():
        path.rename(root / path.name.replace("G1", "S1").replace("G2", "S2"))
    (root / "meta").rmdir()
    found = read_ijb(root)
    assert (found.name, sorted(found.galleries)) == ("ijbb", ["S1", "S2"])
    for path in root.glob("*1N*"):
        path.unlink()
    found = read_ijb(root)
    assert (found.galleries, found.probes) == ({}, None)


def change(name: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / "meta" / f"ijbc_{name}"
        file.write_text(edit(file.read_text()))

    return apply


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda root: (root / "meta" / "ijbc_face_tid_mid.txt").unlink(), "no ijbc_face_tid_mid.txt"),
        (lambda root: (root / "meta" / "ijbc_template_pair_label.txt").unlink(), "label.txt: no such file"),
        (lambda root: (root / "meta" / "ijbc_1N_gallery_G2.csv").unlink(), "but ijbc_1N_gallery_G1.csv is there"),
        (lambda root: (root / "loose_crop").rename(root / "crops"), "no folder loose_crop"),
        (change("face_tid_mid.txt", lambda text: text[text.index("\n") + 1 :]), "line 1 names other images"),
        (change("face_tid_mid.txt", lambda text: text + "9.jpg 1 2\n"), "and [0-9]+ lines"),
        (change("face_tid_mid.txt", lambda text: "1.jpg\n" + text), "line 1: expected an image and 2 numbers"),
        (change("face_tid_mid.txt", lambda text: text.replace(" ", " x", 1)), "copy it again"),
        (change("name_5pts_score.txt", lambda text: text.replace(".", "..", 3)), "copy it again"),
        (change("name_5pts_score.txt", lambda text: "\n" + text), "line 1: expected an image and 11 numbers"),
        (change("1N_gallery_G1.csv", lambda text: text + "1,77,x,1\n"), "template 1 shows two people"),
        (change("1N_gallery_G1.csv", lambda text: text + "5,77,x,1\n"), "template 5 has no face"),
        (change("1N_probe_mixed.csv", lambda text: text.splitlines()[0] + "\n"), "no line below the header"),
    ],
)
def test_a_copy_that_is_not_whole_is_refused(root: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(root)
    with pytest.raises(DataError, match=says) as refused:
        read_ijb(root)
    assert "\n" not in str(refused.value)


def test_paths_out_of_the_folder_and_landmarks_that_are_none_are_refused(root: Path) -> None:
    files = [root / "meta" / f"ijbc_{name}.txt" for name in ("face_tid_mid", "name_5pts_score")]
    before = [file.read_text() for file in files]
    first = before[0].split()[0]
    for file, text in zip(files, before, strict=True):
        file.write_text(text.replace(first, "../secret.jpg", 1))
    with pytest.raises(DataError, match="leads outside"):
        read_ijb(root)
    files[0].write_text(before[0])
    files[1].write_text(f"{first} {'7 ' * 10}0.5\n" + before[1].split("\n", 1)[1])
    with pytest.raises(DataError, match="line 1: expected five points and a score"):
        read_ijb(root)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no pairs"),
        ("1 2 1\n1 2\n", "columns changed"),
        ("1 2 1\n1 x 1\n", "could not convert"),
        ("1 2 2\n", "LABEL 1 or 0"),
        ("1 2 1\n1 9 0\n", "template 9 has no face"),
        ("1 2\n", "expected lines TEMPLATE TEMPLATE LABEL"),
    ],
)
def test_pairs_that_are_none_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=says):
        list(read_template_pairs(tmp_path / "pairs.txt", np.array([1, 2, 3])))
