"""The commands as a user types them: the pipeline on image files, and one clear line for each mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.commands.options import command_module
from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from facenet.evaluation.calibration import calibrate
from facenet.types import EmbeddingSet
from tests.helpers import ROOT
from tests.helpers.commands import mistaken, play, succeed
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 people, 6 images each, told apart by colours that even an untrained net sees."""
    return write_tree(tmp_path_factory.mktemp("cli") / "faces", 12, 6)


@pytest.fixture(scope="module")
def encoder(faces: Path) -> Path:
    made = make()
    made.thresholds = calibrate(made, scan_folder(faces), (0.1, 0.01))
    save_bundle(made, faces.parent / "encoder")
    return faces.parent / "encoder"


@pytest.fixture(scope="module")
def embeddings(faces: Path, encoder: Path) -> Path:
    out = faces.parent / "embeddings"
    metrics = succeed("embed", f"encoder={encoder}", f"images={faces}", f"out={out}", out=faces.parent / "run_embed")
    assert (metrics["images"], metrics["identities"], metrics["skipped"]) == (72, 12, 0)
    return out


def test_index_search_remove(faces: Path, encoder: Path, embeddings: Path, tmp_path: Path) -> None:
    gallery = f"gallery={tmp_path / 'gallery'}"
    added = succeed("index", gallery, f"add={embeddings}", f"encoder={encoder}", out=tmp_path / "add")
    assert added["added"] == 72
    query = faces / "p003" / "p003_0002.png"
    search = ("search", gallery, f"encoder={encoder}", "far=0.1")
    found = succeed(*search, f"query={query}", "k=3", out=tmp_path / "one")
    best = found["results"][0]["neighbours"][0]
    assert best["identity"] == "p003"
    assert best["sq_dist"] < 1e-5
    assert best["accepted"]
    whole = succeed(*search, f"query={faces}", "k=1", out=tmp_path / "all")
    assert (whole["top1"], whole["with_a_match"]) == (1.0, 72)
    changes = ("rename=p003", "to=Ann", "by=identity", "remove=p004", "check=true")
    changed = succeed("index", gallery, *changes, out=tmp_path / "change")
    assert (changed["removed"], changed["renamed"], changed["identities"]) == (6, 6, 11)
    after = succeed(*search, f"query={embeddings}", "k=100", out=tmp_path / "after")
    assert len(after["results"][0]["neighbours"]) == 66, "k larger than the gallery gives the whole gallery"
    assert "strangers_rejected" in after


@pytest.mark.slow  # six commands; tests/gallery holds filters and exports in every run
def test_index_with_metadata_kinds_filters_and_export(faces: Path, embeddings: Path, tmp_path: Path) -> None:
    paths = EmbeddingSet.load(embeddings).paths
    lines = [json.dumps({"path": path, "id": f"face {i}", "camera": i % 3}) for i, path in enumerate(paths)]
    (tmp_path / "cameras.jsonl").write_text("\n".join(lines))
    gallery = f"gallery={tmp_path / 'gallery'}"
    told = succeed(
        "index", gallery, f"add={embeddings}", f"metadata={tmp_path / 'cameras.jsonl'}", "factory='IVF4,SQ8'",
        "export=npy", f"out={tmp_path / 'copy'}", out=tmp_path / "add",
    )  # fmt: skip
    assert told["exported"] == 72
    index = told["index"]
    assert (index["factory"], index["instead_of"]) == ("Flat", "IVF4,SQ8"), "72 faces can not be sure of 0.99"
    assert np.array_equal(EmbeddingSet.load(tmp_path / "copy").vectors, EmbeddingSet.load(embeddings).vectors)
    search = ("search", gallery, "k=72")
    one = ("query=face 7", "threshold=0.3", "where={camera: 1}", "sheet=true")
    found = succeed(*search, *one, out=tmp_path / "one")
    neighbours = found["results"][0]["neighbours"]
    assert {hit["metadata"]["camera"] for hit in neighbours} == {1}
    assert [hit["rank"] for hit in neighbours] == list(range(1, 24)), "24 of that camera, itself left out"
    assert (tmp_path / "one" / "sheet.png").is_file()
    assert len((tmp_path / "one" / "neighbours.csv").read_text().splitlines()) == 24
    middle = neighbours[len(neighbours) // 2]["sq_dist"]
    asked = (f"query={embeddings}", f"threshold={middle}", "within=true")
    near = [one["neighbours"] for one in succeed(*search, *asked, out=tmp_path / "near")["results"]]
    assert all(hit["accepted"] and hit["sq_dist"] <= middle for hits in near for hit in hits)
    assert len({len(hits) for hits in near}) > 1
    again = succeed("index", gallery, "kind=flat", "compact=true", out=tmp_path / "flat")
    assert (again["index"]["factory"], again["rebuilt"]) == ("Flat", True)


def test_search_answers_line_by_line(faces: Path, encoder: Path, embeddings: Path, tmp_path: Path) -> None:
    succeed("index", f"gallery={tmp_path / 'g'}", f"add={embeddings}", out=tmp_path / "add")
    line = [f"gallery={tmp_path / 'g'}", f"encoder={encoder}", "far=0.1", "k=1", "interactive=true", "json=true"]
    asked = f"{faces / 'p003' / 'p003_0002.png'}\n\n/nowhere.png\np004/p004_0001.png\n"
    done = play("search", *line, out=tmp_path / "run", given=asked)
    answers = [json.loads(text) for text in done.text.splitlines() if text.startswith("{")]
    assert [one.get("answer") for one in answers] == ["p003", None, "p004"]
    assert "no such file or folder" in answers[1]["error"]
    assert (done.metrics["answered"], done.metrics["failed"]) == (2, 1)
    assert (done.code, done.errors) == (0, "")


def test_verify_compare_cluster(faces: Path, encoder: Path, embeddings: Path, tmp_path: Path) -> None:
    verified = succeed("verify", f"encoder={encoder}", f"data.root={faces}", "data.evaluation=0.5", out=tmp_path / "v")
    assert 0.5 < verified["verification"]["accuracy"] <= 1
    again = succeed(
        "verify",
        f"encoder={encoder}",
        f"data.root={faces}",
        f"pairs={tmp_path / 'v' / 'pairs.csv'}",
        out=tmp_path / "u",
    )
    assert again["verification"] == verified["verification"], "the drawn pairs are written and can be used again"
    pairs = tmp_path / "pairs.csv"
    lines = [f"p{i:03d}/p{i:03d}_0001,p{j:03d}/p{j:03d}_0002,{int(i == j)},{i % 2}" for i in range(4) for j in range(4)]
    pairs.write_text("first,second,same,fold\n" + "\n".join(lines))
    done = play(
        "verify", f"encoder={encoder}", f"data.root={faces}", f"pairs={pairs}", "calibrate=true", out=tmp_path / "w"
    )
    assert done.errors.startswith("warning: 4 people are few for a calibration"), done.errors
    metrics = done.metrics
    assert metrics["verification"]["pairs"] == 16
    assert metrics["thresholds"]
    assert metrics["calibrated_on_reported"] is True
    assert "the 4 people reported here: try the thresholds on others" in done.text
    assert metrics["leakage"]["shared_people"] is None
    kept = f"embeddings={tmp_path / 'v' / 'evaluation'}"
    every = succeed("verify", kept, "identification=true", "fars=[0.1]", out=tmp_path / "a")
    assert every["all_pairs"]["faces"] == 36
    assert list(every["all_pairs"]["val_at_far"]) == ["1e-1"]
    assert every["identification"]["people"] + 3 <= 6
    given = succeed("verify", kept, f"pairs={tmp_path / 'v' / 'pairs.csv'}", "quantise=int8", out=tmp_path / "g")
    assert given["verification"] == verified["verification"]
    assert given["quantised"]["int8"]["float_bytes_per_face"] == 4 * given["quantised"]["int8"]["bytes_per_face"]
    a, b = faces / "p001" / "p001_0001.png", faces / "p001" / "p001_0002.png"
    same = succeed("compare", f"encoder={encoder}", f"a={a}", f"b={b}", "far=0.1", out=tmp_path / "c")
    assert same["same"] == (same["sq_dist"] <= same["threshold"])
    clusters = succeed("cluster", f"embeddings={embeddings}", "threshold=0.0001", out=tmp_path / "k")
    assert clusters["faces"] == 72
    assert (tmp_path / "k" / "clusters.csv").read_text().startswith("cluster,path,identity\n")


def test_an_encoder_of_drawn_faces_warns_of_photographs(faces: Path, tmp_path: Path) -> None:
    drawn = make()
    drawn.training, drawn.thresholds = {"data": "synthetic"}, {0.1: 1.0}
    save_bundle(drawn, tmp_path / "e")
    picture = faces / "p000" / "p000_0001.png"
    Image.open(picture).save(tmp_path / "photo.jpg")
    for asked, warns in ((tmp_path / "photo.jpg", True), (picture, False)):
        line = [f"encoder={tmp_path / 'e'}", f"a={asked}", f"b={picture}", "far=0.1"]
        done = play("compare", *line, out=tmp_path / asked.stem)
        assert done.code == 0, done.errors
        assert done.errors.startswith("warning: this encoder has learned drawn faces alone") == warns


def test_search_warns_when_drawn_faces_meet_a_photograph(faces: Path, embeddings: Path, tmp_path: Path) -> None:
    drawn = make()
    drawn.training = {"data": "synthetic"}
    save_bundle(drawn, tmp_path / "e")
    succeed("index", f"gallery={tmp_path / 'g'}", f"add={embeddings}", out=tmp_path / "add")
    with Image.open(faces / "p001" / "p001_0001.png") as picture:
        picture.save(tmp_path / "photo.jpg")
    asked = (f"gallery={tmp_path / 'g'}", f"encoder={tmp_path / 'e'}", f"query={tmp_path / 'photo.jpg'}", "threshold=1")
    played = play("search", *asked, out=tmp_path / "s")
    assert played.code == 0
    assert played.errors.startswith("warning: this encoder has learned drawn faces alone")
    assert played.errors.count("\n") == 1


def test_photos_are_compared_as_a_search_in_a_gallery_does(
    faces: Path, encoder: Path, embeddings: Path, tmp_path: Path
) -> None:
    """The threshold is the gallery's, and said with what it costs."""
    gallery = f"gallery={tmp_path / 'g'}"
    succeed("index", gallery, f"add={embeddings}", out=tmp_path / "add")
    pair = [
        f"encoder={encoder}",
        *(f"{name}={faces / 'p001' / f'p001_000{i}.png'}" for i, name in ((1, "a"), (2, "b"))),
    ]
    found = succeed("search", gallery, f"encoder={encoder}", f"query={faces / 'p001'}", "fpir=0.2", out=tmp_path / "s")
    played = play("compare", *pair, gallery, "fpir=0.2", out=tmp_path / "compare")
    told = ("threshold", "rate_kind", "fpir", "faces", "threshold_from", "expected_strangers_accepted")
    assert {name: played.metrics[name] for name in told} == {name: found[name] for name in told}
    assert played.metrics["same"] == (played.metrics["sq_dist"] <= found["threshold"])
    for said in ("threshold at fpir=0.2", "the calibration, far 0.0031 of 72 faces", "strangers let in, expected"):
        assert said in played.text
    assert succeed("compare", *pair, gallery, out=tmp_path / "usual")["fpir"] == 0.05
    page = succeed("report", f"runs={tmp_path / 's'}", "fpir=0.1", out=tmp_path / "report")
    assert page["chapters"] == {"Search: s": ["The threshold and what it costs", "Other rates", "Answers"]}


def test_the_run_folder_is_named_by_the_command(encoder: Path, tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "scripts" / "index.py"), f"gallery={tmp_path / 'none'}", "info=true"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert (tmp_path / "runs" / "index").is_dir()


def test_another_encoder_is_refused_by_fingerprint(
    faces: Path, encoder: Path, embeddings: Path, tmp_path: Path
) -> None:
    other = make(seed=5)
    other.thresholds = {0.001: 1.0}
    save_bundle(other, tmp_path / "other")
    gallery, foreign = f"gallery={tmp_path / 'g'}", f"encoder={tmp_path / 'other'}"
    code, said = mistaken("index", gallery, f"add={embeddings}", foreign, out=tmp_path / "r")
    assert (code, "another encoder" in said) == (3, True), said
    succeed("index", gallery, f"add={embeddings}", out=tmp_path / "s")
    query = f"query={faces / 'p000' / 'p000_0001.png'}"
    code, said = mistaken("search", gallery, foreign, query, out=tmp_path / "t")
    assert (code, other.fingerprint[:12] in said) == (3, True), said


def test_shell_scripts_parse() -> None:
    bash = shutil.which("bash")
    assert bash
    for name in ("quickstart", "test", "environment"):
        assert subprocess.run([bash, "-n", str(ROOT / "scripts" / name)], check=False).returncode == 0


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_calls_its_command_and_nothing_else(script: Path) -> None:
    doc, _, code = script.read_text().partition("\n\n")
    assert doc == f'"""The same as ``facenet {script.stem}``, for a clone."""'
    module = command_module(script.stem).__name__
    assert code == f'from {module} import main\n\nif __name__ == "__main__":\n    main()\n'
