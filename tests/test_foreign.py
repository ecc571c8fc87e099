"""Foreign weights: only the one known content is taken; graphs give the numbers that onnx's own reference gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from facenet import foreign
from facenet.errors import ConfigError, DataError
from facenet.foreign import (
    PACKAGE_MODELS,
    default_threads,
    open_session,
    plain_graph,
    plain_model,
    read_package_model,
)
from tests.helpers.onnx_graphs import quantised


def test_the_known_files_are_found() -> None:
    assert len(read_package_model("yunet")) == 122_489
    assert len(read_package_model("sface")) == 10_667_852


def test_missing_changed_and_unknown_ones_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        read_package_model("yunett")
    changed = PACKAGE_MODELS["yunet"]._replace(sha256="00" * 32)
    for model, said in (
        (changed, r"SHA-256 differs\); run: pip install"),
        (
            changed._replace(package="no_such_package"),
            r"no_such_package is not installed; run: pip install 'facenet-triplet\[photos\]'",
        ),
        (changed._replace(path="models/gone.onnx"), r"gone\.onnx: can not be read"),
    ):
        with pytest.raises(DataError, match=said):
            read_package_model("yunet", {"yunet": model})


@pytest.mark.parametrize("block", [0, 3, 4, 8])
def test_weights_are_folded_and_the_batch_is_free(block: int) -> None:
    data, weight = quantised(block)
    plain = onnx.load_from_string(plain_graph(data, {"x": (0,), "y": (0,)}))
    assert [node.op_type for node in plain.graph.node] == ["MatMul", "Reshape"]
    assert [item.name for item in plain.graph.input] == ["x"]
    x = np.random.default_rng(0).random((5, 8)).astype(np.float32)
    (y,) = ReferenceEvaluator(plain).run(None, {"x": x})
    np.testing.assert_allclose(y, (x @ weight).reshape(5, 2, 3), rtol=1e-5)
    assert np.abs(weight).max() > 10


def test_a_plain_model_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making it is half of the time to open an encoder. A damaged copy, and a folder that is none, do no harm."""
    made: list[int] = []
    plain = b"plain"
    monkeypatch.setattr(foreign, "plain_graph", lambda data, free: made.append(len(data)) or plain)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [plain_model("yunet", {"input": (0,)}) for _ in range(2)] == [plain, plain]
    assert len(made) == 1
    (kept,) = (tmp_path / "facenet").glob("yunet_*.npy")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    assert [plain_model("yunet", {"input": (0,)}) for _ in range(2)] == [plain, plain]
    assert len(made) == 2
    plain_model("yunet", {"input": (0, 2)})
    assert len(made) == 3, "other axes are another graph"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert plain_model("yunet", {"input": (0,)}) == plain


def test_a_missing_onnx_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DataError, match=r"onnx is not installed; run: pip install 'facenet-triplet\[photos\]'"):
        plain_graph(b"", {})


def test_the_threads_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    for asked, expected in (("3", 3), ("2,1", 2), ("0", cores), ("", cores), ("all", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert default_threads() == expected
    data = plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)})
    for asked, threads, expected in (("3", None, 3), ("3", 1, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert open_session(data, threads=threads).get_session_options().intra_op_num_threads == expected


def test_a_model_that_onnxruntime_can_not_open_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="onnxruntime can not read the model"):
        open_session(b"no model")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DataError, match=r"not installed; run: pip install 'facenet-triplet\[photos\]'"):
        open_session(b"")


def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    """It would keep a device's id and a cache of reports in the home folder, and send them."""
    line = [sys.executable, "-c", "import facenet, onnxruntime"]
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run(line, env=environment, check=True)
    assert not list(tmp_path.rglob("*"))
