"""Threads are given back, fresh processes return what a function does, and a peak is what a call holds at once."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from benchmarks.resources import extra_bytes, in_fresh_process, limited_threads, peak_above, watched_peak
from benchmarks.tables import megabytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_threads_are_limited_for_a_while() -> None:
    before = torch.get_num_threads()
    with limited_threads(before + 1) as count:
        assert torch.get_num_threads() == count == before + 1
    assert torch.get_num_threads() == before
    with limited_threads(None) as count:
        assert count == before


def test_a_fresh_process_returns_plain_values() -> None:
    assert in_fresh_process(megabytes, 12_345_678) == "12 MB"
    with pytest.raises(subprocess.CalledProcessError, match="non-zero exit") as failed:
        in_fresh_process(megabytes, "many")
    assert "TypeError" in failed.value.stderr


@linux
def test_a_peak_is_what_a_call_holds_at_once() -> None:
    def call() -> None:
        for _ in range(3):
            bytearray(b"x" * (1 << 25))

    assert 2**25 < peak_above(call) < 2**27


@pytest.mark.slow  # two fresh processes import torch
@pytest.mark.parametrize("name", ["mining", "cluster"])
def test_memory_of_a_benchmark_is_measured(name: str) -> None:
    from benchmarks import cluster, mining

    drawn = {"D": 32, "per_identity": 20, "decay": 0.8, "noise_decay": 0.25, "spread": 0.45}
    calls = {"mining": (mining.measure_memory, 200, 0.6, 1), "cluster": (cluster.measure_memory, 400, 0.9, 1, drawn)}
    found = extra_bytes(*calls[name])  # type: ignore[arg-type]
    assert found is None or 0 <= found < 64e6


@linux
def test_a_watched_peak_is_kept_after_what_made_it() -> None:
    with watched_peak("RssAnon") as before:
        pass
    with watched_peak("RssAnon", every=0.001) as most:
        held = mmap.mmap(
            -1, 2**25, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )  # an array may get pages that are held already
        np.frombuffer(held, np.uint8)[:] = 1
        time.sleep(0.1)
        held.close()
        time.sleep(0.1)
    assert 2**24 < most[0] - before[0] < 2**27
