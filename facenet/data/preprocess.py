"""Image files to normalised floats: the preprocessing that travels with the encoder. Needs no torch.

Letters: B batch, H W image height and width, S stored side. Floats lie in [-1, 1] for the default mean and std.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facenet.data.pictures import decode, plain_jpeg, upright_rgb
from facenet.data.resize import resize
from facenet.data.views import MIDDLE, View, cut_views, tall_size
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment
from facenet.vectors import Array

LARGEST = 2048  # pixels a side that a network may read
SMALLEST_STD = 1e-4  # below it, values that are divided by it leave the range of float32 in the layers behind


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image before the network: alignment, centre crop, resize, normalise, mirror-averaging.

    Attributes:
        size: (H, W) the network reads.
        crop: Side of the central crop as a share of the largest one of that aspect ratio, in (0, 1].
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        mirror: Average the embeddings of the image and its mirror image, then scale to unit length.
        channels: Channel order; only "RGB".
        align: How the face is found in a photo and cut out of it, before the central crop; None: images are faces.
        centre: (y, x) of the middle of the crop, as shares of height and width.
        views: Several parts of the face that the network reads as one tall image; then `size` is that of it, and `crop`
            and `centre` are those of each view.
    """

    size: tuple[int, int] = (64, 64)
    crop: float = 1.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = True
    channels: str = "RGB"
    align: Alignment | None = None
    centre: tuple[float, float] = MIDDLE
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        for size in [view.size for view in self.views] or [self.size]:
            if len(size) != 2 or not all(type(side) is int and 16 <= side <= LARGEST for side in size):
                raise ConfigError(f"size: expected (height, width) of 16 to {LARGEST} pixels, got {size}")
        if self.views and (self.size != tall_size(self.views) or (self.crop, self.centre) != (1.0, MIDDLE)):
            raise ConfigError(f"views: expected size {tall_size(self.views)}, crop 1 and the middle, got {self.size}")
        if self.views and self.size[0] * self.size[1] > LARGEST**2:
            raise ConfigError(f"views: a picture of {self.size[0]}x{self.size[1]} pixels, {LARGEST}x{LARGEST} are read")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop: expected a share in (0, 1], got {self.crop}")
        View(self.size, self.crop, self.centre)  # checks the centre
        if not _three(self.mean):
            raise ConfigError(f"mean: expected three numbers, got {self.mean}")
        if not _three(self.std) or min(self.std) < SMALLEST_STD:
            raise ConfigError(f"std: expected three numbers of at least {SMALLEST_STD:g}, got {self.std}")
        if type(self.mirror) is not bool:
            raise ConfigError(f"mirror: expected true or false, got {self.mirror!r}")
        if self.channels != "RGB":
            raise ConfigError(f"channels: only 'RGB' is known, got {self.channels!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Rebuild from :meth:`to_dict`; unknown or missing keys raise ConfigError."""
        known = cls().to_dict()
        if set(values) - {"align", "centre", "views"} != set(known):
            raise ConfigError(f"preprocessing: expected the keys {sorted(known)}, got {sorted(values)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if "align" in values:
            fields["align"] = Alignment.from_dict(values["align"])
        if "views" in values:
            fields["views"] = tuple(map(View.from_dict, values["views"]))
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what came later only if it is used: other fingerprints stay as they are."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        values["views"] = [view.to_dict() for view in self.views]
        unused = {"align": None, "centre": list(MIDDLE), "views": []}
        return {key: value for key, value in values.items() if key not in unused or value != unused[key]}

    def with_views(self, count: int) -> Preprocess:
        """Return what averages `count` views of a face: the crop, two sizes and four shifts, in this order.

        Raises:
            ConfigError: there are several views already, or one would lie beyond the picture.
        """
        if count == 1:
            return self
        if self.views:
            raise ConfigError(f"views={count}: the encoder averages {len(self.views)} views already; leave views out")
        return self.reading(View(self.size, self.crop, self.centre).around(count))

    def reading(self, views: Sequence[View]) -> Preprocess:
        """Return this preprocessing with other views."""
        return replace(self, size=tall_size(views), crop=1.0, centre=MIDDLE, views=tuple(views))

    def of(self, alignment: Alignment | None, where: str = "") -> Preprocess:
        """Return what happens to images that are cut out of photos already, in the given way (None: they are not).

        A face that is cut with a larger margin holds the face that this preprocessing would cut: its central part is
        read. Without an alignment of its own the preprocessing reads an aligned face like every picture, by its central
        crop.

        Raises:
            DataError: the aligned faces do not hold what this preprocessing would cut.
        """
        if alignment is None or self.align is None:
            return self
        share = self.align.within(alignment)
        if share is not None and self.views:
            return replace(self, align=None).reading([view.scaled(share) for view in self.views])
        if share is not None:
            inner = View(self.size, self.crop, self.centre).scaled(share)
            return replace(self, align=None, crop=inner.crop, centre=inner.centre)
        own = self.align
        raise DataError(
            f"{where}: its faces are cut at {alignment}, the encoder reads {own}, which they do not hold;"
            f" run facenet align images=PHOTOS out=FACES template={own.template} margin={own.margin:g}"
            f" size={own.size}, then this command with FACES (or with PHOTOS)"
        )

    def view(self, alignment: Alignment) -> str:
        """Say which part of an aligned face the network sees, and if it is enlarged for the network.

        >>> Preprocess(crop=0.6).view(Alignment(margin=2.0))
        'the central 60% of faces cut at 2 times the arcface template, which is 1.2 times'
        """
        inner = self.of(alignment)
        share = max(view.crop for view in inner.views) if inner.views else inner.crop
        part, side = f"the central {share:.0%} of faces cut at {alignment}", round(share * alignment.size)
        small = f"; {side} pixels, enlarged to {max(self.size)}" if side < 0.8 * max(self.size) else ""
        return f"{part}, which is {share * alignment.margin:.3g} times{small}"

    def stored_size(self, margin: float = 1.0) -> tuple[int, int]:
        """Return (S, S') of :meth:`read`: the network's size, times the margin as far as an image can reach."""
        if self.views:
            return self.size
        reach = min(1 / self.crop, margin)
        return round(self.size[0] * reach), round(self.size[1] * reach)

    def read(self, source: Any, margin: float = 1.0) -> np.ndarray:
        """Decode, align, crop and resize what :func:`read_pixels` accepts: uint8 (S, S', 3), see :meth:`stored_size`.

        With a `margin` above 1 the crop is that much larger (as far as the image reaches) and so is the
        result: training keeps the surroundings that shifts and rotations bring into view.
        """
        return self.fit(self.face(source, margin), margin)

    def face(self, source: Any, margin: float = 1.0) -> np.ndarray:
        """Decode, align and crop what :func:`read_pixels` accepts, in the pixels it has: uint8 (h, w, 3) of any size.

        An image is cropped before it is copied, which saves copying what is cut away. With views it is not cropped:
        :meth:`fit` cuts them out.
        """
        if isinstance(source, str | Path | bytes):
            pixels = plain_jpeg(source) if self.align is None else None
            if pixels is None:
                return decode(source, lambda picture: self._face_of(picture, margin))
            return self._cut(pixels, margin)
        if isinstance(source, Image.Image):
            return self._face_of(source, margin)
        pixels = read_pixels(source)
        if self.align is not None:
            pixels = np.asarray(self.align.cut(Image.fromarray(pixels)))
        return self._cut(pixels, margin)

    def _cut(self, pixels: np.ndarray, margin: float) -> np.ndarray:
        return pixels if self.views else self._part(margin).region(pixels)

    def _part(self, margin: float) -> View:
        """Return the part of a picture that is decoded: the crop and its margin."""
        return View(self.size, min(1.0, self.crop * margin), self.centre)

    def fit(self, face: np.ndarray, margin: float = 1.0) -> np.ndarray:
        """Resize a crop (h, w, 3) to (S, S', 3), uint8; with views, cut them out of it."""
        return cut_views(face, self.views) if self.views else resize(face, self.stored_size(margin))

    def _face_of(self, picture: Image.Image, margin: float) -> np.ndarray:
        picture = upright_rgb(picture)
        if self.align is not None:
            picture = self.align.cut(picture)
        top, left, bottom, right = self._part(margin).box(picture.height, picture.width)
        if self.views or min(top, left) < 0 or bottom > picture.height or right > picture.width:
            return self._cut(np.asarray(picture), margin)
        return np.array(picture.crop((left, top, right, bottom)))

    def normalise(self, images: Array) -> Array:
        """Turn uint8 (B, 3, H, W), or floats in [0, 255], into normalised float32: an array or tensor like the given.

        (value - 255 mean) / (255 std), with mean and std of each channel.
        """
        mean, std = (row.reshape(3, 1, 1) for row in self.scale())
        if isinstance(images, np.ndarray):
            values: Any = images.astype(np.float32)
            values -= mean
            values /= std
            return values
        import torch

        shift, divisor = (torch.from_numpy(row).to(images.device) for row in (mean, std))
        return (images.float() - shift).div_(divisor)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std of each channel (3,) float32, for values in [0, 255]."""
        return np.array(self.mean, np.float32) * np.float32(255), np.array(self.std, np.float32) * np.float32(255)

    def __call__(self, images: Sequence[Any] | np.ndarray, *, first: int = 0) -> np.ndarray:
        """Turn paths, PIL images or uint8 arrays (H0, W0, 3) into normalised float32 (B, 3, H, W).

        Raises:
            DataError: as :meth:`read`, with the path, or with the place of the image counted from `first`.
        """
        if len(images) == 0:
            return np.zeros((0, 3, *self.size), np.float32)
        pixels = []
        for place, image in enumerate(images, first):
            try:
                pixels.append(self.read(image))
            except DataError as error:
                name = "" if isinstance(image, str | Path) else f"image {place}: "
                raise type(error)(f"{name}{error}; embed_folder goes on without such an image, and lists it") from error
        return self.normalise(stack(pixels))


def _three(values: Any) -> bool:
    """Whether this is a finite number for each channel."""
    numbers = isinstance(values, tuple) and all(type(value) in (int, float) for value in values)
    return numbers and len(values) == 3 and all(abs(value) < 1e6 for value in values)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Join B images (S, S', 3) to (B, 3, S, S') in channels-last memory."""
    return np.stack(images).transpose(0, 3, 1, 2)


def read_pixels(image: Any) -> np.ndarray:
    """Return the pixels (h, w, 3) uint8, RGB and upright, of a path, bytes, a PIL image or an array of this kind.

    Raises:
        DataError: a file that is missing, empty, truncated or not an image; an array of another kind.
    """
    if isinstance(image, str | Path | bytes):
        return decode(image, read_pixels)
    if isinstance(image, Image.Image):
        return np.array(upright_rgb(image))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"image: expected uint8 RGB (h, w, 3), got {pixels.dtype} of shape {pixels.shape}")
    return pixels
