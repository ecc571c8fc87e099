"""Image files to float tensors: the preprocessing that travels with the encoder.

Letters: B batch, H W image height and width, S stored side. Floats lie in [-1, 1] for the default mean and std.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facenet.data.pictures import decode, upright_rgb
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment

LARGEST = 2048  # pixels a side that a network may read


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
    """

    size: tuple[int, int] = (64, 64)
    crop: float = 1.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = True
    channels: str = "RGB"
    align: Alignment | None = None

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        if len(self.size) != 2 or not all(type(side) is int and 16 <= side <= LARGEST for side in self.size):
            raise ConfigError(f"size: expected (height, width) of 16 to {LARGEST} pixels, got {self.size}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop: expected a share in (0, 1], got {self.crop}")
        if not _three(self.mean):
            raise ConfigError(f"mean: expected three numbers, got {self.mean}")
        if not _three(self.std) or min(self.std) <= 0:
            raise ConfigError(f"std: expected three positive numbers, got {self.std}")
        if type(self.mirror) is not bool:
            raise ConfigError(f"mirror: expected true or false, got {self.mirror!r}")
        if self.channels != "RGB":
            raise ConfigError(f"channels: only 'RGB' is known, got {self.channels!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Rebuild from :meth:`to_dict`; unknown or missing keys raise ConfigError."""
        known = cls().to_dict()
        if set(values) - {"align"} != set(known):
            raise ConfigError(f"preprocessing: expected the keys {sorted(known)}, got {sorted(values)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if "align" in values:
            fields["align"] = Alignment.from_dict(values["align"])
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `align` only where there is one: other fingerprints stay as they are."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if value is not None}

    def of(self, alignment: Alignment | None, where: str = "") -> Preprocess:
        """Return what happens to images which are already aligned in the given way (None: in none).

        Raises:
            DataError: they are aligned otherwise than this preprocessing would.
        """
        if alignment is None or alignment == self.align:
            return self if alignment is None else replace(self, align=None)
        wanted = "not aligned at all" if self.align is None else f"aligned by {self.align.to_dict()}"
        raise DataError(
            f"{where}: its faces are aligned by {alignment.to_dict()}, the encoder reads faces {wanted};"
            " give the photos they were cut from, or align them with the encoder's options"
        )

    def stored_size(self, margin: float = 1.0) -> tuple[int, int]:
        """Return (S, S') of :meth:`cut`: the network's size, times the margin as far as an image can reach."""
        reach = min(1 / self.crop, margin)
        return round(self.size[0] * reach), round(self.size[1] * reach)

    def read(self, source: Any, margin: float = 1.0) -> Tensor:
        """Decode, crop and resize what :func:`to_tensor` accepts: ``cut(to_tensor(source), margin)``, uint8 (3, S, S').

        Cropped before it becomes a tensor, which saves copying what is cut away.
        """
        return self.fit(self.face(source, margin), margin)

    def face(self, source: Any, margin: float = 1.0) -> Tensor:
        """Decode and crop what :func:`to_tensor` accepts, in the pixels it has: uint8 (3, h, w) of any size."""
        if isinstance(source, str | Path):
            return decode(source, lambda picture: self._face_of(picture, margin))
        if isinstance(source, Image.Image):
            return self._face_of(source, margin)
        return self._face(to_tensor(source), margin)

    def fit(self, face: Tensor, margin: float = 1.0) -> Tensor:
        """Resize a crop (3, h, w) to (3, S, S'), uint8."""
        from torchvision.transforms.v2 import functional as tv  # its import takes seconds

        size = self.stored_size(margin)
        return face if tuple(face.shape[-2:]) == size else tv.resize(face, list(size), antialias=True)

    def cut(self, image: Tensor, margin: float = 1.0) -> Tensor:
        """Crop and resize a uint8 image (3, H0, W0) to (3, S, S'), in memory one row of RGB pixels after the other.

        With a `margin` above 1 the crop is that much larger (as far as the image reaches) and so is the
        result: training keeps the surroundings that shifts and rotations bring into view.
        """
        return self.fit(self._face(image, margin), margin)

    def _face(self, image: Tensor, margin: float) -> Tensor:
        if self.align is not None:
            image = _pixels(self.align.cut(Image.fromarray(image.permute(1, 2, 0).numpy())))
        top, left, bottom, right = self._box(image.shape[-2], image.shape[-1], margin)
        return pixel_rows(image[..., top:bottom, left:right])

    def _face_of(self, picture: Image.Image, margin: float) -> Tensor:
        picture = upright_rgb(picture)
        if self.align is not None:
            picture = self.align.cut(picture)
        top, left, bottom, right = self._box(picture.height, picture.width, margin)
        return _pixels(picture.crop((left, top, right, bottom)))

    def _box(self, height: int, width: int, margin: float) -> tuple[int, int, int, int]:
        """Return top, left, bottom, right of the central crop."""
        aspect = self.size[0] / self.size[1]
        side = min(height / aspect, width) * min(1.0, self.crop * margin)  # width of the crop, in pixels
        h, w = max(1, round(side * aspect)), max(1, round(side))
        top, left = (height - h) // 2, (width - w) // 2
        return top, left, top + h, left + w

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 (B, 3, H, W), or floats in [0, 255], into normalised float32 of the same shape."""
        mean, std = (row.to(images.device).view(3, 1, 1) for row in self.scale())
        return (images.float() - mean).div_(std)

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return mean and std of each channel (3,) for values in [0, 255]."""
        return torch.tensor(self.mean) * 255, torch.tensor(self.std) * 255

    def __call__(self, images: list[Any] | np.ndarray | Tensor) -> Tensor:
        """Paths, PIL images or uint8 arrays (H0, W0, 3) to normalised float32 (B, 3, H, W)."""
        if len(images) == 0:
            return torch.zeros(0, 3, *self.size)
        return self.normalise(stack([self.read(image) for image in images]))


def _three(values: Any) -> bool:
    """Whether this is a finite number for each channel."""
    numbers = isinstance(values, tuple) and all(type(value) in (int, float) for value in values)
    return numbers and len(values) == 3 and all(abs(value) < 1e6 for value in values)


def pixel_rows(image: Tensor) -> Tensor:
    """Return (3, H, W) that lies in memory as decoders write it, (H, W, 3): what cropping and resizing read fastest."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def stack(images: list[Tensor]) -> Tensor:
    """Join B images (3, S, S') to (B, 3, S, S') in channels-last memory."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def to_tensor(image: Any) -> Tensor:
    """Path, PIL image, uint8 array (H, W, 3) or uint8 tensor (3, H, W) to a uint8 RGB tensor (3, H, W)."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _pixels(upright_rgb(image))
    tensor = (
        image
        if isinstance(image, Tensor)
        else torch.from_numpy(np.require(image, requirements=["C", "W"])).movedim(-1, 0)
    )
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] != 3:
        raise DataError(f"image: expected uint8 RGB, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor


def read_image(path: str | Path) -> Tensor:
    """Decode an image file to uint8 RGB (3, H, W), turned upright by its EXIF tag.

    Raises:
        DataError: missing, empty, truncated or not an image.
    """
    return decode(path, to_tensor)


def _pixels(picture: Image.Image) -> Tensor:
    """RGB picture to uint8 (3, H, W), in memory one row of pixels after the other."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
