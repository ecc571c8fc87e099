"""Drawn identities, the embedded default data set: deterministic from a seed, no download, no torch.

Person i of a seed is always the same person, and picture j of that person the same picture, however many are
drawn; training, checkpoint choice and evaluation take disjoint ranges of `first_identity`.
Letters: N pictures, P identities, B pictures drawn together, H = W side in pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from facenet.data.drawn.people import NAMES, image_count, sample_picture
from facenet.data.drawn.render import Noise, render
from facenet.errors import ConfigError
from facenet.files import read_cached_array, write_cached_array
from facenet.interrupts import thread_pool
from facenet.types import Progress

VERSION = 1  # raise it when pictures change: what older versions cached is then drawn again
BATCH = 8  # pictures drawn together: their arrays fit a core's second-level cache
NAME = "{prefix}_{person:04d}"


class SyntheticFaces(NamedTuple):
    """N drawn faces, ordered by person and picture."""

    images: np.ndarray  # (N, H, W, 3) uint8 RGB
    identities: np.ndarray  # (N,) str, for example "person_0007"
    numbers: np.ndarray  # (N,) int64, which picture of the person, from 0

    @property
    def paths(self) -> list[str]:
        """Names in the manner of LFW: ``person_0007/person_0007_0001.jpg``."""
        rows = zip(self.identities, self.numbers, strict=True)
        return [f"{name}/{name}_{number + 1:04d}.jpg" for name, number in rows]


def draw(
    *,
    identities: int,
    images_per_identity: int | tuple[int, int],
    size: int = 80,
    difficulty: float = 0.5,
    seed: int = 0,
    first_identity: int = 0,
    prefix: str = "person",
    workers: int | None = None,
    progress: Progress | None = None,
) -> SyntheticFaces:
    """Draw people `first_identity` to ``first_identity + identities - 1``.

    Args:
        identities: P, at least 1.
        images_per_identity: Pictures of each person, or (least, most) for a number fixed by the person; with
            least = 1 some people have a single picture and serve as negatives.
        size: H = W in pixels, at least 32.
        difficulty: How far pose, light, expression, covers, background and camera reach, in [0, 1].
        seed: Which world of people; at least 0.
        first_identity: Number of the first person; at least 0.
        prefix: Of the names, ``prefix_0007``; it does not change the pictures.
        workers: Threads (numpy sets them free while it computes); by default one for each core, at most 8.
        progress: Called with (drawn, N) after each batch, from the calling thread.

    Raises:
        ConfigError: an argument is out of range.
    """
    plan = _plan(identities, images_per_identity, size, difficulty, seed, first_identity, workers)
    images = draw_in_batches(
        len(plan), size, lambda part: _draw_batch(plan[part], seed, difficulty, size), workers, progress
    )
    return SyntheticFaces(images, *_columns(plan, prefix))


def draw_in_batches(
    count: int, size: int, render_part: Callable[[slice], np.ndarray], workers: int | None, progress: Progress | None
) -> np.ndarray:
    """Fill (N, H, W, 3) uint8 in threads, `BATCH` pictures at a time: ``render_part(slice)`` gives those of a slice."""
    images = np.empty((count, size, size, 3), np.uint8)

    def one(start: int) -> int:
        part = slice(start, min(start + BATCH, count))
        images[part] = render_part(part)
        return part.stop - part.start

    done = 0
    with thread_pool(workers or min(8, os.cpu_count() or 1)) as pool:
        for job in as_completed([pool.submit(one, start) for start in range(0, count, BATCH)]):
            done += job.result()
            if progress:
                progress(done, count)
    return images


def default_cache() -> Path:
    """Return where drawn pictures are kept when nobody says where."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "facenet"


def load_or_draw(
    cache_dir: str | Path,
    *,
    identities: int,
    images_per_identity: int | tuple[int, int],
    size: int = 80,
    difficulty: float = 0.5,
    seed: int = 0,
    first_identity: int = 0,
    prefix: str = "person",
    workers: int | None = None,
    progress: Progress | None = None,
) -> SyntheticFaces:
    """Do what :func:`draw` does, but keep the pictures in `cache_dir` as one packed array, memory-mapped.

    The file's name is a hash of the arguments that matter and of `VERSION`, its SHA-256 lies beside it;
    what is damaged or foreign is drawn again.

    Raises:
        ConfigError: an argument is out of range.
        DataError: `cache_dir` can not be written.
    """
    plan = _plan(identities, images_per_identity, size, difficulty, seed, first_identity, workers)
    target = Path(cache_dir) / f"synthetic_{_key(plan, size, difficulty, seed)}.npy"
    shape = (len(plan), size, size, 3)
    images = read_cached_array(target, shape, np.uint8, mode="c")
    if images is None:
        faces = draw(
            identities=identities,
            images_per_identity=images_per_identity,
            size=size,
            difficulty=difficulty,
            seed=seed,
            first_identity=first_identity,
            workers=workers,
            progress=progress,
        )
        write_cached_array(target, faces.images)
        images = read_cached_array(target, shape, np.uint8, mode="c")
    return SyntheticFaces(faces.images if images is None else images, *_columns(plan, prefix))


def write_folder(faces: SyntheticFaces, root: str | Path, *, quality: int = 95) -> list[Path]:
    """Write one folder of JPEG files for each person, named as in LFW, and return the files' paths."""
    files = [Path(root) / path for path in faces.paths]
    for file, image in zip(files, faces.images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return files


def _plan(
    identities: int,
    per: int | tuple[int, int],
    size: int,
    difficulty: float,
    seed: int,
    first: int,
    workers: int | None,
) -> list[tuple[int, int]]:
    """Check the arguments and list (person, picture) of the N pictures."""
    _at_least("identities", identities, 1, "ask for one person or more")
    _at_least("size", size, 32, "smaller faces show no features; draw larger and scale down")
    _at_least("seed", seed, 0, "any number from 0 on names a world of people")
    _at_least("first_identity", first, 0, "people are numbered from 0")
    if workers is not None:
        _at_least("workers", workers, 1, "give None for one thread per core")
    least, most = per if isinstance(per, tuple) and len(per) == 2 else (per, per)
    _at_least("images_per_identity", least, 1, "a person needs a picture")
    _at_least("images_per_identity", most, least, "give (least, most) in this order")
    if not 0 <= difficulty <= 1:
        raise ConfigError(f"difficulty: expected a number in [0, 1], got {difficulty!r}; the default is 0.5")
    people = range(first, first + identities)
    return [(person, image) for person in people for image in range(image_count(seed, person, least, most))]


def _at_least(name: str, value: object, least: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}; {remedy}")


def _columns(plan: list[tuple[int, int]], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    names = np.array([NAME.format(prefix=prefix, person=person) for person, _ in plan])
    return names, np.array([image for _, image in plan], np.int64)


def _draw_batch(part: list[tuple[int, int]], seed: int, difficulty: float, size: int) -> np.ndarray:
    pictures = [sample_picture(seed, person, image, difficulty) for person, image in part]
    values = np.stack([picture.values for picture in pictures], 1).astype(np.float32)[..., None, None]
    grain = np.stack([picture.rng.standard_normal((size, size), np.float32) for picture in pictures])
    return render(dict(zip(NAMES, values, strict=True)), Noise(grain))


def _key(plan: list[tuple[int, int]], size: int, difficulty: float, seed: int) -> str:
    content = json.dumps([VERSION, size, float(difficulty), seed, plan])
    return hashlib.sha256(content.encode()).hexdigest()[:24]
