"""Hostile .bin sets in short: nothing of them runs, and the campaign would see it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from benchmarks.faults import bin_sets
from benchmarks.faults.bin_sets import HOSTILE, campaign
from facenet.data.sources import bin_pairs


def test_hostile_and_changed_sets_are_refused_or_read(tmp_path: Path) -> None:
    found = campaign(tmp_path, 40)
    assert (found["crashes"], found["hangs"], found["executions"]) == (0, 0, 0)
    assert found["refused"] > 20
    assert found["refused"] + found["as_written"] + found["same"] == 40


def test_a_pickle_that_runs_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bin_pairs, "load", pickle.loads)
    monkeypatch.setattr(bin_sets, "HOSTILE", HOSTILE[:1])
    assert campaign(tmp_path, 12, seed=1)["executions"] > 2
