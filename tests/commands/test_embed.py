"""The command ``embed`` alone, as the tasks of a job array, under torchrun, and killed while it seals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from facenet.commands.embed import EmbedOptions, share_of
from facenet.encoders.bundle import save_bundle
from facenet.encoders.shares import Share
from facenet.errors import ConfigError
from facenet.types import EmbeddingSet
from tests.helpers import ROOT
from tests.helpers.commands import environment, mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree

SIZES = ("batch_size=4", "block=4", "device=cpu")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """An encoder and 18 faces, one of which can not be read."""
    place = tmp_path_factory.mktemp("embed")
    save_bundle(make(), place / "encoder")
    write_tree(place / "faces", 6, 3)
    (place / "faces/p001/p001_0002.png").write_bytes(b"broken")
    return (f"encoder={place / 'encoder'}", f"images={place / 'faces'}", *SIZES)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(given: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    place = tmp_path_factory.mktemp("whole")
    metrics = succeed("embed", *given, f"out={place / 'e'}", out=place / "run")
    told = {"images": 17, "identities": 6, "skipped": 1, "sealed": True, "blocks": 5, "embedded_here": 18}
    assert told.items() <= metrics.items()
    assert (place / "run/skipped.csv").read_bytes() == (place / "e/skipped.csv").read_bytes()
    return content(place / "e")


def test_the_tasks_of_an_array_share_the_faces_out(
    given: tuple[str, ...], whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = f"out={tmp_path / 'e'}"
    first = succeed("embed", *given, out, "shard=1", "shards=2", out=tmp_path / "run1")
    assert {"sealed": False, "blocks": 5, "blocks_there": 2, "embedded_here": 8}.items() <= first.items()
    assert "images" not in first
    code, said = mistaken("embed", *given, out, "batch_size=2", "shard=0", "shards=2", out=tmp_path / "run2")
    assert (code, "batch_size (was 4, is 2)" in said) == (3, True), said
    last = succeed("embed", *given, out, "shard=0", "shards=2", out=tmp_path / "run3")
    assert {"images": 17, "skipped": 1, "sealed": True, "embedded_here": 10}.items() <= last.items()
    assert content(tmp_path / "e") == whole


@pytest.mark.parametrize(
    ("options", "variables", "share"),
    [
        ({}, {}, Share()),
        ({"shard": 2, "shards": 3}, {}, Share(0, 1, 2, 3)),
        ({}, {"RANK": "1", "WORLD_SIZE": "2"}, Share(1, 2)),
        ({"shard": 1, "shards": 2}, {"RANK": "3", "WORLD_SIZE": "4"}, Share(3, 4, 1, 2)),
        ({}, {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, Share(1, 4)),
        ({}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Share()),  # the batch script itself, not a step of srun
    ],
)
def test_a_process_knows_its_share(
    options: dict[str, int], variables: dict[str, str], share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert share_of(EmbedOptions(encoder="e", images="i", out="o", **options)) == share


def test_an_array_that_counts_from_one_is_told_how_to_count() -> None:
    with pytest.raises(ConfigError, match=r"expected 0 to 1 for shards=2.*--array=0-1"):
        share_of(EmbedOptions(encoder="e", images="i", out="o", shard=2, shards=2))


@pytest.mark.slow  # a process that imports torch
def test_a_process_killed_while_it_seals_leaves_what_the_next_one_seals(
    given: tuple[str, ...], whole: dict[str, bytes], tmp_path: Path
) -> None:
    code = """if True:
        import os, signal, sys
        from facenet import types
        types.write_csv = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        from facenet.commands.embed import main
        main()"""
    line = [sys.executable, "-c", code, *given, f"out={tmp_path / 'e'}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(line, env=environment() | {"PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert done.returncode == -9
    assert (tmp_path / "e/vectors.npy").is_file()
    assert not (tmp_path / "e/meta.json").exists()
    metrics = succeed("embed", *given, f"out={tmp_path / 'e'}", out=tmp_path / "again")
    assert (metrics["sealed"], metrics["embedded_here"]) == (True, 0)
    assert content(tmp_path / "e") == whole


@pytest.mark.slow  # torchrun and two ranks import torch
def test_torchrun_gives_the_same_set(given: tuple[str, ...], whole: dict[str, bytes], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line = [*torchrun, str(ROOT / "scripts/embed.py"), *given, f"out={tmp_path / 'e'}"]
    own = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*line, f"hydra.run.dir={tmp_path / 'run'}"], env=own, check=False, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("metrics: ") == 1
    assert content(tmp_path / "e") == whole
    assert (tmp_path / "run/skipped.csv").read_bytes() == whole["skipped.csv"]
    assert len(EmbeddingSet.load(tmp_path / "e")) == 17
