"""Drawn identities, the embedded default data set: deterministic from a seed, no download, no torch.

Person i of a seed is always the same person. Picture j of that person is the same picture, however many are drawn.
Training, the choice of checkpoints and evaluation draw disjoint ranges of people.
Letters: N pictures, P identities, B pictures drawn together, H = W side in pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.data.drawn.people import NAMES, image_count, sample_picture
from facenet.data.drawn.render import render
from facenet.data.options import DrawnOptions
from facenet.files import read_cached_array, write_cached_array
from facenet.interrupts import thread_pool
from facenet.types import Progress

VERSION = 1  # raise it when pictures change: what older versions cached is then drawn again
BATCH = 8  # pictures drawn together: their arrays fit a core's second-level cache
NAME = "person_{person:04d}"


class SyntheticFaces(NamedTuple):
    """N drawn faces, ordered by person and picture."""

    images: np.ndarray  # (N, H, W, 3) uint8 RGB
    identities: np.ndarray  # (N,) str, for example "person_0007"
    numbers: np.ndarray  # (N,) int64, which picture of the person, from 0

    @property
    def paths(self) -> list[str]:
        """Return names as in LFW: ``person_0007/person_0007_0001.jpg``."""
        rows = zip(self.identities, self.numbers, strict=True)
        return [f"{name}/{name}_{number + 1:04d}.jpg" for name, number in rows]


def draw(
    people: range,
    images: int | tuple[int, int],
    options: DrawnOptions = DrawnOptions(),  # noqa: B008
    *,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> SyntheticFaces:
    """Draw some pictures of each person.

    Args:
        people: Numbers of the persons, from 0; the person of a number is always the same.
        images: Pictures of each person, or (least, most) for a number fixed by the person. With least = 1 some people
            have a single picture and serve as negatives.
        options: Gives the size and the difficulty.
        seed: Which world of people; at least 0.
        cache_dir: Folder that keeps the pictures as one memory-mapped array. The file's name is a hash of the
            arguments and of `VERSION`; its SHA-256 lies beside it. A damaged file is drawn again. None: draw each time.
        progress: Called with (drawn, N) after each batch, from the calling thread.

    Raises:
        DataError: `cache_dir` can not be written.
    """
    least, most = images if isinstance(images, tuple) else (images, images)
    plan = [(person, image) for person in people for image in range(image_count(seed, person, least, most))]
    size, difficulty = options.size, options.difficulty
    pictures = draw_or_read(
        len(plan),
        size,
        lambda part: _draw_batch(plan[part], seed, difficulty, size),
        name=f"synthetic_{hash_of([VERSION, size, difficulty, seed, plan])}.npy",
        cache_dir=cache_dir,
        progress=progress,
    )
    identities = np.array([NAME.format(person=person) for person, _ in plan])
    return SyntheticFaces(pictures, identities, np.array([image for _, image in plan], np.int64))


def draw_or_read(
    count: int,
    size: int,
    render_part: Callable[[slice], np.ndarray],
    *,
    name: str,
    cache_dir: str | Path | None,
    progress: Progress | None,
) -> np.ndarray:
    """Return N pictures (N, H, W, 3) uint8 from a file of the cache if it is whole, else draw them and keep them.

    ``render_part(slice)`` draws those of a slice. Without `cache_dir` nothing is read or kept.
    """
    if cache_dir is None:
        return _draw_in_batches(count, size, render_part, progress)
    file, shape = Path(cache_dir) / name, (count, size, size, 3)
    images = read_cached_array(file, shape, np.uint8, mode="c")
    if images is None:
        drawn = _draw_in_batches(count, size, render_part, progress)
        write_cached_array(file, drawn)
        images = read_cached_array(file, shape, np.uint8, mode="c")
        return drawn if images is None else images
    return images


def hash_of(arguments: list[Any]) -> str:
    """Return a name for what is drawn from these arguments."""
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:24]


def _draw_in_batches(
    count: int, size: int, render_part: Callable[[slice], np.ndarray], progress: Progress | None
) -> np.ndarray:
    """Fill (N, H, W, 3) uint8 in threads, `BATCH` pictures at a time. Numpy releases the threads while it computes."""
    images = np.empty((count, size, size, 3), np.uint8)

    def one(start: int) -> int:
        part = slice(start, min(start + BATCH, count))
        images[part] = render_part(part)
        return part.stop - part.start

    done = 0
    with thread_pool(min(8, os.cpu_count() or 1)) as pool:
        for job in as_completed([pool.submit(one, start) for start in range(0, count, BATCH)]):
            done += job.result()
            if progress:
                progress(done, count)
    return images


def write_folder(faces: SyntheticFaces, root: str | Path) -> list[Path]:
    """Write one folder of JPEG files for each person, named as in LFW, and return the files' paths."""
    files = [Path(root) / path for path in faces.paths]
    for file, image in zip(files, faces.images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=95)
    return files


def _draw_batch(part: list[tuple[int, int]], seed: int, difficulty: float, size: int) -> np.ndarray:
    pictures = [sample_picture(seed, person, image, difficulty) for person, image in part]
    values = np.stack([picture.values for picture in pictures], 1).astype(np.float32)[..., None, None]
    grain = np.stack([picture.rng.standard_normal((size, size), np.float32) for picture in pictures])
    return render(dict(zip(NAMES, values, strict=True)), grain)
