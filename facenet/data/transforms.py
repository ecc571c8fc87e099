"""uint8 images to float tensors: the preprocessing that travels with the encoder, and training augmentation.

Letters: B batch, H W image height and width, S stored side. Floats lie in [-1, 1] for the default mean and std.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from facenet.errors import ConfigError, DataError

# DecompressionBombWarning is PIL's word for a picture of more than 89 megapixels: refuse instead of warn.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image before the network: centre crop, resize, normalise, mirror-averaging.

    Attributes:
        size: (H, W) the network reads.
        crop: Side of the central crop as a share of the largest one of that aspect ratio, in (0, 1].
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        mirror: Average the embeddings of the image and its mirror image, then scale to unit length.
        channels: Channel order; only "RGB".
    """

    size: tuple[int, int] = (64, 64)
    crop: float = 1.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = True
    channels: str = "RGB"

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        if len(self.size) != 2 or min(self.size) < 16:
            raise ConfigError(f"size: expected (height, width) of at least 16 pixels, got {self.size}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop: expected a share in (0, 1], got {self.crop}")
        if min(self.std) <= 0:
            raise ConfigError(f"std: expected positive numbers, got {self.std}")
        if self.channels != "RGB":
            raise ConfigError(f"channels: only 'RGB' is known, got {self.channels!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Rebuild from :meth:`to_dict`; unknown or missing keys raise ConfigError."""
        known = asdict(cls())
        if set(values) != set(known):
            raise ConfigError(f"preprocessing: expected the keys {sorted(known)}, got {sorted(values)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def stored_size(self, margin: float = 1.0) -> tuple[int, int]:
        """Return (S, S') of :meth:`cut`: the network's size, times the margin as far as an image can reach."""
        reach = min(1 / self.crop, margin)
        return round(self.size[0] * reach), round(self.size[1] * reach)

    def cut(self, image: Tensor, margin: float = 1.0) -> Tensor:
        """Crop and resize a uint8 image (3, H0, W0) to (3, S, S').

        With a `margin` above 1 the crop is that much larger (as far as the image reaches) and so is the
        result: training keeps the surroundings that shifts and rotations bring into view.
        """
        height, width = image.shape[-2:]
        aspect = self.size[0] / self.size[1]
        side = min(height / aspect, width) * min(1.0, self.crop * margin)  # width of the crop, in pixels
        h, w = max(1, round(side * aspect)), max(1, round(side))
        top, left = (height - h) // 2, (width - w) // 2
        image = image[..., top : top + h, left : left + w]
        size = self.stored_size(margin)
        return image.contiguous() if (h, w) == size else tv.resize(image, list(size), antialias=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 (B, 3, H, W), or floats in [0, 255], into normalised float32 of the same shape."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1) * 255
        return (images.float() - mean) / std

    def __call__(self, images: list[Any] | np.ndarray | Tensor) -> Tensor:
        """Paths, PIL images or uint8 arrays (H0, W0, 3) to normalised float32 (B, 3, H, W)."""
        if len(images) == 0:
            return torch.zeros(0, 3, *self.size)
        return self.normalise(torch.stack([self.cut(to_tensor(image)) for image in images]))


def to_tensor(image: Any) -> Tensor:
    """Path, PIL image, uint8 array (H, W, 3) or uint8 tensor (3, H, W) to a uint8 RGB tensor (3, H, W)."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
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
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with Image.open(path) as picture:
            return to_tensor(_eight_bit(ImageOps.exif_transpose(picture)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except Exception as error:  # PIL raises anything from SyntaxError to struct.error on broken files
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a readable image ({reason})") from error


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scale 16-bit and 32-bit grey pictures to 8 bits, lay transparent ones on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray((values.clip(0, top) * (255 / top)).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


@dataclass(frozen=True)
class Augment:
    """Mild random changes of a training batch; every range is symmetric around "no change".

    Attributes:
        rotate: Largest rotation, degrees.
        scale: Largest relative change of size; drawn log-uniformly.
        stretch: Largest relative change of the aspect ratio; drawn log-uniformly.
        shift: Largest shift, as a share of the side.
        mirror: Chance of a mirror image.
        gain: Largest relative change of contrast, about the image's mean.
        offset: Largest change of brightness, as a share of the value range.
        colour: Largest relative change of each channel on its own.
        grey: Chance of a grey image.
        blur: Chance of a low-resolution copy (half size and back).
        cutout: Side of a square of noise at a random place, as a share of the side; 0 is none.
        cutout_chance: Chance of the cut-out.
    """

    rotate: float = 8.0
    scale: float = 0.12
    stretch: float = 0.0
    shift: float = 0.05
    mirror: float = 0.5
    gain: float = 0.25
    offset: float = 0.1
    colour: float = 0.0
    grey: float = 0.1
    blur: float = 0.0
    cutout: float = 0.25
    cutout_chance: float = 0.5

    def __call__(self, images: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, S, S') to float (B, 3, H, W) in [0, 255]; the same generator state, the same batch."""
        device = images.device
        batch = len(images)

        def uniform(reach: float, *shape: int) -> Tensor:
            return ((torch.rand(batch, *shape, generator=generator) * 2 - 1) * reach).to(device)

        def chance(probability: float) -> Tensor:
            return (torch.rand(batch, generator=generator) < probability).to(device)

        theta = self._affine(uniform, chance, images.shape[-2:], size)
        grid = F.affine_grid(theta, [batch, 3, *size], align_corners=False)
        out = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)  # (B, 3, H, W)
        weights = torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)
        grey = (out * weights).sum(1, keepdim=True)
        out = torch.where(chance(self.grey).view(-1, 1, 1, 1), grey, out)
        mean = out.mean((2, 3), keepdim=True)
        gain = 1 + uniform(self.gain, 1, 1, 1)
        tint = 1 + uniform(self.colour, 3, 1, 1)
        out = ((out - mean) * gain + mean) * tint + uniform(self.offset, 1, 1, 1) * 255
        if self.blur:
            low = F.interpolate(F.avg_pool2d(out, 2), size, mode="bilinear", align_corners=False)
            out = torch.where(chance(self.blur).view(-1, 1, 1, 1), low, out)
        if self.cutout and self.cutout_chance:
            out = self._cut_out(out, size, uniform, chance)
        return out.clamp(0, 255)

    def _affine(self, uniform: Any, chance: Any, stored: torch.Size, size: tuple[int, int]) -> Tensor:
        """Draw maps from output to input coordinates, (B, 2, 3)."""
        angle = uniform(self.rotate) * (torch.pi / 180)
        zoom, stretch = (
            uniform(float(np.log1p(self.scale))).exp(),
            uniform(float(np.log1p(self.stretch)) / 2).exp(),
        )
        shift = uniform(2 * self.shift, 2)
        flip = 1 - 2 * chance(self.mirror).float()
        rx, ry = size[1] / stored[1], size[0] / stored[0]  # the central part of the stored image
        cos, sin = angle.cos(), angle.sin()
        row_x = torch.stack([cos * zoom * stretch * flip * rx, -sin * zoom * rx, shift[:, 0] * rx], 1)
        row_y = torch.stack([sin * zoom * flip * ry, cos * zoom / stretch * ry, shift[:, 1] * ry], 1)
        return torch.stack([row_x, row_y], 1)

    def _cut_out(self, images: Tensor, size: tuple[int, int], uniform: Any, chance: Any) -> Tensor:
        """Replace a random square by uniform noise of one colour per image."""
        centre = uniform(0.5, 2) + 0.5  # share of height, width
        half = self.cutout / 2 * min(size)
        rows = torch.arange(size[0], device=images.device).view(1, -1, 1)
        columns = torch.arange(size[1], device=images.device).view(1, 1, -1)
        inside = ((rows - centre[:, :1, None] * size[0]).abs() < half) & (
            (columns - centre[:, 1:, None] * size[1]).abs() < half
        )
        inside &= chance(self.cutout_chance).view(-1, 1, 1)
        colour = (uniform(0.5, 3, 1, 1) + 0.5) * 255
        return torch.where(inside[:, None], colour, images)
