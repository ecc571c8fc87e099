"""Which faces calibrate, and that exported files are scored on the pairs as their encoder is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facenet.data.options import PairColumns
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import read_pairs
from facenet.data.preprocess import Preprocess
from facenet.data.sources.folder import scan_folder
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import load_onnx, seal
from facenet.errors import DataError
from facenet.evaluation.evaluate import evaluate
from facenet.export.faces import calibration_faces, faces_of_pairs, score_encoders
from facenet.export.onnx import record
from facenet.models.layers import L2Normalize
from tests.helpers.encoders import OPTIONS
from tests.helpers.onnx_graphs import projection
from tests.helpers.pictures import write_tree

pytest.importorskip("onnx")
SIZE = Preprocess(size=(32, 32))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people with 3 images each; the pairs are of the first four."""
    root = write_tree(tmp_path_factory.mktemp("faces") / "faces", 8, 3)
    lines = [
        f"p{i:03d}/p{i:03d}_000{k},p{j:03d}/p{j:03d}_000{k + 1},{int(i == j)}"
        for i in range(4)
        for j in range(4)
        for k in (1, 2)
    ]
    (root.parent / "pairs.csv").write_text("first,second,same\n" + "\n".join(lines))
    return root


def encoder_of(seed: int) -> tuple[Encoder, np.ndarray]:
    """An encoder of one layer, and the weight (2, 3 H W) of that: two numbers a face, so that it errs."""
    torch.manual_seed(seed)
    layer = nn.Linear(3 * SIZE.size[0] * SIZE.size[1], 2, bias=False)
    net = nn.Sequential(nn.Flatten(), layer, L2Normalize())
    return Encoder(
        net, "small", {**OPTIONS, "embedding_dim": 2}, replace(SIZE, mirror=False)
    ), layer.weight.detach().numpy()


@pytest.fixture(scope="module")
def files(tree: Path) -> dict[str, Path]:
    """The files of two encoders, with graphs by hand: the exporter has its own tests, and takes its time."""
    found = {name: tree.parent / f"{name}.onnx" for name in "ab"}
    for seed, file in enumerate(found.values()):
        encoder, weight = encoder_of(seed)
        file.write_bytes(seal(projection(weight, SIZE.size), record(encoder)))
    return found


def loaded(files: dict[str, Path]) -> dict[str, Encoder]:
    return {name: load_onnx(file) for name, file in files.items()}


def drawn_rows(tree: Path, **options: object) -> list[int]:
    """Which rows of the folder the calibration faces are."""
    records = scan_folder(tree)
    every = SIZE([records.source(row) for row in range(len(records))])
    faces = calibration_faces(SIZE, tree, **options).numpy()  # type: ignore[arg-type]
    return [int(np.abs(every - face).reshape(len(every), -1).max(1).argmin()) for face in faces]


def test_faces_are_drawn_and_those_of_the_pairs_come_last(tree: Path) -> None:
    pairs = str(tree.parent / "pairs.csv")
    named = faces_of_pairs(tree, pairs)[0].keys
    rows = drawn_rows(tree, count=12, last=named)
    assert sorted(rows) == list(range(12, 24)), "people that no pair names"
    assert rows != sorted(rows)
    assert set(drawn_rows(tree, count=20, last=named)) > set(range(12, 24))
    assert len(drawn_rows(tree, count=100)) == 24
    assert drawn_rows(tree, count=6) == drawn_rows(tree, count=6) != drawn_rows(tree, count=6, seed=1)
    assert set(drawn_rows(tree, count=6)) & set(range(12)), "without pairs from all"


def test_a_file_scores_as_its_encoder_does(tree: Path, files: dict[str, Path]) -> None:
    pairs = tree.parent / "pairs.csv"
    found = score_encoders(loaded(files), *faces_of_pairs(tree, str(pairs)))
    expected = evaluate(encoder_of(0)[0], scan_folder(tree), read_pairs(pairs))
    assert found["a"]["accuracy"] == expected["accuracy"]
    assert 0.5 < expected["accuracy"] < 1
    assert 0.5 < expected["auc"] == pytest.approx(found["a"]["auc"])
    assert found["a"]["accuracy_difference"] == found["a"]["verdicts_changed"] == 0
    assert found["b"]["verdicts_changed"] > 0
    assert found["b"]["accuracy_difference"] == found["b"]["accuracy"] - found["a"]["accuracy"] != 0


def test_missing_images_fail_unless_allowed(tree: Path, files: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "faces")
    (tmp_path / "faces" / "p000" / "p000_0001.png").unlink()
    options = {"images": tmp_path / "faces", "pairs": str(tree.parent / "pairs.csv")}
    with pytest.raises(DataError, match="allow_missing"):
        faces_of_pairs(**options)  # type: ignore[arg-type]
    named = faces_of_pairs(**options, allow_missing=True)  # type: ignore[arg-type]
    found = score_encoders(loaded({"a": files["a"]}), *named, allow_missing=True)
    assert found["a"]["skipped"] > 0
    with pytest.raises(DataError, match="one picture makes no pair"):
        faces_of_pairs(tree / "p001" / "p001_0001.png", str(options["pairs"]))


def test_a_table_of_faces_will_do(tree: Path, files: dict[str, Path]) -> None:
    lines = [f"{path},{name}" for path, name in zip(*_columns(tree), strict=True)]
    (tree / "faces.csv").write_text("path,identity\n" + "\n".join(lines))
    assert len(calibration_faces(SIZE, tree / "faces.csv", 5)) == 5
    pairs = tree.parent / "drawn.csv"
    named = held_out_pairs(scan_folder(tree))
    rows = [f"{a},{b},{int(s)}" for a, b, s in zip(named.first, named.second, named.same, strict=True)]
    pairs.write_text("first,second,same\n" + "\n".join(rows))
    by_table = score_encoders(loaded({"a": files["a"]}), *faces_of_pairs(tree / "faces.csv", str(pairs)))
    by_folder = score_encoders(loaded({"a": files["a"]}), *faces_of_pairs(tree, str(pairs)))
    assert by_table["a"]["accuracy"] == by_folder["a"]["accuracy"]


def _columns(tree: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    records = scan_folder(tree)
    return records.paths, records.identities


def test_labelled_pairs_of_other_tools_are_read_by_the_names_of_their_columns(tree: Path, tmp_path: Path) -> None:
    lines = (tree.parent / "pairs.csv").read_text().replace("first,second,same", "file_x,file_y,Decision")
    (tmp_path / "master.csv").write_text(lines)
    with pytest.raises(DataError, match=r"name its columns: pair_columns\.first=NAME"):
        faces_of_pairs(tree, str(tmp_path / "master.csv"))
    columns = PairColumns(first="file_x", second="file_y", same="Decision")
    faces, pairs = faces_of_pairs(tree, str(tmp_path / "master.csv"), columns)
    assert (len(faces), pairs.first) == (12, faces_of_pairs(tree, str(tree.parent / "pairs.csv"))[1].first)
