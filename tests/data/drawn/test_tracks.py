from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.drawn import tracks as synthetic_tracks
from facenet.data.drawn.tracks import blur, cover, damage_frame, darken, draw_reported, draw_splits, draw_tracks
from facenet.data.options import DrawnTrackOptions
from facenet.data.records import write_images
from facenet.data.tracks import Tracks, scan_tracks
from facenet.errors import ConfigError

SMALL = DrawnTrackOptions(tracks=3, frames=(2, 5), size=32)


@pytest.fixture(scope="module")
def drawn() -> Tracks:
    return draw_tracks(SMALL, range(70, 73))


def test_a_seed_gives_the_same_tracks_however_many_are_drawn(drawn: Tracks) -> None:
    again = draw_tracks(SMALL, range(71, 72))
    part = drawn.of_people(["person_0071"])
    assert (again.keys, again.kinds) == (part.keys, part.kinds)
    np.testing.assert_array_equal(again.frames.images, part.frames.images)
    other = draw_tracks(replace(SMALL, seed=1), range(71, 72))
    assert other.frames.images is not None
    assert again.frames.images is not None
    assert not np.array_equal(other.frames.images[0], again.frames.images[0])


def test_lengths_and_names(drawn: Tracks) -> None:
    assert drawn.keys[:2] == ("person_0070/track_00", "person_0070/track_01")
    assert drawn.frames.paths[0] == "person_0070/track_00/0001.png"
    assert drawn.lengths.min() >= 2
    assert drawn.lengths.max() <= 5
    assert len(drawn) == 9
    assert set(drawn.kinds) <= {"good", "bad"}


def test_damage_is_as_frequent_as_asked_and_spares_no_place() -> None:
    plan, kinds = synthetic_tracks._plan(range(300), 4, (4, 24), 0.5, 0)
    damaged = np.array([frame.damaged for frame in plan])
    kind = np.array([kinds[f"person_{frame.person:04d}/track_{frame.clip:02d}"] for frame in plan])
    assert abs(damaged.mean() - 0.5) < 0.02
    assert abs(damaged[kind == "bad"].mean() - 0.85) < 0.02
    assert abs(damaged[kind == "good"].mean() - 0.15) < 0.02
    last = np.array([(a.person, a.clip) != (b.person, b.clip) for a, b in pairwise(plan)] + [True])
    assert abs(damaged[last].mean() - damaged.mean()) < 0.05
    none, _ = synthetic_tracks._plan(range(20), 2, (4, 24), 0.0, 0)
    assert not any(frame.damaged for frame in none)


def test_damaged_frames_are_the_planned_ones() -> None:
    clean = draw_tracks(replace(SMALL, damage=0.0), range(70, 72)).frames.images
    spoilt = draw_tracks(SMALL, range(70, 72)).frames.images
    plan, _ = synthetic_tracks._plan(range(70, 72), 3, (2, 5), 0.5, 0)
    assert clean is not None
    assert spoilt is not None
    changed = [not np.array_equal(a, b) for a, b in zip(clean, spoilt, strict=True)]
    assert changed == [frame.damaged for frame in plan]
    assert 0 < sum(changed) < len(changed)
    row = changed.index(True)
    luck = synthetic_tracks._rng(0, plan[row].person, plan[row].clip, plan[row].number + 1)
    np.testing.assert_array_equal(spoilt[row], damage_frame(clean[row], luck))


@pytest.mark.parametrize("seed", range(6))
def test_each_damage_does_what_it_says(seed: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    covered = cover(image, np.random.default_rng(seed))
    share = (covered != image).any(2).mean()
    assert 0.28 < share < 0.7, "a third to two thirds"
    sharp = np.abs(np.diff(blur(image, np.random.default_rng(seed)).astype(float), axis=0)).mean()
    smear = np.abs(np.diff(blur(image, np.random.default_rng(seed)).astype(float), axis=1)).mean()
    assert min(sharp, smear) < 0.3 * np.abs(np.diff(image.astype(float), axis=0)).mean()
    assert darken(image, np.random.default_rng(seed)).mean() < 0.4 * image.mean()
    np.testing.assert_array_equal(
        damage_frame(image, np.random.default_rng(seed)), damage_frame(image, np.random.default_rng(seed))
    )


def test_the_folder_reader_reads_drawn_tracks(drawn: Tracks, tmp_path: Path) -> None:
    write_images(drawn.frames, tmp_path)
    read = scan_tracks(tmp_path)
    assert (read.keys, read.frames.paths) == (drawn.keys, drawn.frames.paths)


def test_cached_frames_are_the_same_and_damaged_files_are_drawn_again(drawn: Tracks, tmp_path: Path) -> None:
    for _ in range(2):
        kept = draw_tracks(SMALL, range(70, 73), cache_dir=tmp_path)
        np.testing.assert_array_equal(kept.frames.images, drawn.frames.images)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-40])
    again = draw_tracks(SMALL, range(70, 73), cache_dir=tmp_path)
    np.testing.assert_array_equal(again.frames.images, drawn.frames.images)


def test_the_splits_share_nobody(tmp_path: Path) -> None:
    counts = {"train_identities": 2, "held_out_identities": 1, "evaluation_identities": 2}
    splits = draw_splits(replace(SMALL, **counts, first_identity=70, cache_dir=str(tmp_path)))
    assert [part.names for part in splits] == [
        ["person_0070", "person_0071"],
        ["person_0072"],
        ["person_0073", "person_0074"],
    ]
    alone = draw_reported(replace(SMALL, **counts, first_identity=70, cache_dir=str(tmp_path)))
    np.testing.assert_array_equal(alone.frames.images, splits.evaluation.frames.images)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_identities": 0},
        {"frames": (0, 3)},
        {"frames": (5, 2)},
        {"frames": (5,)},
        {"frames": (5, 1_001)},
        {"damage": 1.1},
        {"difficulty": -1},
        {"size": 31},
        {"seed": -1},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DrawnTrackOptions(**wrong)
