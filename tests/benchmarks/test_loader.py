"""The loader benchmark at a small size: what it returns, and that ratios and stages belong to the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loader import Options, run, tables
from facenet.data.drawn.faces import draw, write_folder
from facenet.data.options import DrawnOptions
from facenet.errors import ConfigError, DataError


@pytest.mark.slow  # times loaders
def test_run_returns_plain_positive_numbers(tmp_path: Path) -> None:
    write_folder(draw(range(2), 3, DrawnOptions(size=64)), tmp_path)
    options = Options(
        root=str(tmp_path), faces=12, size=32, crops=(0.5,), repeats=2, workers=0, nets=("small",), batch_size=6,
        seconds=0.05,
    )  # fmt: skip
    result = run(options)
    crop, net = result["crops"]["0.5"], result["nets"]["small"]
    rates = [value for name, value in crop.items() if name not in ("stages", "of_bare_decoding")]
    assert len(rates) == 4, "ours, bare decoding and two peers"
    assert all(0 < rate["least"] <= rate["faces_per_core_second"] <= rate["most"] for rate in rates)
    ours, bare = (crop[name]["faces_per_core_second"] for name in ("ours", "bare decoding"))
    assert crop["of_bare_decoding"] == ours / bare < 1
    assert set(crop["stages"]) == {"decode and crop", "resize", "augment and normalise"}
    assert min(crop["stages"].values()) > 0
    for key in ("files", "cache", "files_trained", "cache_trained"):
        expected = net[key]["faces_per_second"] / net["step"]["faces_per_second"]
        assert net[f"{key}_ratio"] == pytest.approx(expected)
    (_, header, rows), (_, net_header, net_rows) = tables(result)
    assert {len(row) for row in rows} == {len(header)}
    assert {len(row) for row in net_rows} == {len(net_header)}
    assert (len(rows), len(net_rows)) == (4 + 1 + 3, 5)


@pytest.mark.slow  # 120 faces of 250 pixels are drawn
def test_drawn_faces_need_no_folder() -> None:
    result = run(Options(faces=5, size=32, crops=(1.0,), repeats=1, nets=(), peers=False, batch_size=5))
    assert (result["images"], result["faces"], result["nets"]) == ("drawn", 5, {})
    assert set(result["crops"]["1"]) == {"bare decoding", "ours", "of_bare_decoding", "stages"}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.nets: unknown name 'smal'"):
        run(Options(nets=("smal",)))
    with pytest.raises(DataError, match="no usable image"):
        run(Options(root=str(tmp_path)))
