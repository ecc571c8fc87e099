"""Photographs with several faces, composed of photographs with one: which face is taken, and is it the meant one?

The meant person stands near the middle and is the largest. Others are smaller or farther out, and blurred, noisy, dark
or half covered, so that their scores vary. Decoys are no faces that the detector finds all the same, with scores of 0.5
to 0.9: faces upside down, in negative, or with the mouth over the eyes, about as large as the meant face or larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from facenet.faces.alignment import Alignment
from facenet.faces.detector import Face, find_faces, overlap

SIZES = ((640, 480), (480, 640), (800, 450), (600, 600))
HEAD = 1.7  # side of a pasted square over the longer side of the face's box
HIT = 0.3  # intersection over union with a pasted box, from which a found box is that one


class Composed(NamedTuple):
    """A photograph, the box of the meant face, and those of other people and of decoys: left, top, width, height."""

    picture: Image.Image
    meant: tuple[float, ...]
    people: list[tuple[float, ...]]
    decoys: list[tuple[float, ...]]


class Choice(NamedTuple):
    """What was taken from one composed photograph."""

    right: bool
    kind: str  # what was taken: meant, person, decoy, elsewhere or nothing
    score: float  # of the taken box
    best: float  # score of the best usable box
    usable: int  # boxes that compete


def head_of(picture: Image.Image) -> Image.Image | None:
    """Return the square around the only face of a photograph; None if it has another number of faces."""
    faces = find_faces(np.asarray(picture))
    if len(faces) != 1 or faces[0].score < 0.8:
        return None
    side = HEAD * max(faces[0].box[2:])
    (x, y), half = faces[0].centre, side / 2
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= picture.width and box[3] <= picture.height
    return picture.crop(box) if inside else None


def compose(heads: Sequence[Image.Image], rng: np.random.Generator) -> Composed:
    """Paste a meant person, one to three others and up to two decoys, none over another, on a blurred photograph."""
    wide, high = SIZES[rng.integers(len(SIZES))]
    short, middle = min(wide, high), np.array([wide, high]) / 2
    drawn = iter(rng.permutation(len(heads)))
    page = heads[next(drawn)].resize((wide, high)).filter(ImageFilter.GaussianBlur(40))
    side = short * rng.uniform(0.16, 0.3)  # of the meant face
    centre = middle + rng.uniform(-0.1, 0.1, 2) * short
    placed: list[tuple[np.ndarray, float]] = []
    meant = _paste(page, heads[next(drawn)], centre, side, placed)
    decoys: list[tuple[float, ...]] = []
    people: list[tuple[float, ...]] = []
    for _ in range(rng.integers(0, 3)):
        change = DECOYS[rng.integers(len(DECOYS))]
        at = _free(placed, side * rng.uniform(0.9, 1.5), (wide, high), rng, nearest=True)
        if at is not None:
            decoys.append(_paste(page, change(heads[next(drawn)]), at[0], at[1], placed))
    for _ in range(rng.integers(1, 4)):
        at = _free(placed, side * rng.uniform(0.35, 0.7), (wide, high), rng, nearest=False)
        if at is not None:
            people.append(_paste(page, worsen(heads[next(drawn)], rng), at[0], at[1], placed))
    return Composed(page, meant, people, decoys)


def judge(composed: Composed, alignment: Alignment) -> Choice:
    """Find the faces of a composed photograph and tell what the alignment takes."""
    faces = find_faces(np.asarray(composed.picture))
    usable = [face for face in faces if not alignment.why_unusable(face)]
    if not usable:
        return Choice(False, "nothing", 0.0, 0.0, 0)
    taken = alignment.choose(usable, composed.picture.size)
    kind = _kind(taken, composed)
    return Choice(kind == "meant", kind, taken.score, usable[0].score, len(usable))


def _kind(face: Face, composed: Composed) -> str:
    for name, boxes in (("meant", [composed.meant]), ("person", composed.people), ("decoy", composed.decoys)):
        if any(overlap(face.box, box) >= HIT for box in boxes):
            return name
    return "elsewhere"


def worsen(head: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, darken, cover or leave a head, by a random amount: the detector's score falls with it."""
    way, amount = rng.integers(4), rng.uniform()
    if way == 0:
        return head.filter(ImageFilter.GaussianBlur(amount * head.width / 20))
    if way == 1:
        pixels = np.asarray(head, np.float32) * (1 - 0.9 * amount) + rng.normal(0, 40 * amount, (*head.size[::-1], 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    changed = head.copy()
    if way == 2:
        changed.paste("#404040", (0, round(head.height * (0.8 - 0.25 * amount)), head.width, head.height))
    return changed


def _negative(head: Image.Image) -> Image.Image:
    return ImageOps.invert(head)


def _scrambled(head: Image.Image) -> Image.Image:
    """A head whose upper and lower halves have changed places: the mouth stands over the eyes."""
    changed, half = head.copy(), head.height // 2
    changed.paste(head.crop((0, half, head.width, 2 * half)), (0, 0))
    changed.paste(head.crop((0, 0, head.width, half)), (0, half))
    return changed


def _upside_down(head: Image.Image) -> Image.Image:
    return ImageOps.flip(head)


DECOYS: tuple[Callable[[Image.Image], Image.Image], ...] = (_negative, _scrambled, _upside_down)


def _paste(
    page: Image.Image, head: Image.Image, centre: np.ndarray, side: float, placed: list[tuple[np.ndarray, float]]
) -> tuple[float, ...]:
    """Paste a head whose face has the given side, and return the face's box."""
    edge = max(8, round(side * HEAD))
    left, top = (round(float(value) - edge / 2) for value in centre)
    page.paste(head.resize((edge, edge), Image.Resampling.LANCZOS), (left, top))
    placed.append((centre, side * HEAD))
    return left + (edge - side) / 2, top + (edge - side) / 2, side, side


def _free(
    placed: Sequence[tuple[np.ndarray, float]],
    side: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    nearest: bool,
) -> tuple[np.ndarray, float] | None:
    """Return a place where a head covers no other: the nearest to the middle of those tried, or any; None for none."""
    edge = side * HEAD
    if edge >= min(size):
        return None
    tried = [rng.uniform(edge / 2, np.array(size) - edge / 2) for _ in range(40)]
    free = [at for at in tried if all(np.abs(at - there).max() > (edge + other) / 2 for there, other in placed)]
    if not free:
        return None
    middle = np.array(size) / 2
    return (min(free, key=lambda at: float(np.hypot(*(at - middle)))) if nearest else free[0]), side
