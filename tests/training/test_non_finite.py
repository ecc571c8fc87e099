"""A step that is not finite: what it leaves untouched, whom it names, and when it ends the run."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.module import TripletModule
from facenet.training.non_finite import FILE, NotFinite, NotFiniteSteps, finite
from facenet.training.options import TrainOptions
from facenet.training.run import train
from tests.helpers.commands import TINY, TRAIN, environment
from tests.helpers.training import small_options


class Watched(TripletModule):
    """Makes the losses of chosen batches not finite, by all of the net or by chosen images; notes states by step."""

    bad: dict[int, Any] = {}  # noqa: RUF012 - batch -> "loss", "gradient" or places of images
    states: list[dict[str, Any]] = []  # noqa: RUF012
    number = 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        type(self).number = batch_idx
        images = batch[0]
        wrong = self.bad.get(batch_idx)
        hook = None
        if isinstance(wrong, list):
            marked = [images[slice(place, place + 1)] for place in wrong]
            hook = self.model.register_forward_hook(lambda net, given, out: _spoil(given[0], out, marked))
        try:
            super().training_step(batch, batch_idx)
        finally:
            if hook is not None:
                hook.remove()
        optimizer = self.optimizers().state_dict()  # type: ignore[union-attr]
        self.states.append({"net": _copy(self.state_dict()), "optimizer": _copy(optimizer["state"])})

    def objective(self, embeddings: Tensor, *rest: Any) -> Tensor:
        loss = super().objective(embeddings, *rest)
        wrong = self.bad.get(self.number)
        if wrong == "loss":
            return loss * torch.nan
        return loss + (embeddings - embeddings.detach()).sqrt().sum() if wrong == "gradient" else loss


def _spoil(images: Tensor, embeddings: Tensor, marked: list[Tensor]) -> Tensor:
    rows = torch.stack([(images == one).flatten(1).all(1) for one in marked]).any(0)
    return torch.where(rows[:, None], embeddings * torch.inf, embeddings)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr("facenet.training.build.TripletModule", Watched)
    monkeypatch.setattr(Watched, "bad", {})
    monkeypatch.setattr(Watched, "states", [])
    return Watched


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def options(cache: Path, chunk_size: int | None = None, virtual: float = 0.0, **optim: Any) -> TrainOptions:
    trainer = {"max_steps": 4, "val_check_interval": 4, "log_every_n_steps": 1}
    augment = {"enabled": virtual > 0, "virtual": virtual}
    changes = {"augment": augment, "large_batch": {"chunk_size": chunk_size}, "trainer": trainer}
    return small_options(cache, optim={"not_finite": "skip", **optim}, **changes)


@pytest.mark.parametrize(
    ("wrong", "accumulate", "chunk_size"),
    [
        ("loss", 1, None),
        ("gradient", 1, None),
        pytest.param([3, 17], 1, None, marks=pytest.mark.slow),
        pytest.param("gradient", 1, 9, marks=pytest.mark.slow),  # one training each
        pytest.param([3, 17], 1, 9, marks=pytest.mark.slow),
        pytest.param("loss", 2, None, marks=pytest.mark.slow),
        pytest.param([3, 17], 2, None, marks=pytest.mark.slow),
    ],
    ids=["loss", "gradient", "images", "chunks-gradient", "chunks-images", "sum-loss", "sum-images"],
)
def test_a_skipped_step_leaves_everything_as_it_was(
    wrong: Any, accumulate: int, chunk_size: int | None, watched: type[Watched], cache: Path, tmp_path: Path
) -> None:
    watched.bad = {2 * accumulate: wrong}  # the first batch of the third step
    metrics = train(options(cache, chunk_size, accumulate=accumulate), tmp_path, say=lambda line: None)
    before, after, later = (watched.states[accumulate * step - 1] for step in (2, 3, 4))
    assert same(before, after), "weights, running statistics and optimiser"
    assert not same(before["net"], later["net"])
    assert all(torch.isfinite(value).all() for value in later["net"].values())
    assert (metrics["train"]["steps"], metrics["train"]["not_finite_steps"]) == (4, 1)
    assert metrics["train"]["last_loss"] is not None
    content = AtomicCheckpointIO().load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert content["lr_schedulers"][0]["last_epoch"] == 4, "the schedule goes on"


@pytest.mark.parametrize("virtual", [0.0, 0.25])
def test_the_images_are_named(
    virtual: float, watched: type[Watched], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.bad = {1: [3, 17], 2: "loss"}
    train(options(cache, virtual=virtual), tmp_path, say=lambda line: None)
    with (tmp_path / FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["batch"]) for row in rows] == [("2", "1")] * 24 + [("3", "2")] * 24
    assert [place for place, row in enumerate(rows) if row["alone"] == "1"] == [3, 17]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("step 2: the loss is not finite, with 2 of its 24 images: ")
    assert f"{rows[3]['path']}, {rows[17]['path']} (all in {tmp_path / FILE})" in first
    assert first.endswith("; the step is skipped")
    assert "with its 24 images: " in second
    assert " and 21 more (" in second


def test_fatal_ends_the_run_before_the_step(watched: type[Watched], cache: Path, tmp_path: Path) -> None:
    watched.bad = {2: "loss"}
    with pytest.raises(NotFinite, match=r"step 3: the loss is not finite, with its 24 images: .*lower optim\.lr"):
        train(options(cache, not_finite="fatal"), tmp_path, say=lambda line: None)
    assert same(watched.states[1], watched.states[2])
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_too_many_in_a_row_are_fatal(watched: type[Watched], cache: Path, tmp_path: Path) -> None:
    watched.bad = {0: "loss", 2: "loss", 3: "loss"}
    with pytest.raises(NotFinite, match=r"step 4: .*2 such steps in a row"):
        train(options(cache, not_finite_limit=2), tmp_path, say=lambda line: None)


def test_a_resumed_run_goes_on_counting() -> None:
    """Also where its first batch is not the last of a step."""
    guard, module = NotFiniteSteps(Path(), fatal=False, limit=3), SimpleNamespace(non_finite_batches=[])
    guard.load_state_dict({"steps": 5, "in_a_row": 2})
    trainer: Any = SimpleNamespace(global_step=7)
    guard.on_train_start(trainer, module)  # type: ignore[arg-type]
    guard.on_train_batch_end(trainer, module, None)  # type: ignore[arg-type]
    assert guard.state_dict() == {"steps": 5, "in_a_row": 2}
    trainer.global_step = 8
    guard.on_train_batch_end(trainer, module, None)  # type: ignore[arg-type]
    assert guard.state_dict() == {"steps": 5, "in_a_row": 0}


def test_finite() -> None:
    layer = nn.Linear(2, 2)
    assert finite([])
    assert finite(list(layer.parameters()))
    assert not finite([torch.ones(2), torch.tensor([1.0, torch.nan])])
    assert not finite([torch.tensor([-torch.inf])])
    assert finite([torch.full((4,), 1e30)]), "large is finite"


RANKS = """
import os, sys
import torch
from facenet.training.module import TripletModule
objective, step = TripletModule.objective, TripletModule.training_step
def spoiled(self, embeddings, *rest):
    bad = os.environ.get("LOCAL_RANK", "0") == "1" and self.batch == 2
    return objective(self, embeddings * (torch.inf if bad else 1), *rest)
def noted(self, batch, number):
    self.batch = number
    step(self, batch, number)
    total = sum(float(value.double().sum()) for value in self.state_dict().values())
    with open(f"{SEEN}.{os.environ.get('LOCAL_RANK', '0')}", "a") as file:
        print(total, len(self.non_finite_batches), file=file)
TripletModule.objective, TripletModule.training_step = spoiled, noted
from facenet.commands.launch import launch
from facenet.commands.train import run
launch("train", run)
"""


@pytest.mark.slow  # a job of two ranks and one of one
def test_all_ranks_leave_out_a_step_that_is_not_finite_on_one(cache: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "ranks.py", tmp_path / "run"
    script.write_text(f"SCRIPT, SEEN = {TRAIN[1]!r}, {str(tmp_path / 'seen')!r}\n{RANKS}")
    line = [sys.executable, str(script), f"hydra.run.dir={out}", *TINY, f"data.cache_dir={cache}"]
    line += ["trainer.max_steps=4", "optim.not_finite=skip"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert [text.split(":")[0] for text in done.stderr.splitlines()] == ["step 3"], "said once"
    seen = [[text.split() for text in Path(f"{tmp_path}/seen.{rank}").read_text().splitlines()] for rank in (0, 1)]
    for rank in seen:
        assert [spoiled for _, spoiled in rank] == ["0", "0", "1", "0"]
        assert rank[1][0] == rank[2][0] != rank[3][0]
    assert seen[0] == seen[1]
    assert len((out / FILE).read_text().splitlines()) == 1 + 24
