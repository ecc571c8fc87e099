"""The campaign of hostile files in short: nothing gets through, and the campaign itself sees what would."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults import files as room
from benchmarks.faults.files import ALL, OUTCOMES, played, run
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.options import FileFaults
from benchmarks.faults.outcomes import Kind, outcome_of
from facenet.encoders import bundle
from facenet.encoders import lookup as encoders
from facenet.errors import DataError
from facenet.files import read_json

FAILURES = ("silently_accepted", "crashes", "hangs", "executions", "followed", "connections", "slow")
pytest.importorskip("onnx")


@pytest.mark.slow  # a short campaign; its outcomes are tested below in every run
def test_a_short_campaign_finds_nothing_that_gets_through(tmp_path: Path) -> None:
    told = run(
        FileFaults(encoders=30, checkpoints=10, embeddings=20, others=4, pickles=35, onnx_graphs=2),
        folder=str(tmp_path),
        apart=False,
    )
    assert set(told) == {*ALL, "pickles", "traversals", "addresses", "onnx_graphs"}
    assert {name: {what: row.get(what, 0) for what in FAILURES} for name, row in told.items()} == {
        name: dict.fromkeys(FAILURES, 0) for name in told
    }
    for name in ALL:
        assert sum(told[name][what] for what in OUTCOMES) == told[name]["files"]
    assert told["encoders"]["refused"] > 15
    assert sum(told[name]["resealed"] for name in ALL) > 5, "sums that fit are believed"
    assert told["pickles"]["refused"] == 35
    assert told["traversals"]["refused"] == 20
    assert told["addresses"]["refused"] == told["addresses"]["addresses"] > 20


def unsealed(path: Path) -> dict[str, object]:
    return {key: value for key, value in read_json(path).items() if key != "digest"}


@pytest.mark.slow  # a short campaign
def test_a_sum_that_is_not_looked_at_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bundle, encoders):
        monkeypatch.setattr(module, "read_sealed", unsealed)
    found = Counter(outcome for outcome, _ in played(tmp_path, "encoders", 0, 150, 0))
    assert found["silently_accepted"] > 0


def test_what_crashes_hangs_or_says_too_much_would_be_seen(tmp_path: Path) -> None:
    def fail(error: BaseException) -> Kind:
        def use(folder: Path) -> None:
            raise error

        return KINDS["align_json"]._replace(use=use)

    assert outcome_of(fail(KeyError("x")), tmp_path, "", False)[0] == "crashes"
    assert outcome_of(fail(MemoryError()), tmp_path, "", False)[0] == "crashes"
    assert outcome_of(fail(DataError("two\nlines")), tmp_path, "", False)[0] == "crashes"
    assert outcome_of(fail(DataError("one line")), tmp_path, "", False)[0] == "refused"
    before = signal.getsignal(signal.SIGALRM)
    assert (
        outcome_of(KINDS["align_json"]._replace(use=lambda folder: time.sleep(9)), tmp_path, "", False, limit=1)[0]
        == "hangs"
    )
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_child_that_dies_is_counted_and_replaced(tmp_path: Path) -> None:
    dies = 'import os, sys; print(\'["refused", ""]\', flush=True); os.abort()'
    counts = room._apart(tmp_path, "pairs", 4, 0, "", child=dies)
    assert (counts["refused"], counts["crashes"], counts["hangs"]) == (2, 2, 0)
    counts = room._apart(tmp_path, "pairs", 1, 0, "", child="import time; time.sleep(60)", silence=0.5)
    assert counts["hangs"] == 1


@pytest.mark.slow  # two child processes import torch and everything
def test_a_child_plays_what_is_played_here(tmp_path: Path) -> None:
    for name in ("here", "apart"):
        (tmp_path / name).mkdir()
    told = room._apart(tmp_path / "apart", "pairs", 6, 3, "")
    assert told == room._here(tmp_path / "here", "pairs", 6, 3, "")
