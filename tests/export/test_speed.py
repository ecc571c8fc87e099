"""Contestants take turns on the same images."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from benchmarks.export import drawn
from facenet.export.speed import interleave, measure_speed


def test_steps_take_turns_and_slow_ones_run_once() -> None:
    calls: list[str] = []
    steps = {name: functools.partial(calls.append, name) for name in "ab"}
    assert {key: len(times) for key, times in interleave(steps, 10.0, 3).items()} == {"a": 3, "b": 3}
    assert calls == list("abababab"), "the first round warms up"
    calls.clear()
    assert len(interleave(steps, 0.0, 3)["a"]) == 1
    assert len(calls) == 2


def test_contestants_see_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = drawn("small", (32, 32)), []
    monkeypatch.setattr(encoder, "embed_batch", lambda images: seen.append(images.numpy()))
    found = measure_speed({"a": encoder, "b": encoder}, 3, seconds=5.0, repeats=2)
    assert len(seen) == 6
    assert seen[0].shape == (3, 3, 32, 32)
    assert all(np.array_equal(images, seen[0]) for images in seen)
    assert found["a"]["images_per_second"] == pytest.approx(3 / found["a"]["seconds"])
    assert found["b"]["ratio"] == pytest.approx(found["a"]["seconds"] / found["b"]["seconds"])
