"""Parts of a picture that a network reads, one or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.data.preprocess import Preprocess
from facenet.data.views import View, cut_views, place, tall_size
from facenet.errors import ConfigError
from facenet.faces.alignment import Alignment
from tests.helpers.pictures import picture

VIEWS = (View((32, 32), 0.5), View((16, 48), 0.8, (0.4, 0.5)), View((20, 20)))


def test_views_lie_below_each_other() -> None:
    pixels = picture(100, 100)
    tall = cut_views(pixels, VIEWS)
    assert tall.shape == (*tall_size(VIEWS), 3) == (68, 48, 3)
    for view, (rows, columns) in zip(VIEWS, place(VIEWS), strict=True):
        alone = Preprocess(size=(32, 32)).reading((view,)).read(pixels)
        assert np.array_equal(tall[rows, columns], alone)
    assert np.array_equal(tall[:32, 8:40], Preprocess(size=(32, 32), crop=0.5).read(pixels)), "as without views"


def test_the_mirror_image_of_a_tall_picture_is_that_of_each_view() -> None:
    pixels = picture(100, 100)
    views = (View((32, 32), 0.5), View((16, 48), 0.8, (0.4, 0.5)))
    assert np.array_equal(cut_views(pixels, views)[:, ::-1], cut_views(pixels[:, ::-1], views))


def test_a_part_beyond_the_edge_repeats_it() -> None:
    pixels = picture(100, 100)
    part = View((50, 50), 0.5, (0.1, 0.5)).region(pixels)
    assert part.shape == (50, 50, 3)
    assert (part[:16] == pixels[:1, 25:75]).all(), "15 rows above the picture and its first"
    assert np.array_equal(part[15:], pixels[:35, 25:75])


def test_a_crop_around_another_centre_is_read_alike_from_files_and_arrays(tmp_path: Path) -> None:
    pixels = picture(90, 120)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    low = Preprocess(size=(16, 32), crop=0.6, centre=(0.9, 0.5))
    found = low.read(tmp_path / "one.png")
    assert np.array_equal(found, low.read(pixels))
    assert found.mean() > Preprocess(size=(16, 32), crop=0.6).read(pixels).mean(), "it gets brighter downwards"
    assert low.read(pixels, 1.25).shape == (20, 40, 3), "training shows what lies around"


def test_records_of_views() -> None:
    plain = Preprocess(size=(32, 32), crop=0.5)
    assert not {"views", "centre"} & plain.to_dict().keys(), "fingerprints stay as they were"
    for made in (plain.with_views(7), Preprocess(size=(32, 32), centre=(0.4, 0.5)).with_views(1)):
        assert Preprocess.from_dict(made.to_dict()) == made
    assert plain.with_views(1) is plain
    seven = plain.with_views(7)
    assert seven.size == (7 * 32, 32)
    assert seven.views[0] == View((32, 32), 0.5)
    assert len(set(seven.views)) == 7
    assert seven.stored_size() == seven.size


def test_views_of_faces_that_were_cut_before() -> None:
    whole = Alignment(margin=2.0)
    made = Preprocess(size=(32, 32), crop=0.5, align=Alignment(margin=1.0), centre=(0.4, 0.5))
    inner = made.of(whole)
    assert (inner.align, inner.crop, inner.centre) == (None, 0.25, (0.45, 0.5))
    assert made.with_views(3).of(whole).views == inner.with_views(3).views


def test_wrong_views_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"views: expected size \(64, 32\)"):
        Preprocess(size=(32, 32), views=(View((32, 32)), View((32, 32))))
    with pytest.raises(ConfigError, match="views: a picture of 4096x2048 pixels"):
        Preprocess().reading([View((2048, 2048))] * 2)
    with pytest.raises(ConfigError, match="averages 3 views already"):
        Preprocess(size=(32, 32)).with_views(3).with_views(2)
    with pytest.raises(ConfigError, match="centre: expected"):
        Preprocess(size=(32, 32), centre=(0.99, 0.5)).with_views(7)
    for size in ((32,), (32.0, 32), "ab"):
        with pytest.raises(ConfigError, match="size: expected"):
            View(size)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="centre: expected"):
        Preprocess(centre=(1.2, 0.5))
    with pytest.raises(ConfigError, match="crop: expected"):
        View((32, 32), 0.0)
