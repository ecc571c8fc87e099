from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.options import TrackDataOptions
from facenet.data.records import Records, write_images
from facenet.data.tracks import (
    group_tracks,
    pad,
    reported_tracks,
    scan_tracks,
    split_tracks,
)
from facenet.errors import ConfigError, DataError
from facenet.types import Pairs
from tests.helpers.tracks import made


def test_a_folder_gives_the_tracks_that_were_written(tmp_path: Path) -> None:
    tracks = made()
    write_images(tracks.frames, tmp_path)
    read = scan_tracks(tmp_path)
    assert (read.keys, read.identities, read.skipped) == (tracks.keys, tracks.identities, ())
    np.testing.assert_array_equal(read.lengths, tracks.lengths)
    assert read.frames.paths == tracks.frames.paths
    assert set(read.lengths.tolist()) == {3, 4}, "tracks of several lengths"


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = [f"ada/0/0.{number}.jpg" for number in (10, 9, 100, 1)] + ["ada/1/b.jpg", "ada/1/a2b.jpg", "ada/1/a10b.jpg"]
    tracks = group_tracks(Records.of(tuple(paths), ("ada",) * 7))
    names = [path.rsplit("/", 1)[1] for path in tracks.frames.paths]
    assert names == ["0.1.jpg", "0.9.jpg", "0.10.jpg", "0.100.jpg", "a2b.jpg", "a10b.jpg", "b.jpg"]
    assert tracks.keys == ("ada/0", "ada/1")
    assert tracks.starts.tolist() == [0, 4]


def test_what_is_no_track_is_listed(tmp_path: Path) -> None:
    write_images(made(2).frames, tmp_path)
    (tmp_path / "p00" / "nothing").mkdir()
    (tmp_path / "p00" / "hollow").mkdir()
    (tmp_path / "p00" / "hollow" / "f0.png").touch()
    (tmp_path / "p00" / "stray.png").write_bytes(b"x")
    (tmp_path / "p00" / "t0" / "notes.txt").write_text("not a frame")
    tracks = scan_tracks(tmp_path)
    assert len(tracks) == 4
    listed = {skipped.path: skipped.reason for skipped in tracks.skipped}
    assert set(listed) == {"p00/nothing", "p00/hollow", "p00/hollow/f0.png", "p00/stray.png"}
    assert "no usable frame" in listed["p00/nothing"]
    assert "<identity>/<track>/<frame>" in listed["p00/stray.png"]


def test_of_people_keeps_frames_with_their_tracks() -> None:
    tracks = made(4)
    part = tracks.of_people(["p03", "p01"])
    assert part.names == ["p01", "p03"]
    for row, key in enumerate(part.keys):
        paths = part.frames.paths[part.starts[row] : part.starts[row] + part.lengths[row]]
        assert len(paths) == part.lengths[row]
        assert all(path.startswith(f"{key}/") for path in paths)
    assert len(tracks.of_people([])) == 0


def test_splits_share_nobody_and_come_from_the_seed() -> None:
    tracks = made(20)
    splits = split_tracks(tracks, TrackDataOptions(seed=3))
    parts = [set(part.names) for part in splits]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 20
    assert [len(part) for part in parts] == [10, 4, 6]
    assert [part.names for part in split_tracks(tracks, TrackDataOptions(seed=3))] == [part.names for part in splits]
    assert [part.names for part in split_tracks(tracks, TrackDataOptions(seed=4))] != [part.names for part in splits]


def test_a_splits_file_decides(tmp_path: Path) -> None:
    rows = [f"p{i:02d},{'train' if i < 4 else 'held_out' if i < 8 else 'evaluation'}" for i in range(12)]
    (tmp_path / "s.csv").write_text("identity,split\n" + "\n".join(rows) + "\n")
    splits = split_tracks(made(14), TrackDataOptions(splits=str(tmp_path / "s.csv")))
    assert splits.train.names == ["p00", "p01", "p02", "p03"]
    assert splits.evaluation.names == ["p08", "p09", "p10", "p11"], "those it does not name are left out"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,part\n", "missing: identity, split"),
        ("identity,split\np00,tran\n", "unknown split 'tran'"),
        ("identity,split\np00,train\np00,evaluation\n", "two splits"),
        ("identity,split\np00,train\n", "too few"),
    ],
)
def test_a_wrong_splits_file_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        split_tracks(made(), TrackDataOptions(splits=str(tmp_path / "s.csv")))


def test_data_that_can_not_work_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan_tracks(tmp_path / "none")
    with pytest.raises(DataError, match="no usable image"):
        scan_tracks(tmp_path)
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "photo.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no track in it"):
        scan_tracks(tmp_path)
    with pytest.raises(DataError, match="one identity only"):
        split_tracks(made(1))
    with pytest.raises(DataError, match="too few"):
        split_tracks(made(9))
    with pytest.raises(DataError, match="too few"):
        split_tracks(made(12, tracks=1))
    with pytest.raises(DataError, match="no such file"):
        split_tracks(made(), TrackDataOptions(splits=str(tmp_path / "none.csv")))
    with pytest.raises(ConfigError, match="held_out"):
        split_tracks(made(), TrackDataOptions(held_out=1.0))


def test_pad_lays_frames_out_and_masks_the_rest() -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    padded, mask = pad(np.array([1, 3]), vectors)
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    np.testing.assert_array_equal(padded[mask], vectors)
    assert not padded[~mask].any()


def test_tracks_after_their_first_frames() -> None:
    tracks = made(4)
    short = tracks.first(2)
    assert set(short.lengths.tolist()) == {2}
    assert short.keys == tracks.keys
    assert short.frames.paths[:4] == ("p00/t0/f0.png", "p00/t0/f1.png", "p00/t1/f0.png", "p00/t1/f1.png")
    assert short.frames.images is not None
    assert tracks.frames.images is not None
    np.testing.assert_array_equal(short.frames.images[2], tracks.frames.images[3], "pixels go with their paths")
    assert tracks.first(100).frames.paths == tracks.frames.paths


def test_what_is_reported_is_named_by_pairs_or_by_the_splits_or_by_share(tmp_path: Path) -> None:
    tracks = made(16)
    same = np.array([True, False])
    pairs = Pairs(("p03/t1", "p05/t0"), ("p03/t0", "p03/t0"), same, np.arange(2))
    assert reported_tracks(tracks, pairs=pairs).keys == ("p03/t0", "p03/t1", "p05/t0")
    gone = Pairs(("p03/t1", "p99/t0"), ("p03/t0", "p03/t0"), same, np.arange(2))
    with pytest.raises(DataError, match=r"1 of 3 tracks .*first: p99/t0"):
        reported_tracks(tracks, pairs=gone)
    table = tmp_path / "splits.csv"
    table.write_text("identity,split\np01,evaluation\np02,train\np04,evaluation\n")
    assert reported_tracks(tracks, TrackDataOptions(splits=str(table))).names == ["p01", "p04"], "nobody else is needed"
    table.write_text("identity,split\np77,evaluation\n")
    with pytest.raises(DataError, match="nobody under evaluation"):
        reported_tracks(tracks, TrackDataOptions(splits=str(table)))
    by_share = reported_tracks(tracks, TrackDataOptions(seed=3))
    assert by_share.keys == split_tracks(tracks, TrackDataOptions(seed=3)).evaluation.keys
