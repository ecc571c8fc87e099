from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facenet.data.cache import decode_faces, pack, packed_bytes, readable
from facenet.data.options import LoaderOptions
from facenet.data.preprocess import Preprocess
from facenet.data.records import NothingUsable
from facenet.data.sources.folder import scan_folder
from facenet.errors import DataError
from tests.helpers.pictures import write_tree

PREPROCESS = Preprocess(size=(32, 32), crop=0.8)


def test_pack_holds_what_the_preprocessing_gives(face_tree: Path) -> None:
    records = scan_folder(face_tree)
    calls: list[tuple[int, int]] = []
    images, kept = pack(records, PREPROCESS, progress=lambda done, total: calls.append((done, total)))
    assert images.shape == (120, 3, 32, 32)
    assert images.nbytes == packed_bytes(records, PREPROCESS)
    assert kept is records
    assert calls[-1] == (120, 120)
    row = PREPROCESS.normalise(torch.from_numpy(images[7:8]))
    np.testing.assert_array_equal(row, PREPROCESS([face_tree / records.paths[7]]))


def test_broken_images_are_dropped_and_listed(tmp_path: Path) -> None:
    write_tree(tmp_path, 3, 2)
    (tmp_path / "p001" / "p001_0001.png").write_bytes(b"not an image")
    for folder in (None, tmp_path / "cache"):
        for _ in range(2):  # the second run must list it again
            records = scan_folder(tmp_path)
            images, kept = pack(records, PREPROCESS, folder=folder)
            assert len(images) == len(kept) == 5
            assert kept.skipped[0].path == "p001/p001_0001.png"
            np.testing.assert_array_equal(images[2], pack(kept, PREPROCESS)[0][2])
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="no image could be read"):
        pack(scan_folder(tmp_path), PREPROCESS)


def test_disk_cache_is_found_again_and_follows_its_sources(tmp_path: Path) -> None:
    write_tree(tmp_path / "faces", 3, 2)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".0123.npy.abcdefgh.tmp").write_bytes(b"of a killed run")
    first, _ = pack(scan_folder(tmp_path / "faces"), PREPROCESS, folder=cache)
    assert len(list(cache.glob("*.npy"))) == 1
    first = np.array(first)
    (file,) = cache.glob("*.npy")
    stamp = file.stat().st_mtime_ns
    again, _ = pack(scan_folder(tmp_path / "faces"), PREPROCESS, folder=cache)
    assert file.stat().st_mtime_ns == stamp
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(first, again)
    file.write_bytes(file.read_bytes()[:-50])  # damaged: decoded again
    np.testing.assert_array_equal(pack(scan_folder(tmp_path / "faces"), PREPROCESS, folder=cache)[0], first)
    pack(scan_folder(tmp_path / "faces"), PREPROCESS, margin=1.25, folder=cache)
    assert len(list(cache.glob("*.npy"))) == 2, "another margin, another file"
    write_tree(tmp_path / "faces", 3, 2, side=52)
    pack(scan_folder(tmp_path / "faces"), PREPROCESS, folder=cache)
    assert len(list(cache.glob("*.npy"))) == 3, "changed files, another file"


def test_the_disk_cache_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    faces = scan_folder(write_tree(tmp_path / "faces", 2, 2))
    decode_faces(faces, faces, Preprocess(size=(16, 16)), LoaderOptions(cache="disk"))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_flipped_pixel_in_the_cache_is_noticed(tmp_path: Path) -> None:
    records, preprocess = scan_folder(write_tree(tmp_path / "faces", 2, 2)), Preprocess(size=(32, 32))
    first = np.array(pack(records, preprocess, folder=tmp_path / "cache")[0])
    kept = next((tmp_path / "cache").glob("*.npy"))
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    np.testing.assert_array_equal(pack(records, preprocess, folder=tmp_path / "cache")[0], first)


def test_readable_drops_what_packing_drops_and_keeps_no_pixels(tmp_path: Path) -> None:
    write_tree(tmp_path, 3, 2)
    (tmp_path / "p001" / "p001_0001.png").write_bytes(b"not an image")
    records = scan_folder(tmp_path)
    kept = readable(records, PREPROCESS)
    assert (kept.paths, kept.skipped) == (pack(records, PREPROCESS)[1].paths, pack(records, PREPROCESS)[1].skipped)
    assert kept.images is None
    assert kept.skipped[0].reason.startswith("not a readable image (")
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(NothingUsable) as caught:
        readable(scan_folder(tmp_path), PREPROCESS)
    assert len(caught.value.skipped) == 6


def test_a_file_that_goes_before_it_is_packed_is_listed(tmp_path: Path) -> None:
    write_tree(tmp_path / "faces", 3, 2)
    records = scan_folder(tmp_path / "faces")
    (tmp_path / "faces" / records.paths[0]).unlink()
    _, kept = pack(records, PREPROCESS, folder=tmp_path / "cache")
    assert kept.skipped == ((records.paths[0], "no such file"),)
