"""The door of a gallery that follows an upgrade, on made vectors: the new encoder tells people apart better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import upgrade_door as room
from benchmarks.upgrade_door import STAGES, Options, run, tables
from facenet.vectors import normalise
from tests.helpers.galleries import OURS, THEIRS, clustered, numbered


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("upgrade")
    clear, names = clustered(120, 3)
    blurred = clear + 0.1 * np.random.default_rng(1).normal(size=clear.shape)
    blurred[:, 0] += 0.8  # old vectors lie close together, and far from new ones
    for side, vectors, fingerprint in (("old", normalise(blurred), THEIRS), ("new", clear, OURS)):
        replace(numbered(vectors, names), fingerprint=fingerprint).save(folder / side)
    return Options(old=str(folder / "old"), new=str(folder / "new"), divisions=2, fpir=0.2)


@pytest.mark.slow  # galleries that are backfilled at each stage
def test_strangers_are_refused_at_every_stage(given: Options) -> None:
    result = run(given)
    assert [row["stage"] for row in result["rows"]] == list(STAGES)
    for row in result["rows"]:
        assert row["strangers_accepted"] < 1.25 * given.fpir
        assert row["low"] <= row["strangers_accepted"] <= row["high"]
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["gain_high"] >= 0
        assert row["same_scores"] == given.divisions
    first, *_, last = result["rows"]
    assert first["gain"] == first["gain_low"] == 0.0
    assert 0.5 < first["accepted_right"] < last["accepted_right"]
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []


@pytest.mark.slow  # galleries that are backfilled at each stage
def test_one_threshold_for_all_faces_would_be_seen(given: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the threshold of new faces, old faces are not found by new queries."""
    own = replace(given, divisions=1)
    found = run(own)["rows"][1]
    with_older = room.calibrate_with_older
    monkeypatch.setattr(room, "calibrate_with_older", lambda new, old, names: with_older(new, new, names))
    wrong = run(own)["rows"][1]
    assert wrong["threshold_old"] < found["threshold_old"] - 0.03
    assert wrong["accepted_right"] < found["accepted_right"] - 0.03
