from __future__ import annotations

import hashlib
import pickle
import resource
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facenet.errors import DataError
from facenet.evaluation.verification import verify_pairs
from facenet.training.callbacks import (
    AtomicCheckpointIO,
    CollapseGuard,
    HeldOutVerification,
    TrainingCollapsed,
    TrainingProgress,
)
from facenet.types import Pairs
from facenet.vectors import normalise


def test_checkpoints_are_checked_against_their_sum(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"x": torch.arange(1000)}, path)
    assert torch.equal(io.load_checkpoint(path)["x"], torch.arange(1000))
    first = path.read_bytes()
    io.save_checkpoint({"x": torch.arange(1000) + 1}, path)
    second = path.read_bytes()
    path.write_bytes(first)  # killed between the sum and the move: the old file still loads
    assert torch.equal(io.load_checkpoint(path)["x"], torch.arange(1000))
    damaged = bytearray(second)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="does not match"):
        io.load_checkpoint(path)
    io.remove_checkpoint(path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="can not be read"):
        io.load_checkpoint(path)


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"x": 1}, path)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match="No space left"):
        io.save_checkpoint({"x": 2}, path)
    assert io.load_checkpoint(path) == {"x": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def test_a_disk_that_fills_up_is_one_clear_line(tmp_path: Path) -> None:
    """By a real write that is refused: torch turns it into an error of its own, at another place."""
    io, path, limits = AtomicCheckpointIO(), tmp_path / "a.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    io.save_checkpoint({"x": torch.arange(1000)}, path)
    for room in (0, 100, 100_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(DataError, match=r"a\.ckpt: writing failed \(File too large\); the old file"):
                io.save_checkpoint({"x": torch.arange(100_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(io.load_checkpoint(path)["x"], torch.arange(1000))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def trainer(**metrics: float) -> Any:
    return SimpleNamespace(
        callback_metrics={k.replace("__", "/"): torch.tensor(v) for k, v in metrics.items()}, global_step=7
    )


def test_collapse_is_called_after_patience_and_not_before() -> None:
    guard, module = CollapseGuard(patience=3), SimpleNamespace()
    flat, healthy = trainer(loss=0.2, dist__negative=0.001), trainer(loss=0.15, dist__negative=1.2)
    for state in (flat, flat, healthy, flat, flat):
        guard.on_train_batch_end(state, module, None)  # type: ignore[arg-type]
    with pytest.raises(TrainingCollapsed, match=r"step 7: the embedding collapsed.*lower optim\.lr"):
        guard.on_train_batch_end(flat, module, None)  # type: ignore[arg-type]


def test_a_resumed_run_goes_on_counting_towards_collapse() -> None:
    first, second, module = CollapseGuard(patience=3), CollapseGuard(patience=3), SimpleNamespace()
    flat = trainer(loss=0.2, dist__negative=0.001)
    for _ in range(2):
        first.on_train_batch_end(flat, module, None)  # type: ignore[arg-type]
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingCollapsed):
        second.on_train_batch_end(flat, module, None)  # type: ignore[arg-type]


def test_held_out_verification_scores_the_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = normalise(np.repeat(rng.normal(size=(6, 8)), 2, 0) + rng.normal(0, 0.2, (12, 8)))
    first = np.array([0, 2, 4, 0, 2, 4, 6, 8, 10, 6, 8, 10])
    second = np.array([1, 3, 5, 3, 5, 1, 7, 9, 11, 9, 11, 7])
    same = np.array([True] * 3 + [False] * 3 + [True] * 3 + [False] * 3)
    fold = np.repeat([0, 1], 6)
    pairs = Pairs(tuple("abcdefabcdef"), tuple("abcdefabcdef"), same, fold)
    callback, logged = HeldOutVerification(pairs, (first, second)), {}
    module: Any = SimpleNamespace(
        log=lambda name, value, **kw: logged.update({name: value}), log_dict=lambda values, **kw: logged.update(values)
    )
    running: Any = SimpleNamespace(sanity_checking=False)
    for part in torch.from_numpy(vectors).split(5):
        callback.on_validation_batch_end(running, module, part)
    callback.on_validation_epoch_end(running, module)
    expected = verify_pairs(((vectors[first] - vectors[second]) ** 2).sum(1), same, fold)
    assert logged["val_accuracy"] == expected.accuracy
    assert logged["val_auc"] == expected.auc
    brute = np.mean([((a - b) ** 2).sum() for a in vectors for b in vectors])
    assert logged["val_spread"] == pytest.approx(brute, rel=1e-4)


def test_progress_counts_faces_and_prints_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TrainingProgress()
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=lambda name, value, **kw: logged.update({name: value}))
    for step in range(1, 21):
        state: Any = SimpleNamespace(
            global_step=step,
            max_steps=20,
            is_global_zero=True,
            world_size=1,
            callback_metrics={"loss": torch.tensor(step / 10)},
        )
        progress.on_train_batch_start(state, module)
        progress.on_train_batch_end(state, module, None, (None, range(6)), 0)
    assert progress.faces == 120
    assert (progress.first_loss, progress.last_loss) == pytest.approx((0.1, 2.0))
    assert logged["faces_per_second"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("training: step 20 of 20: loss 2.000")


def resealed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.with_name(f"{path.name}.sha256").write_text(hashlib.sha256(content).hexdigest())


def test_a_checkpoint_that_is_none_is_one_line_whatever_its_sum(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"x": torch.arange(1000)}, path)
    good, packed, listed = path.read_bytes(), tmp_path / "packed", tmp_path / "listed"
    with zipfile.ZipFile(path) as parts, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in parts.namelist():
            other.writestr(name, parts.read(name))
    torch.save([1, 2], listed)
    assert torch.load(packed, weights_only=True)["x"].sum() > 0, "torch would unpack it, to whatever size"
    contents = (
        b"",
        b"no zip",
        good[: len(good) // 2],
        pickle.dumps({"x": 1}),
        packed.read_bytes(),
        listed.read_bytes(),
    )
    for content in contents:
        resealed(path, content)
        with pytest.raises(DataError, match=r"a\.ckpt: not a") as raised:
            io.load_checkpoint(path)
        assert "\n" not in str(raised.value)
    resealed(path, good)
    assert len(io.load_checkpoint(path)["x"]) == 1000


def test_only_checkpoints_where_it_saved_are_removed(tmp_path: Path) -> None:
    io, other = AtomicCheckpointIO(), tmp_path / "other.ckpt"
    other.write_bytes(b"somebody else's")
    io.remove_checkpoint(other)
    io.save_checkpoint({"x": 1}, tmp_path / "run" / "last.ckpt")
    for path in (other, tmp_path / "run" / ".." / "other.ckpt"):
        io.remove_checkpoint(path)
    assert other.exists()
    io.remove_checkpoint(tmp_path / "run" / "last.ckpt")
    assert not list((tmp_path / "run").iterdir())
