"""Exporting as a user types it: the file stands for the encoder in every command, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.encoders import lookup as encoders
from facenet.encoders.bundle import load_bundle, save_bundle
from tests.helpers.commands import every_fourth, mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.onnx_graphs import quantised
from tests.helpers.pictures import write_tree

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("export_cli") / "faces", 12, 6)


@pytest.fixture(scope="module")
def encoder(faces: Path) -> Path:
    made = make()
    made.thresholds = {0.01: 0.05, 0.1: 0.2}
    save_bundle(made, faces.parent / "encoder")
    return faces.parent / "encoder"


@pytest.fixture(scope="module")
def exported(faces: Path, encoder: Path) -> dict[str, Any]:
    base = faces.parent
    pairs = base / "pairs.csv"
    lines = [f"p{i:03d}/p{i:03d}_0001,p{j:03d}/p{j:03d}_0002,{int(i == j)},{i % 2}" for i in range(8) for j in range(8)]
    pairs.write_text("first,second,same,fold\n" + "\n".join(lines))
    given = [f"encoder={encoder}", f"out={base / 'e.onnx'}", f"int8={base / 'e8.onnx'}", f"images={faces}"]
    given += [f"pairs={pairs}", "calibration_images=20", "speed=true", "batch_size=2", "threads=1"]
    return succeed("export", *given, out=base / "run")


@pytest.mark.slow  # traces and quantises a net; tests/export exports one in every run
def test_the_metrics_say_what_was_made(faces: Path, encoder: Path, exported: dict[str, Any]) -> None:
    base = faces.parent
    assert exported["fingerprint"] == load_bundle(encoder).fingerprint
    assert exported["bytes"] == (base / "e.onnx").stat().st_size
    assert exported["int8"]["bytes"] == (base / "e8.onnx").stat().st_size < exported["bytes"] / 3
    assert max(exported["max_difference"].values()) <= 1e-5
    assert exported["mirror_in_graph"]
    assert exported["int8"]["calibration_images"] == 20
    assert list(exported["speed"]) == ["torch", "float32", "int8"]
    scores = exported["verification"]
    assert scores["int8"]["accuracy_difference"] == scores["int8"]["accuracy"] - scores["torch"]["accuracy"]
    assert scores["float32"]["verdicts_changed"] == 0


@pytest.mark.slow  # two commands; tests/export scores both in every run
def test_the_file_scores_as_the_bundle(faces: Path, encoder: Path, exported: dict[str, Any], tmp_path: Path) -> None:
    given = [f"data.root={faces}", f"pairs={faces.parent / 'pairs.csv'}"]
    by_bundle = succeed("verify", f"encoder={encoder}", *given, out=tmp_path / "a")["verification"]
    by_file = succeed("verify", f"encoder={faces.parent / 'e.onnx'}", *given, out=tmp_path / "b")["verification"]
    assert by_bundle["accuracy"] > 0.5
    assert by_file["accuracy"] == by_bundle["accuracy"] == exported["verification"]["float32"]["accuracy"]
    assert by_file["auc"] == pytest.approx(by_bundle["auc"])


@pytest.mark.slow  # four commands; tests/export holds file against encoder in every run
def test_the_file_takes_the_bundle_s_place(
    faces: Path, encoder: Path, exported: dict[str, Any], tmp_path: Path
) -> None:
    file, gallery = f"encoder={faces.parent / 'e.onnx'}", f"gallery={tmp_path / 'g'}"
    succeed("embed", f"encoder={encoder}", f"images={faces}", f"out={tmp_path / 'v'}", out=tmp_path / "embed")
    succeed("index", gallery, f"add={tmp_path / 'v'}", file, out=tmp_path / "add")
    query = faces / "p003" / "p003_0002.png"
    found = succeed("search", gallery, file, f"query={query}", "far=0.1", "k=1", out=tmp_path / "search")
    (best,) = found["results"][0]["neighbours"]
    assert (best["identity"], best["accepted"], best["sq_dist"] < 1e-5) == ("p003", True, True)
    succeed("embed", file, f"images={faces}", f"out={tmp_path / 'w'}", out=tmp_path / "embed2")
    succeed("cluster", f"embeddings={tmp_path / 'w'}", file, "far=0.01", out=tmp_path / "cluster")
    a, b = query, faces / "p003" / "p003_0004.png"
    one = [succeed("compare", e, f"a={a}", f"b={b}", "far=0.1", out=tmp_path / f"c{i}")
           for i, e in enumerate((file, f"encoder={encoder}"))]  # fmt: skip
    assert one[0]["sq_dist"] == pytest.approx(one[1]["sq_dist"], abs=1e-5)
    assert one[0]["threshold"] == one[1]["threshold"]


MISTAKES = [
    ("export", ["encoder={e}", "out={new}", "int8={new8}"], 2, "need images="),
    ("export", ["encoder={e}", "out={new}", "pairs=p.csv"], 2, "need images="),
    ("export", ["encoder={e}", "out={new}", "int8={new}", "images={faces}"], 2, "the same file"),
    ("export", ["encoder={e}", "out={new}", "calibration_images=0"], 2, "at least 1"),
    ("export", ["encoder={e}"], 2, "not given: out=..."),
    ("export", ["encoder={file}", "out={new}"], 2, "an ONNX file already"),
    ("export", ["encoder=sface", "out={new}"], 2, "an ONNX file already"),
    ("export", ["encoder=/nowhere", "out={new}"], 3, "no such encoder folder"),
    ("export", ["encoder={e}", "outt={new}"], 2, "did you mean 'out'"),
    ("export", ["encoder={e}", "out={faces}/p000/p000_0001.png/x.onnx"], 3, "can not be written"),
    ("verify", ["encoder={file}", "data.root={faces}", "calibrate=true"], 2, "name the folder that it was made of"),
    ("verify", ["encoder={cut}", "data.root={faces}"], 3, "cut.onnx: damaged"),
    ("verify", ["encoder={foreign}", "data.root={faces}"], 3, "without a record of model and preprocessing"),
    ("search", ["gallery=/nowhere", "encoder={file}", "query={faces}"], 3, "/nowhere: no gallery there"),
]


@pytest.mark.parametrize(("name", "arguments", "code", "says"), every_fourth(MISTAKES))
def test_a_mistake_is_one_clear_line(
    name: str,
    arguments: list[str],
    code: int,
    says: str,
    faces: Path,
    encoder: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    places = {"e": encoder, "faces": faces, "file": faces.parent / "e.onnx"}
    places |= {key: tmp_path / f"{key}.onnx" for key in ("new", "new8", "cut", "foreign")}
    if {"encoder={file}", "encoder={cut}"} & {*arguments}:  # few do: an export takes ten seconds
        request.getfixturevalue("exported")
        places["cut"].write_bytes(places["file"].read_bytes()[:-1])
    places["foreign"].write_bytes(quantised(4)[0])
    given = [argument.format(**places) for argument in arguments]
    status, said = mistaken(name, *given, out=tmp_path / "run")
    assert (status, len(said.strip().splitlines())) == (code, 1), said[-2000:]
    assert said.startswith("error: ")
    assert says in said
    assert not places["new"].exists()
    assert not (tmp_path / "run" / "evaluation").exists(), "said before the work"


@pytest.mark.slow  # a second command; fingerprints are compared in tests/encoders
def test_the_8_bit_file_is_another_encoder(
    faces: Path, exported: dict[str, Any], tmp_path: Path) -> None:  # fmt: skip
    files = [faces.parent / name for name in ("e.onnx", "e8.onnx")]
    succeed("embed", f"encoder={files[0]}", f"images={faces}", f"out={tmp_path / 'v'}", out=tmp_path / "embed")
    succeed("index", f"gallery={tmp_path / 'g'}", f"add={tmp_path / 'v'}", out=tmp_path / "add")
    given = [f"gallery={tmp_path / 'g'}", f"encoder={files[1]}", f"query={faces}", "far=0.1"]
    status, said = mistaken("search", *given, out=tmp_path / "s")
    assert (status, encoders.load(files[1]).fingerprint[:12] in said) == (3, True), said
