"""A factory string that ends the process, or fails later, is refused in one line before a gallery takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.factories import play
from facenet.errors import ConfigError
from facenet.gallery.faiss import trial
from facenet.gallery.faiss.trial import try_factory
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import FACTORIES, clustered, filled


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("HNSW0", "'HNSW0' can not be used: FAISS ended the process of a trial"),
        ("HNSW1", "'HNSW1' can not be used: FAISS ended the process of a trial"),
        ("IVF999999999,Flat", "more than 4 GB"),
        ("Flat\0", "can not be printed"),
    ],
)
def test_a_string_that_would_fail_is_refused_in_one_line(factory: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        try_factory(16, factory)
    assert "\n" not in str(refused.value)


def test_a_gallery_keeps_its_index_if_a_string_is_refused(tmp_path: Path) -> None:
    vectors, identities = clustered(5)
    filled(tmp_path, "Flat", vectors, identities)
    with Gallery.open(tmp_path) as gallery:
        with pytest.raises(ConfigError, match="HNSW0"):
            gallery.configure(factory="HNSW0")
        assert gallery.recipe.factory == "Flat"


def test_a_trial_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    with pytest.raises(ConfigError, match="'HNSW12' can not be used: a trial took more than"):
        try_factory(16, "HNSW12")


@pytest.mark.slow  # a process for each string
def test_usual_strings_pass() -> None:
    with pytest.raises(ConfigError, match=r"does not support incremental addition .step: add again"):
        try_factory(32, "NSG32")
    for factory in (*FACTORIES, "HNSW12", "PQ8x4fs", "IVF16,RaBitQ", "OPQ8,IVF64,PQ8"):
        try_factory(32, factory)


@pytest.mark.slow  # galleries of thirty strings, each tried in a process of its own
def test_no_string_ends_the_process_or_raises_what_is_no_error_of_ours() -> None:
    counts = play(30, seed=1)
    assert counts["accepted"] > 3
    assert counts["refused"] > 10
    assert (counts["aborts"], counts["tracebacks"]) == (0, 0)
