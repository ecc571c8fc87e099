from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from facenet.data.augment import Augment, take
from facenet.data.degradations import KINDS
from facenet.data.options import LevelOptions
from facenet.data.preprocess import Preprocess, stack
from tests.helpers.pictures import picture


def batch(n: int = 4, side: int = 40) -> torch.Tensor:
    return torch.from_numpy(stack([picture(side, side)] * n))


def test_augmentation_is_a_function_of_its_generator() -> None:
    augment = Augment(blur=0.5, colour=0.1, stretch=0.1)
    runs = [augment(batch(), (32, 32), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert runs[0].shape == (4, 3, 32, 32)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1]), "each image is drawn on its own"
    assert 0 <= float(runs[0].min()) <= float(runs[0].max()) <= 255


OTHERS = ("enabled", "kinds", "levels")
STILL: dict[str, Any] = {name: 0.0 for name in Augment.__dataclass_fields__ if name not in OTHERS}


def test_no_change_is_the_centre_crop() -> None:
    still = Augment(**STILL)
    out = still(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(out, batch()[..., 4:36, 4:36].float(), atol=0.01, rtol=0)


def test_mirror_and_shift_go_the_right_way() -> None:
    mirrored = Augment(**{**STILL, "mirror": 1.0})(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored, batch()[..., 4:36, 4:36].float().flip(-1), atol=0.01, rtol=0)
    grey = Augment(**{**STILL, "grey": 1.0})(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    hole = Augment(**{**STILL, "cutout": 0.5, "cutout_chance": 1.0})(
        batch(), (32, 32), torch.Generator().manual_seed(0)
    )
    changed = (hole - batch()[..., 4:36, 4:36]).abs().sum(1) > 1
    assert 0.05 < float(changed.float().mean()) <= 0.27


EVERYTHING = Augment(stretch=0.1, colour=0.2, grey=0.5, blur=0.5, cutout=0.3)


def plainly(augment: Augment, images: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Do the same from the same draws with torch's own functions over the whole batch, one after the other."""
    draws = augment.draw(len(images), images.shape[-2:], size, generator)
    grid = F.affine_grid(draws["theta"], [len(images), 3, *size], align_corners=False)
    out = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    grey = (out * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    out = torch.where(draws["grey"].view(-1, 1, 1, 1), grey, out)
    gain, tint, offset = (draws[key][..., None, None] for key in ("gain", "tint", "offset"))
    mean = out.mean((2, 3), keepdim=True)
    out = ((out - mean) * gain + mean) * tint + offset
    low = F.interpolate(F.avg_pool2d(out, 2), size, mode="bilinear", align_corners=False)
    out = torch.where(draws["blur"].view(-1, 1, 1, 1), low, out).clamp(0, 255)
    half = augment.cutout / 2 * min(size)
    for image, (y, x), wanted, noise in zip(out, draws["centre"], draws["cutout"], draws["noise"], strict=True):
        for row in range(size[0]):
            for column in range(size[1]):
                if wanted and abs(row - y) < half and abs(column - x) < half:
                    image[:, row, column] = noise
    return out


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
def test_the_fused_form_equals_the_plain_one(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (12, 3, 50, 44), dtype=torch.uint8)
    fast = EVERYTHING(images, size, torch.Generator().manual_seed(3))
    slow = plainly(EVERYTHING, images, size, torch.Generator().manual_seed(3))
    torch.testing.assert_close(fast, slow, atol=0.02, rtol=0)
    assert float(slow.std()) > 30, "not trivial"


def test_normalising_is_fused() -> None:
    preprocess = Preprocess(size=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.5, 0.7))
    images = torch.randint(0, 256, (9, 3, 40, 40), dtype=torch.uint8)
    apart = preprocess.normalise(EVERYTHING(images, (32, 32), torch.Generator().manual_seed(3)))
    fused = EVERYTHING(images, (32, 32), torch.Generator().manual_seed(3), preprocess)
    torch.testing.assert_close(fused, apart, atol=1e-4, rtol=0)
    assert not torch.equal(apart[:, 0], apart[:, 1])


def test_degraded_faces_are_those_that_the_command_measures() -> None:
    preprocess = Preprocess(size=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.5, 0.7))
    levels = LevelOptions(noise=(15,), pixels=(64, 256))
    worse = Augment(**{**STILL, "degrade": 0.6, "kinds": ("noise", "pixels"), "levels": levels})
    images = batch(20)
    draws = worse.draw(20, images.shape[-2:], (32, 32), torch.Generator().manual_seed(0))
    assert set(draws["degrade"].tolist()) == {-1, 0, 1, 2}, "some faces stay, and every change is drawn"
    found = worse.apply(images, draws, (32, 32), preprocess)
    for face, place, seed, image in zip(found, draws["degrade"], draws["seed"], images, strict=True):
        expected = image[:, 4:36, 4:36].movedim(0, -1).numpy()
        if place >= 0:
            kind, level = (("noise", 15), ("pixels", 64), ("pixels", 256))[place]
            expected = preprocess.fit(KINDS[kind].change(expected, level, np.random.default_rng(int(seed))))
        torch.testing.assert_close(
            face, torch.from_numpy(preprocess.normalise(stack([expected])))[0], atol=1e-5, rtol=0
        )
    apart = [worse.apply(images[i : i + 3], take(draws, slice(i, i + 3)), (32, 32), preprocess) for i in (0, 3)]
    torch.testing.assert_close(torch.cat(apart), found[:6])


@pytest.mark.parametrize("degrade", [0.0, 0.7])
def test_neither_the_memory_format_nor_the_division_of_a_batch_matters(degrade: float) -> None:
    everything = replace(EVERYTHING, degrade=degrade)
    images = torch.randint(0, 256, (9, 3, 40, 40), dtype=torch.uint8)
    whole = everything(images, (32, 32), torch.Generator().manual_seed(3))
    strided = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(everything(strided, (32, 32), torch.Generator().manual_seed(3)), whole)
    draws = everything.draw(9, images.shape[-2:], (32, 32), torch.Generator().manual_seed(3))
    torch.testing.assert_close(everything.apply(images, draws, (32, 32), chunk=1), whole)
    assert everything(images[:0], (32, 32), torch.Generator()).shape == (0, 3, 32, 32)
