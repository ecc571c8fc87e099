"""A photo as an encoder sees it: its faces, cut out, and how good each one is.

Coordinates are (x, y) in pixels of the upright picture. Letters: F faces, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from facenet.data.preprocess import stack
from facenet.encoders.encoder import Encoder
from facenet.faces.alignment import NoFace
from facenet.faces.detector import Face, find_faces
from facenet.faces.quality import Quality, measure_quality

SHOWN = 256  # pixels a side of a face that is only shown


class CutFace(NamedTuple):
    """A face of a photo."""

    face: Face | None  # None: the encoder takes every picture for a face
    pixels: np.ndarray  # (H, W, 3) uint8: the crop
    quality: Quality
    box: tuple[float, float, float, float]  # left, top, width, height in the picture


@dataclass(frozen=True)
class SeenPhoto:
    """The usable faces of a photo, highest score first."""

    size: tuple[int, int]  # width, height of the upright picture
    faces: Sequence[CutFace]
    meant: int | None  # place of the face that the encoder's `pick` means; None without a usable face
    problem: str = ""  # why no face is usable
    usable: Sequence[Face] = ()  # also those that were not cut

    @property
    def left_out(self) -> int:
        """How many usable faces were not cut."""
        return max(0, len(self.usable) - len(self.faces))


def see_photo(encoder: Encoder, picture: Image.Image, *, most: int | None = None) -> SeenPhoto:
    """Find the faces of an upright RGB picture as the encoder's preprocessing does, and cut them out.

    An encoder without a detector takes the whole picture for a face. `most` bounds the faces that are cut.
    """
    align = encoder.preprocess.align
    if align is None or align.detector == "none":
        pixels = np.asarray(picture)
        box = (0.0, 0.0, float(picture.width), float(picture.height))
        return SeenPhoto(picture.size, [CutFace(None, pixels, measure_quality(None, pixels), box)], 0)
    found = find_faces(np.asarray(picture))
    try:
        chosen = align.choose(found, picture.size)
    except NoFace as error:
        return SeenPhoto(picture.size, [], None, str(error))
    usable = [face for face in found if not align.why_unusable(face)]
    kept = usable[:most]
    if not any(face is chosen for face in kept):
        kept[-1] = chosen
    crops = [np.asarray(align.crop(picture, face)) for face in kept]
    pairs = zip(kept, crops, strict=True)
    faces = [CutFace(face, crop, measure_quality(face, crop, margin=align.margin), face.box) for face, crop in pairs]
    meant = next(place for place, face in enumerate(kept) if face is chosen)
    return SeenPhoto(picture.size, faces, meant, usable=usable)


def shrink(photo: SeenPhoto) -> SeenPhoto:
    """Return a photo whose crops have at most 256 pixels a side: enough to show, and little to keep in memory."""

    def small(cut: CutFace) -> CutFace:
        if max(cut.pixels.shape[:2]) <= SHOWN:
            return cut
        picture = Image.fromarray(cut.pixels)
        picture.thumbnail((SHOWN, SHOWN))
        return cut._replace(pixels=np.asarray(picture))

    return replace(photo, faces=[small(cut) for cut in photo.faces])


def network_input(encoder: Encoder, faces: Sequence[CutFace]) -> np.ndarray:
    """Return faces as the network reads them, not normalised yet: (F, 3, H, W) uint8."""
    ready = encoder.preprocess.of(encoder.preprocess.align)
    if not faces:
        return np.zeros((0, 3, *ready.size), np.uint8)
    return stack([ready.read(face.pixels) for face in faces])


def embed_faces(encoder: Encoder, faces: Sequence[CutFace]) -> np.ndarray:
    """Embed faces that are cut already: unit vectors (F, D)."""
    return encoder.embed_batch(encoder.preprocess.normalise(network_input(encoder, faces)))
