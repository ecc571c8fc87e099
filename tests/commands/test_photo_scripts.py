"""The commands for photos as a user types them, and one clear line for each mistake."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from facenet.encoders.embedding import embed_folder
from facenet.encoders.lookup import load
from tests.helpers.commands import every_fourth, mistaken, play, succeed
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


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
                ["encoder=sface", "images={tight}", "out={out}/v"],
                3,
                "tight: its faces are cut at 0.8 times the arcface template, the encoder reads 1 times the arcface"
                " template, which they do not hold; run facenet align images=PHOTOS out=FACES"
                " template=arcface margin=1 size=112, then this command with FACES (or with PHOTOS)",
            ),
            ("compare", ["encoder=sface", "a={photos}/a.jpg"], 2, "a=PHOTO b=PHOTO, or a table of them, pairs=FILE"),
            ("compare", ["encoder=sface", "pairs={photos}/none.csv"], 3, "none.csv: no such file"),
            ("align", ["images={photos}", "out={tight}", "format=png"], 3, "margin=0.8, and margin=2.0 is asked for"),
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

    places = {name: tmp_path / name for name in ("photos", "out", "tight")}
    for place in (*places.values(), tmp_path / "photos" / "noise"):
        place.mkdir()
    for place in ("photos", "tight"):
        portrait.resize((128, 150)).save(places[place] / "a.jpg")
    write_alignment(places["tight"], Alignment(margin=0.8))
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "noise" / "n.png")
    save_bundle(make(), tmp_path / "out" / "e")
    given = [argument.format(**places) for argument in arguments]
    got, text = mistaken(name, *given, out=tmp_path / "run")
    assert got == code, text
    assert said in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.slow  # two commands with a detector
def test_a_table_of_pairs_is_compared_and_what_can_not_be_is_listed(photos: Path, tmp_path: Path) -> None:
    names = ["a.jpg", "b.png", "noise.png", "gone.jpg", "two.png"]
    page = Image.new("RGB", (1030, 600))
    with Image.open(photos / "photos" / "grace" / "a.jpg") as portrait:
        page.paste(portrait, (0, 0))
        page.paste(portrait.resize((430, 504)), (540, 40))
    page.save(photos / "photos" / "two.png")
    table = tmp_path / "pairs.csv"
    where = [str(photos / "photos" / ("grace" if name != "two.png" else "") / name) for name in names]
    rows = [(where[0], where[1]), (where[0], where[2]), (where[3], where[0]), (where[4], where[0])]
    table.write_text("first,second\n" + "\n".join(",".join(row) for row in rows) + "\n")
    found = succeed("compare", "encoder=sface", f"pairs={table}", out=tmp_path / "run")
    assert (found["pairs"], found["one_person"], found["two_people"], found["not_compared"]) == (4, 2, 0, 2)
    with (tmp_path / "run" / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["verdict"] for line in lines] == ["one person", "not compared", "not compared", "one person"]
    assert lines[1]["note"].startswith(f"{where[2]}: no face found")
    assert "no such file" in lines[2]["note"]
    assert lines[3]["note"].startswith(f"{where[4]}: 2 faces, taken: ")
    direct = load("sface").embed(where[:2])
    assert float(lines[0]["sq_dist"]) == pytest.approx(float(((direct[0] - direct[1]) ** 2).sum()), abs=1e-5)


def test_a_table_of_another_tool_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    save_bundle(make(), tmp_path / "e")
    write_tree(tmp_path / "faces", 2, 2)
    rows = ["p000/p000_0001.png,p000/p000_0002.png,Yes", "p000/p000_0001.png,p001/p001_0001.png,No"]
    (tmp_path / "faces" / "master.csv").write_text("\n".join(["file_x,file_y,Decision", *rows]))
    given = [f"encoder={tmp_path / 'e'}", f"pairs={tmp_path / 'faces' / 'master.csv'}", "threshold=4"]
    code, said = mistaken("compare", *given, out=tmp_path / "no")
    assert (code, "pair_columns.first=NAME" in said) == (3, True)
    columns = ["pair_columns.first=file_x", "pair_columns.second=file_y"]
    assert succeed("compare", *given, *columns, out=tmp_path / "yes")["one_person"] == 2


@pytest.mark.slow  # four commands with three nets; tests/data cuts such folders in every run
def test_a_folder_of_margin_two_is_read_by_every_encoder(photos: Path, tmp_path: Path) -> None:
    """By sface as the photos were, by an encoder of central crops as pictures."""
    faces, source = tmp_path / "faces", photos / "photos" / "grace"
    succeed("align", f"images={source}", f"out={faces}", out=tmp_path / "align")
    save_bundle(make(crop=0.6), tmp_path / "e")
    played = play(
        "embed", f"encoder={tmp_path / 'e'}", f"images={faces}", f"out={tmp_path / 'v'}", out=tmp_path / "run"
    )
    assert played.code == 0, played.errors
    assert "the central 60% of faces cut at 2 times the arcface template, which is 1.2 times" in played.text
    sface = load("sface")
    whole = sface.embed([source / "a.jpg", source / "b.png"])
    for encoder in (sface, load("sface", detector="none")):
        cut, _ = embed_folder(encoder, faces)
        assert list(cut.paths) == ["a.jpg", "b.jpg"]
        assert ((cut.vectors - whole) ** 2).sum(1).max() < 0.03, "the same faces as those of the photos"


@pytest.mark.slow  # three commands with a detector
def test_search_says_that_a_photo_shows_two_people_and_lists_what_shows_nobody(
    tmp_path: Path, portrait: Image.Image
) -> None:
    couple = Image.new("RGB", (420, 240), "gray")
    for left in (10, 220):
        couple.paste(portrait.resize((190, 223)), (left, 8))
    for name, picture in (("a", portrait), ("both", couple), ("nobody", Image.new("RGB", (200, 200), "gray"))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        picture.save(tmp_path / "photos" / name / "1.png")
    one = f"images={tmp_path / 'photos' / 'a'}"
    succeed("embed", "encoder=sface", one, f"out={tmp_path / 'v'}", out=tmp_path / "e")
    succeed("index", f"gallery={tmp_path / 'g'}", f"add={tmp_path / 'v'}", out=tmp_path / "i")
    ask = ["search", f"gallery={tmp_path / 'g'}", "encoder=sface"]
    pair = play(*ask, f"query={tmp_path / 'photos' / 'both' / '1.png'}", out=tmp_path / "s")
    assert "2 faces" in pair.text, pair.text
    assert pair.metrics["results"][0]["answer"] is not None
    folder = play(*ask, f"query={tmp_path / 'photos'}", out=tmp_path / "t")
    assert folder.metrics["skipped"] == 1
    assert "nobody/1.png" in (tmp_path / "t" / "skipped.csv").read_text()
    assert "2 faces" not in folder.text
