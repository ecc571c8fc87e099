"""Drawn tracks: clips of drawn people in which some frames are blurred, covered, or dark and noisy.

Frame f of track t of person i is the same picture for the same seed, however many are drawn. Pose, light, expression
and dress are half those of the clip and half those of the frame. Damage is drawn for each frame independently, so no
place in a track is special. Half of the tracks are mostly good, half mostly bad.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from facenet.data.drawn.faces import NAME, draw_or_read, hash_of
from facenet.data.drawn.people import COVERS, NAMES, sample_picture
from facenet.data.drawn.render import render
from facenet.data.options import CLIP, DrawnTrackOptions
from facenet.data.records import Records
from facenet.data.tracks import Tracks, TrackSplits, group_tracks
from facenet.files import default_cache
from facenet.types import Progress

VERSION = 1  # raise it when frames change: what older versions cached is then drawn again
SHARED = 0.5  # share of a clip's own pose, light, expression and dress in each of its frames
SPREAD = 0.7  # bad and good tracks lie this far above and below `damage`, of the largest possible


class _Frame(NamedTuple):
    person: int
    clip: int
    number: int
    damaged: bool


def draw_tracks(
    options: DrawnTrackOptions,
    people: range,
    *,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Tracks:
    """Draw ``options.tracks`` clips of each person.

    A track is "bad" or "good" by the toss of a coin. Its frames are damaged with the chance ``damage + s`` or
    ``damage - s``, s = 0.7 min(damage, 1 - damage).

    Args:
        options: Number, length, size, difficulty, damage and seed of the clips.
        people: Numbers of the persons, from 0; see :func:`facenet.data.drawn.faces.draw`.
        cache_dir: Folder that keeps the frames as one memory-mapped array; None draws them each time.
        progress: Called with (drawn, N).

    Raises:
        DataError: `cache_dir` can not be written.
    """
    size, difficulty, seed = options.size, options.difficulty, options.seed
    plan, kinds = _plan(people, options.tracks, options.frames, options.damage, seed)
    images = draw_or_read(
        len(plan),
        size,
        lambda part: _draw_batch(plan[part], seed, difficulty, size),
        name=f"tracks_{hash_of([VERSION, size, difficulty, seed, plan])}.npy",
        cache_dir=cache_dir,
        progress=progress,
    )
    keys = [f"{NAME.format(person=frame.person)}/track_{frame.clip:02d}" for frame in plan]
    paths = tuple(f"{key}/{frame.number + 1:04d}.png" for key, frame in zip(keys, plan, strict=True))
    names = tuple(key.split("/")[0] for key in keys)
    return group_tracks(Records.of(paths, names, "", images), kinds)


def draw_splits(options: DrawnTrackOptions, *, progress: Progress | None = None) -> TrackSplits:
    """Draw tracks of three consecutive ranges of people, so that nobody is in two of them; frames are cached.

    Raises:
        DataError: as :func:`draw_tracks`.
    """
    cache_dir = options.cache_dir or default_cache()
    parts = [draw_tracks(options, people, cache_dir=cache_dir, progress=progress) for people in _ranges(options)]
    return TrackSplits(*parts)


def draw_reported(options: DrawnTrackOptions, *, progress: Progress | None = None) -> Tracks:
    """Draw the evaluation tracks of :func:`draw_splits` alone.

    Raises:
        DataError: as :func:`draw_tracks`.
    """
    return draw_tracks(options, _ranges(options)[2], cache_dir=options.cache_dir or default_cache(), progress=progress)


def _ranges(options: DrawnTrackOptions) -> list[range]:
    """Return the numbers of the people to train on, to choose by, and to report on."""
    found, first = [], options.first_identity
    for count in (options.train_identities, options.held_out_identities, options.evaluation_identities):
        found.append(range(first, first + count))
        first += count
    return found


def _plan(
    people: range, tracks: int, frames: tuple[int, int], damage: float, seed: int
) -> tuple[list[_Frame], dict[str, str]]:
    """List the N frames in order, and the kind of each track by its key."""
    plan: list[_Frame] = []
    kinds = {}
    reach = SPREAD * min(damage, 1 - damage)
    for person in people:
        for clip in range(tracks):
            rng = _rng(seed, person, clip)
            bad = bool(rng.random() < 0.5)
            kinds[f"{NAME.format(person=person)}/track_{clip:02d}"] = "bad" if bad else "good"
            length = int(rng.integers(frames[0], frames[1] + 1))
            damaged = rng.random(length) < damage + (reach if bad else -reach)
            plan += [_Frame(person, clip, number, bool(hit)) for number, hit in enumerate(damaged)]
    return plan, kinds


def _draw_batch(part: list[_Frame], seed: int, difficulty: float, size: int) -> np.ndarray:
    mixed, grain = [], []
    fixed = [NAMES.index(name) for name in COVERS]  # worn through the whole clip, or not at all
    for frame in part:
        first = CLIP * (frame.clip + 1)  # clip t takes the pictures from CLIP * (t + 1) on
        clip = sample_picture(seed, frame.person, first, difficulty).values
        own = sample_picture(seed, frame.person, first + 1 + frame.number, difficulty)
        values = SHARED * clip + (1 - SHARED) * own.values
        values[fixed] = clip[fixed]
        mixed.append(values)
        grain.append(own.rng.standard_normal((size, size), np.float32))
    table = np.stack(mixed, 1).astype(np.float32)[..., None, None]
    images = render(dict(zip(NAMES, table, strict=True)), np.stack(grain))
    for image, frame in zip(images, part, strict=True):
        if frame.damaged:
            image[:] = damage_frame(image, _rng(seed, frame.person, frame.clip, frame.number + 1))
    return images


def _rng(seed: int, person: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, person, 77, *numbers]))


def damage_frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Damage one frame (H, W, 3) uint8 so that it is hard to recognise: blur, cover, or darken it with noise."""
    return DAMAGE[int(rng.integers(len(DAMAGE)))](image, rng)


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale down to 6 to 12 pixels and up again, or smear by a fifth to two fifths of the width."""
    side = len(image)
    if rng.random() < 0.5:
        small = int(rng.integers(6, 13))
        picture = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
        return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    reach, axis = int(side * rng.uniform(0.2, 0.4)), int(rng.integers(2))
    shifted = [np.roll(image, step - reach // 2, axis) for step in range(reach)]
    return np.mean(shifted, 0).astype(np.uint8)


def cover(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint a third to two thirds of the picture over: a bar from one of its sides, or a patch in the middle."""
    side, share = len(image), rng.uniform(1 / 3, 2 / 3)
    out = image.copy()
    place = int(rng.integers(5))
    width = round(side * share)
    if place == 4:
        width = round(side * share**0.5)
        top, left = rng.integers(0, side - width + 1, 2)
        part = out[top : top + width, left : left + width]
    else:
        part = (out[:width], out[side - width :], out[:, :width], out[:, side - width :])[place]
    part[:] = np.clip(rng.uniform(0, 255, 3) + rng.normal(0, 12, part.shape), 0, 255)
    return out


def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take away 75 to 92 % of the light and add the noise of a sensor at its highest gain."""
    gain, noise = rng.uniform(0.08, 0.25), rng.uniform(10, 30)
    return np.clip(image * gain + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


DAMAGE = (blur, cover, darken)
