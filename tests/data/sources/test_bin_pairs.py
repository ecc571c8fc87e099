"""A .bin set becomes a folder of images and pairs once, bytes as they are, and says of which file it is."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.data.options import DataOptions
from facenet.data.pair_files import source_of_pairs, unpack_pairs
from facenet.data.pairs import read_pairs
from facenet.data.records import Records
from facenet.data.reported import reported_faces
from facenet.data.sources import bin_pairs
from facenet.data.sources.bin_pairs import TABLE, convert_bin, read_bin, source_of, unpacked
from facenet.data.sources.folder import read_alignment
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError, DataError
from facenet.evaluation.verification import score_pairs, verify_embeddings
from facenet.faces.alignment import Alignment
from tests.helpers.bin_sets import write_bin, write_values
from tests.helpers.encoders import make
from tests.helpers.pictures import blob


def encoded(number: int, kind: str = "JPEG", side: int = 48) -> bytes:
    file = io.BytesIO()
    Image.fromarray(blob(number, 0, side)).save(file, kind)
    return file.getvalue()


IMAGES = [encoded(number, ("JPEG", "PNG", "WEBP", "BMP")[number % 4]) for number in range(26)]
IMAGES[7] = IMAGES[2]
SAME = [number % 3 == 0 for number in range(13)]


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    return write_values(tmp_path / "lfw.bin", IMAGES, SAME)


def test_images_keep_their_bytes_and_pairs_their_order(lfw: Path, tmp_path: Path) -> None:
    folder = convert_bin(lfw, tmp_path / "a" / "out")
    files = {path.stem: path for path in (folder / "images").iterdir()}
    assert len(files) == 25, "an image that occurs twice is one file"
    assert {path.suffix for path in files.values()} == {".jpg", ".png", ".webp", ".bmp"}
    pairs = read_pairs(folder / TABLE)
    found = [files[key].read_bytes() for pair in zip(pairs.first, pairs.second, strict=True) for key in pair]
    assert found == IMAGES
    assert pairs.same.tolist() == SAME
    assert pairs.fold.tolist() == [0, 0, 1, 1, 2, 2, *range(3, 10)], "as KFold cuts them"
    source = source_of(folder / TABLE)
    assert source == ("lfw.bin", hashlib.sha256(lfw.read_bytes()).hexdigest())
    assert read_alignment(folder / "images") is None
    assert [path.name for path in folder.parent.iterdir()] == ["out"], "nothing half written is left"


def test_faces_of_112_pixels_are_marked_as_aligned(tmp_path: Path) -> None:
    file = write_values(tmp_path / "a.bin", [encoded(number, side=112) for number in range(20)], [True, False] * 5)
    assert read_alignment(convert_bin(file, tmp_path / "a") / "images") == Alignment(margin=1.0, size=112)


def test_the_same_set_is_left_as_it_is_and_another_is_refused(lfw: Path, tmp_path: Path) -> None:
    folder = convert_bin(lfw, tmp_path / "out")
    before = (folder / TABLE).stat().st_mtime_ns
    assert convert_bin(lfw, folder) == folder
    assert (folder / TABLE).stat().st_mtime_ns == before
    other = write_values(tmp_path / "other.bin", IMAGES, [not same for same in SAME])
    with pytest.raises(DataError, match="holds other files"):
        convert_bin(other, folder)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        convert_bin(lfw, tmp_path / "own")
    assert len(list((tmp_path / "own").iterdir())) == 1


@pytest.mark.parametrize("damage", ["image", "pairs", "more"])
def test_a_folder_that_was_changed_is_not_of_the_file(lfw: Path, tmp_path: Path, damage: str) -> None:
    folder = convert_bin(lfw, tmp_path / "out")
    if damage == "pairs":
        (folder / TABLE).write_text((folder / TABLE).read_text().replace(",1,", ",0,", 1))
    else:
        (folder / "images" / ("000000.jpg" if damage == "image" else "x.jpg")).write_bytes(IMAGES[4])
    with pytest.raises(DataError, match=r"source.json tells of; delete this folder, and give lfw.bin again"):
        source_of(folder / TABLE)


@pytest.mark.parametrize(
    ("images", "same", "says"),
    [
        (IMAGES[:19], [True] * 10, "19 images for 10 pairs"),
        (IMAGES[:18], [True] * 9, "18 images for 9 pairs"),
        (IMAGES[:20], [True] * 9 + [2], "truth values"),
        ([*IMAGES[:19], 7], [True] * 10, "not encoded"),
        ([*IMAGES[:19], np.zeros((5, 5), np.uint8)], [True] * 10, "not encoded"),
        ([*IMAGES[:19], b"text"], [True] * 10, "image 19 of 20: picture: not a readable image"),
        ([*IMAGES[:19], b""], [True] * 10, "image 19 of 20"),
    ],
)
def test_what_is_no_set_is_refused_in_one_line(tmp_path: Path, images: list, same: list, says: str) -> None:
    file = write_values(tmp_path / "a.bin", images, same)
    with pytest.raises(DataError, match=says) as refused:
        convert_bin(file, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert str(file) in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_large_file_is_refused_before_it_is_read(lfw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bin_pairs, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="more than the 1,000"):
        read_bin(lfw)


def test_options_that_name_a_set_name_its_folder_in_the_cache(lfw: Path, tmp_path: Path) -> None:
    data = unpack_pairs(DataOptions(kind="folder", pairs=str(lfw), cache_dir=str(tmp_path / "cache")))
    assert data.root == str(unpacked(lfw, tmp_path / "cache"))
    faces, pairs = reported_faces(data)
    assert (len(faces), len(pairs), set(faces.identities)) == (25, 13, {""})
    assert source_of_pairs(data) == source_of(f"{data.root}/{TABLE}")
    assert source_of_pairs(DataOptions(kind="folder", root=str(tmp_path), pairs=str(data.pairs))) is None
    plain = DataOptions(kind="folder", root="faces", pairs="pairs.csv")
    assert unpack_pairs(plain) is plain
    with pytest.raises(ConfigError, match=r"leave data.root out"):
        unpack_pairs(DataOptions(kind="folder", root="faces", pairs=str(lfw)))
    with pytest.raises(DataError, match=r"gone.bin: can not be read"):
        unpack_pairs(DataOptions(kind="folder", pairs=str(tmp_path / "gone.bin")))


def check_lfw(root: Path, tmp_path: Path, each: int) -> None:
    """Score the first same and different pairs of each fold as they are, and as a .bin set."""
    every, encoder = read_pairs(root / "protocol" / "pairs.txt"), make(crop=0.6)
    pairs = every.subset([row for row in range(len(every)) if row % 300 < each])
    keys = sorted({*pairs.first, *pairs.second})
    faces = Records.of([f"{key}.jpg" for key in keys], [""] * len(keys), root=str(root / "images"))
    write_bin(tmp_path / "lfw.bin", pairs, root / "images", protocol=2)
    data = unpack_pairs(DataOptions(kind="folder", pairs=str(tmp_path / "lfw.bin"), cache_dir=str(tmp_path)))
    others, named = reported_faces(data)
    (given, _), (unpacked_, _) = (embed_records(encoder, records) for records in (faces, others))
    assert len(others) == len(faces)
    assert verify_embeddings(given, pairs) == verify_embeddings(unpacked_, named)
    assert np.array_equal(score_pairs(given, pairs).sq_dist, score_pairs(unpacked_, named).sq_dist)


def test_lfw_as_a_bin_set_scores_as_its_pairs_file(lfw_root: Path, tmp_path: Path) -> None:
    check_lfw(lfw_root, tmp_path, 4)


@pytest.mark.slow  # embeds all faces of LFW's pairs twice
def test_all_of_lfw_as_a_bin_set_scores_as_its_pairs_file(lfw_root: Path, tmp_path: Path) -> None:
    check_lfw(lfw_root, tmp_path, 300)
