from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.faults.restored import CHECKPOINTS
from benchmarks.faults.tiny import tiny_net
from facenet.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_checkpoint_is_gone_on_from_only_with_its_sum(tmp_path: Path) -> None:
    with tiny_net():
        CHECKPOINTS.make(tmp_path)
        weights, content = CHECKPOINTS.use(tmp_path)
        assert any(not torch.equal(weights[key], value) for key, value in content["state_dict"].items())
        path = tmp_path / "last.ckpt"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match="does not match"):
            CHECKPOINTS.use(tmp_path)
        assert CHECKPOINTS.reseal is not None
        CHECKPOINTS.reseal(tmp_path, "last.ckpt")
        CHECKPOINTS.use(tmp_path)
