"""The pages of docs/ on Python: their blocks run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import facenet
from facenet.losses.registry import OBJECTIVES
from facenet.mining.rules import MINERS
from facenet.models.registry import NETS
from tests.helpers import ROOT
from tests.helpers.pages import blocks
from tests.helpers.pictures import write_tree

TINY = [
    "data.synthetic.train_identities=16",
    "data.synthetic.held_out_identities=6",
    "data.synthetic.evaluation_identities=6",
    "data.synthetic.train_images=[2,4]",
    "data.synthetic.held_out_images=[4,4]",
    "data.synthetic.evaluation_images=[4,4]",
    "data.synthetic.size=32",
    "sampler.batch_size=16",
    "sampler.faces_per_identity=4",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
]


def test_a_net_an_objective_and_a_miner_from_outside_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/extending.md is a module that a command loads by plugins=; its encoder is loaded again."""
    from facenet.commands import train

    page = "docs/extending.md"
    (tmp_path / "my_faces.py").write_text("\n\n".join(block.text for block in blocks(page, "python")))
    monkeypatch.chdir(tmp_path)
    (line,) = blocks(page, "bash")
    given = line.text.removeprefix("facenet train").split()
    monkeypatch.setattr(
        sys, "argv", ["train.py", *given, *TINY, f"data.cache_dir={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    )
    with NETS.restored(), OBJECTIVES.restored(), MINERS.restored():
        train.main()
        encoder = facenet.load(tmp_path / "run" / "encoder", device="cpu")
        assert type(encoder.model).__name__ == "Tiny"
        images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
        np.testing.assert_allclose(np.linalg.norm(encoder.embed(list(images)), axis=1), 1, atol=1e-5)
        points = torch.nn.functional.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=1)
        labels = torch.arange(9) // 3
        found = facenet.mine(points, labels, margin=0.3, miner="close_by", select="all")
        sq_dist = (points[:, None] - points).square().sum(-1)
        expected = {
            (a, p, n)
            for a in range(9)
            for p in range(9)
            for n in range(9)
            if a != p and labels[a] == labels[p] != labels[n] and abs(sq_dist[a, n] - sq_dist[a, p]) < 0.3
        }
        assert set(zip(*(rows.tolist() for rows in found[:3]), strict=True)) == expected
        assert expected
    sys.modules.pop("my_faces", None)


def test_the_page_on_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "photos", 4, 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for block in blocks("docs/python.md", "python"):
        assert len(block.text.splitlines()) <= 12
        if block.reason:
            continue
        exec(compile(block.text, f"docs/python.md, line {block.line}", "exec"), names)
    assert names["loss"].item() > 0
    assert names["metrics"]["train"]["steps"] == 4


NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_run_from_top_to_bottom() -> None:
    """Run it again by ``jupyter execute --inplace docs/quickstart.ipynb`` in a clone."""
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 8
    assert NOTEBOOK.stat().st_size < 1_000_000


@pytest.mark.slow  # draws 7,000 faces; the blocks of docs/python.md are the same calls
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, Any] = {}
    for cell in cells():
        text = re.sub(r"STEPS = \d+", "STEPS = 3", "".join(cell["source"]))
        exec(compile(text, f"{NOTEBOOK.name}, cell {cell['execution_count']}", "exec"), names)
    assert names["metrics"]["train"]["steps"] == 3


def test_importing_facenet_is_light_and_every_public_name_exists() -> None:
    heavy = "torch", "faiss", "torchvision", "matplotlib", "scipy", "sklearn", "hydra", "pytorch_lightning"
    code = f"import sys, facenet; sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or None)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(dir(facenet)) >= {"load", "train", "mine", "Gallery", "TrainOptions", "register_net"}
    for name in dir(facenet):
        assert getattr(facenet, name) is not None
    with pytest.raises(AttributeError, match="public names"):
        facenet.loda  # type: ignore[attr-defined]  # noqa: B018
