"""Random changes of training images: one warp, one colour map, a worse camera and a cut-out for each image of a batch.

Letters: B batch, H W image height and width, S stored side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facenet.data.degradations import KINDS, Degraded, plan
from facenet.data.options import AugmentOptions
from facenet.data.preprocess import Preprocess
from facenet.data.resize import resize
from facenet.options import to_dict

Draws = dict[str, Tensor]  # by name, a row for each image
CHUNK = 2**17  # output pixels that are changed together for each thread: their floats stay in the cache
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Augment(AugmentOptions):
    """Mild random changes of a training batch; every range is symmetric around "no change".

    Whether they are `enabled` is for the caller to ask.
    """

    @cached_property
    def changes(self) -> list[Degraded]:
        """The changes of which `degrade` draws one; [] without it. Raises ConfigError as :func:`.degradations.plan`."""
        return plan(self.kinds, to_dict(self.levels)) if self.degrade else []

    def __call__(
        self,
        images: Tensor,
        size: tuple[int, int],
        generator: torch.Generator,
        preprocess: Preprocess | None = None,
    ) -> Tensor:
        """uint8 (B, 3, S, S') to float (B, 3, H, W); the same generator state, the same batch.

        Values lie in [0, 255], or are normalised by `preprocess`, which costs nothing here.
        """
        return self.apply(images, self.draw(len(images), images.shape[-2:], size, generator), size, preprocess)

    def apply(
        self,
        images: Tensor,
        draws: Draws,
        size: tuple[int, int],
        preprocess: Preprocess | None = None,
        *,
        chunk: int = CHUNK,
    ) -> Tensor:
        """Change uint8 images (B, 3, S, S') as drawn: float (B, 3, H, W), each image on its own.

        On a CPU a thread changes so many images together that they have about `chunk` output pixels.
        """
        out = torch.empty(len(images), 3, *size, device=images.device)
        scale = preprocess.scale() if preprocess else (np.zeros(3, np.float32), np.ones(3, np.float32))
        mean, std = (torch.from_numpy(row).to(images.device) for row in scale)
        step = len(images) if images.is_cuda else torch.get_num_threads() * max(1, chunk // (size[0] * size[1]))
        for start in range(0, len(images), max(1, step)):
            part = slice(start, start + step)
            self._change(images[part], take(draws, part), mean, std, out[part])
        return out

    def draw(self, batch: int, stored: torch.Size, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw what happens to `batch` images, at once, so that it does not depend on how the batch is divided."""

        def uniform(reach: float, *shape: int) -> Tensor:
            return (torch.rand(batch, *shape, generator=generator) * 2 - 1) * reach

        def chance(probability: float) -> Tensor:
            return torch.rand(batch, generator=generator) < probability

        draws = {
            "theta": self._affine(uniform, chance, stored, size),
            "grey": chance(self.grey),
            "gain": 1 + uniform(self.gain, 1),
            "tint": 1 + uniform(self.colour, 3),
            "offset": uniform(self.offset, 1) * 255,
            "blur": chance(self.blur),
            "centre": (uniform(0.5, 2) + 0.5) * torch.tensor(size),
            "cutout": chance(self.cutout_chance if self.cutout else 0.0),
            "noise": (uniform(0.5, 3) + 0.5) * 255,
        }
        if self.changes:
            drawn = torch.randint(len(self.changes), (batch,), generator=generator)
            draws["degrade"] = torch.where(chance(self.degrade), drawn, -1)
            draws["seed"] = torch.randint(2**31, (batch,), generator=generator)
        return draws

    def _change(self, images: Tensor, draws: Draws, mean: Tensor, std: Tensor, out: Tensor) -> None:
        """Write the changed images into `out` (B, 3, H, W); what few images need is done to those alone."""
        size = out.shape[-2:]
        near = {key: value.to(images.device) for key, value in draws.items() if value.is_floating_point()}
        grid = _grid(near["theta"], size)
        warped = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
        rows = draws["grey"].nonzero()[:, 0].to(images.device)
        red, green, blue = warped[rows].unbind(1)
        warped[rows] = (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None].expand(-1, 3, -1, -1)
        centre = warped.mean((2, 3))  # (B, 3)
        factor = near["gain"] * near["tint"] / std
        summand = ((1 - near["gain"]) * near["tint"] * centre + near["offset"] - mean) / std
        torch.add(warped.mul_(factor[..., None, None]), summand[..., None, None], out=out)  # addcmul takes 5x as long
        rows = draws["blur"].nonzero()[:, 0].to(images.device)
        if len(rows):
            out[rows] = F.interpolate(F.avg_pool2d(out[rows], 2), size, mode="bilinear", align_corners=False)
        for channel in range(3):
            out[:, channel].clamp_(float(-mean[channel] / std[channel]), float((255 - mean[channel]) / std[channel]))
        if self.changes:
            self._degrade(out, draws, mean[:, None, None], std[:, None, None])
        self._cut_out(out, draws, (near["noise"] - mean) / std)

    def _degrade(self, images: Tensor, draws: Draws, mean: Tensor, std: Tensor) -> None:
        """Make the drawn images worse, at the network's size and on the CPU, as ``facenet degrade`` does."""
        rows = (draws["degrade"] >= 0).nonzero()[:, 0]
        faces = (images[rows] * std + mean).round().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()
        for face, place, seed in zip(faces, draws["degrade"][rows].tolist(), draws["seed"][rows].tolist(), strict=True):
            kind, level = self.changes[place].kind, self.changes[place].level
            face[:] = resize(KINDS[kind].change(face, level, np.random.default_rng(seed)), face.shape[:2])
        images[rows] = (torch.from_numpy(faces).permute(0, 3, 1, 2).to(images) - mean) / std

    def _cut_out(self, images: Tensor, draws: Draws, noise: Tensor) -> None:
        """Overwrite a random square of the drawn images by one colour (B, 3).

        Two products with a mask of ones and zeros take a third of the time of ``torch.where``, and give the same.
        """
        half = self.cutout / 2 * min(images.shape[-2:])
        centre, cut = draws["centre"].to(images.device), draws["cutout"].to(images.device)
        down, across = (
            (torch.arange(side, device=images.device) - centre[:, axis, None]).abs() < half
            for axis, side in enumerate(images.shape[-2:])
        )
        inside = ((down & cut[:, None]).float()[:, :, None] * across.float()[:, None, :])[:, None]  # (B, 1, H, W)
        images.mul_(1 - inside).addcmul_(inside.expand_as(images), noise[..., None, None])

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


def take(draws: Draws, part: slice) -> Draws:
    """Return what was drawn for some of the images."""
    return {key: value[part] for key, value in draws.items()}


def _grid(theta: Tensor, size: torch.Size) -> Tensor:
    """Do what affine_grid does, six times as fast: (B, 2, 3) to (B, H, W, 2)."""
    y, x = ((torch.arange(side, device=theta.device) * 2 + 1) / side - 1 for side in size)
    across = (theta[:, :, 0, None] * x)[:, :, None]  # (B, 2, 1, W)
    down = (theta[:, :, 1, None] * y + theta[:, :, 2, None])[..., None]  # (B, 2, H, 1)
    return (across + down).movedim(1, -1)
