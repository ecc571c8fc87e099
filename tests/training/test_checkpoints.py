"""A checkpoint is held beside the run that goes on from it: what does not fit is one line, before anything trains."""

from __future__ import annotations

import hashlib
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults.restored import CHECKPOINTS, run_of
from benchmarks.faults.tiny import tiny_net
from facenet.errors import DataError
from facenet.training.checkpoints import AtomicCheckpointIO, Restoring, Saved, check_states, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    with tiny_net():
        CHECKPOINTS.make(folder)
        yield folder


def changed(made: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = AtomicCheckpointIO().load_checkpoint(made / "last.ckpt")
    change(content)
    AtomicCheckpointIO().save_checkpoint(content, folder / "last.ckpt")
    return folder


def test_an_intact_checkpoint_goes_on(made: Path, tmp_path: Path) -> None:
    weights, content = CHECKPOINTS.use(changed(made, tmp_path, lambda content: None))
    assert content["global_step"] == 2
    key = next(iter(content["state_dict"]))
    assert not torch.equal(weights[key], content["state_dict"][key]), "it trained on"


def first_state(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]["state"][0]


def callback(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(state for key, state in content["callbacks"].items() if key.startswith(name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("hyper_parameters"), "not the checkpoint of a training run"),
        (lambda c: c["hyper_parameters"].update(chunk_size="many"), "not the checkpoint of a training run"),
        (lambda c: c["state_dict"].popitem(), "weights"),
        (lambda c: c["state_dict"].update({next(iter(c["state_dict"])): torch.zeros(3)}), "weights"),
        (lambda c: c["loops"]["fit_loop"].pop("epoch_progress"), "loops"),
        (lambda c: c["loops"]["fit_loop"]["epoch_progress"]["total"].update(ready="one"), "loops"),
        (lambda c: c["loops"]["fit_loop"]["epoch_progress"]["total"].update(ready=10**30), "loops"),
        (lambda c: c["lr_schedulers"][0].update(base_lrs=[0.1]), "lr_schedulers"),
        (lambda c: callback(c, "TrainingProgress").pop("faces"), "callbacks"),
        (lambda c: callback(c, "ModelCheckpoint").update(best_k_models={3: 4}), "callbacks"),
        (lambda c: c["optimizer_states"].append({}), "optimiser states"),
        (lambda c: first_state(c).pop("exp_avg"), "optimiser states"),
        (lambda c: first_state(c).update(exp_avg=torch.zeros(2)), "optimiser states"),
        (lambda c: first_state(c).update(step=torch.zeros((), dtype=torch.int64)), "optimiser states"),
        (lambda c: c["optimizer_states"][0]["state"].update({99: {}}), "optimiser states"),
        (lambda c: c["optimizer_states"][0]["param_groups"][0].update(lr="much"), "optimiser states"),
        (lambda c: c["optimizer_states"][0]["param_groups"][0].update(params=[0, 0, 0]), "optimiser states"),
    ],
)
def test_what_does_not_fit_is_one_line(
    made: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    changed(made, tmp_path, change)
    trainer, module, _ = run_of(tmp_path / "on", 3)
    with pytest.raises(DataError, match=rf"last\.ckpt: .*{said}.*use an older one") as raised:
        check_states(module, trainer, read_checkpoint(tmp_path / "last.ckpt"))
    assert "\n" not in str(raised.value)


def test_what_lightning_can_not_take_over_is_the_checkpoints_fault(made: Path, tmp_path: Path) -> None:
    changed(made, tmp_path, lambda content: content.update({"pytorch-lightning_version": "no version"}))
    assert read_checkpoint(tmp_path / "last.ckpt").content["global_step"] == 2
    with pytest.raises(DataError, match=r"last\.ckpt: the run can not be resumed from it") as raised:
        CHECKPOINTS.use(tmp_path)
    assert "\n" not in str(raised.value)


def test_what_goes_wrong_later_or_without_a_checkpoint_is_not(made: Path, tmp_path: Path) -> None:
    restoring = Restoring()
    with pytest.raises(KeyError), restoring.blame(None):
        raise KeyError("a fault of ours")
    trainer, module, data = run_of(tmp_path, 3, restoring)
    module.training_step = lambda *_: 1 / 0  # type: ignore[method-assign,assign,return-value]
    with pytest.raises(ZeroDivisionError), restoring.blame(made / "last.ckpt"):
        trainer.fit(module, data)


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"x": 1}, path)
    content = {"x": 2}
    io = AtomicCheckpointIO(Saved(path, content))
    assert io.load_checkpoint(tmp_path / "." / "a.ckpt") is content
    assert io.load_checkpoint(path) == {"x": 1}, "handed over once"


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
