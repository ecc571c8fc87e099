"""The commands for photos as a user types them, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from tests.helpers.commands import every_fourth, mistaken, succeed
from tests.helpers.encoders import make


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, portrait: Image.Image) -> Path:
    root = tmp_path_factory.mktemp("photos")
    (root / "photos" / "grace").mkdir(parents=True)
    portrait.save(root / "photos" / "grace" / "a.jpg")
    portrait.rotate(8).save(root / "photos" / "grace" / "b.png")
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(root / "photos" / "grace" / "noise.png")
    return root


def test_photos_are_aligned_and_compared(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    told = succeed("align", f"images={photos / 'photos'}", f"out={out}", "size=112", "margin=1.0", out=tmp_path / "run")
    assert (told["photos"], told["photos_with_face"]) == (3, 2)
    assert scan_folder(out).paths == ("grace/a.jpg", "grace/b.jpg")
    assert (out / "skipped.csv").read_text().splitlines()[1] == "grace/noise.png,no face found"
    a, b = (photos / "photos" / "grace" / name for name in ("a.jpg", "b.png"))
    found = succeed("compare", "encoder=sface", f"a={a}", f"b={b}", out=tmp_path / "compare")
    assert found["same"]
    assert found["sq_dist"] < found["threshold"] < 2
    assert found["a"]["faces"] == 1
    assert (tmp_path / "compare" / "compare.png").is_file()
    cut = ["encoder=sface", f"a={out / 'grace' / 'a.jpg'}", f"b={out / 'grace' / 'b.jpg'}", "detector=none"]
    assert succeed("compare", *cut, out=tmp_path / "cut")["sq_dist"] == pytest.approx(found["sq_dist"], abs=0.03)


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"),
    every_fourth(
        [
            ("align", ["images={photos}/nowhere", "out={out}/f"], 3, "no such folder"),
            ("align", ["images={photos}", "out={photos}"], 3, "this is the folder of the photos"),
            ("align", ["images={photos}", "out={out}/f", "template=arcfac"], 2, "did you mean 'arcface'"),
            ("align", ["images={photos}", "out={out}/f", "pick=biggest"], 2, "known: prominent, largest, center, all"),
            ("align", ["images={photos}/noise", "out={out}/f"], 3, "no usable face in 1 photos"),
            ("compare", ["encoder=sfac", "a={photos}/a.jpg", "b={photos}/a.jpg"], 3, "did you mean 'sface'"),
            ("compare", ["encoder=sface", "a={photos}/noise/n.png", "b={photos}/a.jpg"], 3, r"n.png: no face found"),
            (
                "compare",
                ["encoder=sface", "a={photos}/a.jpg", "b={photos}/a.jpg", "far=0.5"],
                3,
                "no threshold for far=0.5",
            ),
            (
                "embed",
                ["encoder={out}/e", "images={faces}", "out={out}/v"],
                3,
                "the encoder reads faces not aligned at all",
            ),
            (
                "embed",
                ["encoder={out}/e", "images={photos}", "out={out}/v", "detector=yunet"],
                2,
                "reads cropped faces",
            ),
        ]
    ),
)
def test_a_mistake_is_one_clear_line(
    name: str, arguments: list[str], code: int, said: str, tmp_path: Path, portrait: Image.Image
) -> None:
    from facenet.data.sources.folder import write_alignment
    from facenet.faces.alignment import Alignment

    places = {"photos": tmp_path / "photos", "out": tmp_path / "out", "faces": tmp_path / "faces"}
    for place in (*places.values(), tmp_path / "photos" / "noise"):
        place.mkdir()
    for place in ("photos", "faces"):
        portrait.resize((128, 150)).save(places[place] / "a.jpg")
    write_alignment(places["faces"], Alignment())
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "noise" / "n.png")
    save_bundle(make(), tmp_path / "out" / "e")
    given = [argument.format(**places) for argument in arguments]
    got, text = mistaken(name, *given, out=tmp_path / "run")
    assert got == code, text
    assert said in text
    assert len(text.strip().splitlines()) == 1
