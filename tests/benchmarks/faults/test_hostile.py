"""Payloads, paths and addresses: the counts are right, and what would run, be followed or be fetched is seen."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest

from benchmarks.faults import hostile as room
from benchmarks.faults.hostile import FORMS, Payload, addressed, pickled, traversed
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.outcomes import Kind


def test_each_form_of_a_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(FORMS[2](Payload(tmp_path / "a")))
    pickle.loads(FORMS[4](Payload(tmp_path / "b")))
    assert (tmp_path / "a").is_dir()
    assert (tmp_path / "b").is_dir()
    assert len({form(Payload(tmp_path / "c")) for form in FORMS}) == len(FORMS)


def test_an_execution_is_counted(tmp_path: Path) -> None:
    def use(folder: Path) -> None:
        with (folder / "align.json").open("rb") as file:
            pickle.load(file)

    (tmp_path / "align_json").mkdir()
    KINDS["align_json"].make(tmp_path / "align_json" / "sound")
    found = pickled(tmp_path, {"align_json": Kind(KINDS["align_json"].make, use)}, 5)
    assert found["files"] == 5
    assert found["executions"] >= 2


def test_a_path_that_is_followed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_embeddings", lambda folder, path: None)
    found = traversed(tmp_path, 3)
    assert (found["followed"], found["refused"], found["crashes"]) == (2, 1, 0)


def test_a_connection_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(address: str) -> None:
        with socket.socket() as one:
            one.connect(("127.0.0.1", 9))

    monkeypatch.setattr(room, "scan", fetch)
    found = addressed()
    assert (found["connections"], found["crashes"]) == (4, 4)
    assert found["refused"] == found["addresses"] - 4
