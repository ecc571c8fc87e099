"""The open-set benchmark on random people: who is enrolled, and that the rates are those asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.open_set import Options, divide, run, tables
from tests.helpers.galleries import clustered, numbered


def test_nobody_is_enrolled_and_a_stranger() -> None:
    people = np.random.default_rng(0).integers(0, 40, 100)
    found = divide(people, 20, np.random.default_rng(1))
    assert len(found.gallery) == 20
    assert not set(people[found.strangers]) & set(people[found.gallery])
    assert set(people[found.members]) <= set(people[found.gallery])
    assert not set(found.members) & set(found.gallery)
    assert len(set(people[found.members])) == len(found.members)


def test_rates_are_those_asked_for(tmp_path: Path) -> None:
    vectors, names = clustered(160, 3)
    numbered(vectors, names).save(tmp_path / "v")
    result = run(Options(embeddings=str(tmp_path / "v"), divisions=3, sizes=(0,), fpirs=(0.1, 0.3)))
    assert {row["source"] for row in result["rows"]} == {"gallery"}
    assert [row["identity_by"] for row in result["rows"]] == ["nearest", "nearest", "mean", "mean"]
    for row in result["rows"]:
        assert 0.4 < row["of_asked"] < 1.4
        assert row["low"] <= row["strangers_accepted"] <= row["high"]
    nearest, more, mean, _ = (row["threshold"] for row in result["rows"])
    assert mean != nearest < more
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []
