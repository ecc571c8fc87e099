from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facenet.evaluation.verification import verify_pairs
from facenet.training.callbacks import (
    CollapseGuard,
    HeldOutVerification,
    TrainingCollapsed,
    TrainingProgress,
)
from facenet.types import Pairs
from facenet.vectors import normalise


def trainer(**metrics: float) -> Any:
    return SimpleNamespace(
        callback_metrics={k.replace("__", "/"): torch.tensor(v) for k, v in metrics.items()}, global_step=7
    )


def guard_steps(guard: CollapseGuard, *states: Any, first: int = 1) -> None:
    """Tell the guard of the end of steps, each of two batches."""
    for step, state in enumerate(states, first):
        state.global_step = step
        for _ in range(2):
            guard.on_train_batch_end(state, SimpleNamespace(), None)  # type: ignore[arg-type]


def test_collapse_is_called_after_patience_and_not_before() -> None:
    guard = CollapseGuard(patience=3)
    flat, healthy = trainer(loss=0.2, dist__negative=0.001), trainer(loss=0.15, dist__negative=1.2)
    guard_steps(guard, flat, flat, healthy, flat, flat)
    with pytest.raises(TrainingCollapsed, match=r"step 6: the embedding collapsed.*lower optim\.lr"):
        guard_steps(guard, flat, first=6)


def test_a_resumed_run_goes_on_counting_towards_collapse() -> None:
    first, second = CollapseGuard(patience=3), CollapseGuard(patience=3)
    flat = trainer(loss=0.2, dist__negative=0.001)
    guard_steps(first, flat, flat)
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingCollapsed):
        guard_steps(second, flat, first=3)


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


def test_slow_steps_and_long_validations_are_told_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], []  # type: ignore[var-annotated]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = TrainingProgress(say=lambda line: lines.append((now[0], line)), refresh_rate=50)
    module: Any = SimpleNamespace(log=lambda name, value: None)
    state: Any = SimpleNamespace(max_steps=1000, is_global_zero=True, world_size=1, num_val_batches=[60])
    state.callback_metrics = {"loss": torch.tensor(0.5)}
    progress.on_train_start(state, module)
    for state.global_step in range(1, 21):  # less than a tenth, and less than refresh_rate
        now[0] += 25
        progress.on_train_batch_end(state, module, None, (None, range(6)), 0)
    for batch in range(60):
        now[0] += 5
        progress.on_validation_batch_end(state, module, None, None, batch)
    times = [when for when, _ in lines]
    assert times[0] == 125.0
    assert max(b - a for a, b in pairwise(times)) <= 60, "a minute at most"
    assert lines[1][1].startswith("training: 3 of 1000, 0.04 a second, 6.9 h left: loss 0.500")
    assert lines[-1][1].endswith("held-out people 58 of 60 batches")


def test_progress_counts_faces_and_prints_lines_off_a_terminal() -> None:
    lines: list[str] = []
    progress = TrainingProgress(say=lines.append)
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
        if step == 1:
            progress.on_train_start(state, module)
        progress.on_train_batch_start(state, module)
        progress.on_train_batch_end(state, module, None, (None, range(6)), 0)
    assert progress.faces == 120
    assert (progress.first_loss, progress.last_loss) == pytest.approx((0.1, 2.0))
    assert logged["faces_per_second"] > 0
    assert len(lines) == 10
    assert lines[-1].startswith("training: 20 of 20: loss 2.000")
