"""A checkpoint is held beside the run that goes on from it: what does not fit is one line, before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults.restored import CHECKPOINTS, run_of
from benchmarks.faults.tiny import tiny_net
from facenet.errors import DataError
from facenet.training.callbacks import AtomicCheckpointIO
from facenet.training.checkpoints import check_states, read_checkpoint, restoring

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
        check_states(module, trainer, read_checkpoint(tmp_path / "last.ckpt"), tmp_path / "last.ckpt")
    assert "\n" not in str(raised.value)


def test_what_lightning_can_not_take_over_is_the_checkpoints_fault(made: Path, tmp_path: Path) -> None:
    changed(made, tmp_path, lambda content: content.update({"pytorch-lightning_version": "no version"}))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2
    with pytest.raises(DataError, match=r"last\.ckpt: can not be gone on from") as raised:
        CHECKPOINTS.use(tmp_path)
    assert "\n" not in str(raised.value)


def test_what_goes_wrong_later_or_without_a_checkpoint_is_not(made: Path, tmp_path: Path) -> None:
    trainer, module, data = run_of(tmp_path, 3)
    with pytest.raises(KeyError), restoring(trainer, None):
        raise KeyError("a fault of ours")
    module.training_step = lambda *_: 1 / 0  # type: ignore[method-assign,assign,return-value]
    with pytest.raises(ZeroDivisionError), restoring(trainer, made / "last.ckpt"):
        trainer.fit(module, data)
