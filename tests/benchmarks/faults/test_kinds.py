from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.outcomes import value_digest
from benchmarks.faults.restored import CHECKPOINTS
from benchmarks.faults.tiny import tiny_encoder, tiny_net
from facenet.models.registry import NETS

pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", [*KINDS, "checkpoints"])
def test_each_kind_is_made_used_twice_alike_and_sealed_as_it_was(name: str, tmp_path: Path) -> None:
    kind = {**KINDS, "checkpoints": CHECKPOINTS}[name]
    with tiny_net():
        kind.make(tmp_path)
        files = [path for path in tmp_path.glob(kind.sealed) if path.is_file()]
        assert files
        assert [path for path in tmp_path.glob(kind.files) if path.is_file()]
        before = value_digest(kind.use(tmp_path))
        for path in files if kind.reseal else []:
            kind.reseal(tmp_path, path.relative_to(tmp_path).as_posix())  # type: ignore[misc]
        assert value_digest(kind.use(tmp_path)) == before


def test_the_tiny_net_is_known_for_a_while() -> None:
    with tiny_net():
        assert tiny_encoder().dim == 16
    assert "tiny" not in NETS


def test_marks_tell_values_apart() -> None:
    values = [
        1,
        1.5,
        "1",
        None,
        [1],
        [[1]],
        {"a": 1},
        np.ones(1),
        np.ones(1, np.float32),
        torch.ones(1),
        torch.zeros(1),
    ]
    assert len({value_digest(value) for value in values}) == len(values)
    assert value_digest({"a": 1, "b": [np.ones(2)]}) == value_digest({"b": [np.ones(2)], "a": 1})
