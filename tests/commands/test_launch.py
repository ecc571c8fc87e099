"""The commands as processes of a distributed job: sweeps of two ranks, torchrun, and a rank that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from facenet.commands import launch
from facenet.commands.launch import given_options
from facenet.errors import ConfigError
from tests.helpers.commands import TINY, TRAIN, environment, play
from tests.helpers.reports import faces


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"data.cache_dir={tmp_path_factory.mktemp('cache')}"


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def same(first: Path, second: Path) -> bool:
    other = weights(second)
    return all(torch.equal(value, other[key]) for key, value in weights(first).items())


@pytest.fixture(scope="module")
def sweep(cache: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs of two ranks each; the first is the uninterrupted run of the tests below."""
    out = tmp_path_factory.mktemp("sweep")
    line = [*TRAIN, "-m", f"hydra.sweep.dir={out}", *TINY, cache, "trainer.max_steps=6", "seed=0,1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warning is printed"
    return out


@pytest.mark.slow  # two jobs of two ranks each import torch; tests/large_batch holds two ranks against one in every run
def test_each_job_of_a_sweep_has_its_own_ranks_and_run_folder(sweep: Path) -> None:
    metrics = [json.loads((sweep / job / "metrics.json").read_text()) for job in "01"]
    assert [entry["train"]["ranks"] for entry in metrics] == [2, 2]
    assert [entry["train"]["faces_seen"] for entry in metrics] == [6 * 24, 6 * 24]
    assert not same(sweep / "0", sweep / "1")
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", "multirun.yaml"]


@pytest.mark.slow  # torchrun and two ranks import torch
def test_torchrun_gives_the_same_weights(sweep: Path, cache: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line = [*torchrun, TRAIN[1], f"hydra.run.dir={out}", *TINY, cache, "trainer.max_steps=6"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("metrics.json") == 1
    assert same(sweep / "0", out)


@pytest.mark.slow  # two jobs of two ranks each, one after the other
def test_a_killed_rank_ends_the_job_and_it_resumes_to_the_bit(sweep: Path, cache: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = [*TRAIN, f"hydra.run.dir={out}", *TINY, cache, "trainer.max_steps=6", "resume=auto"]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert job.stdout is not None
    for text in job.stdout:
        if "training: 3 of 6" in text:  # behind the checkpoint of step 2
            os.kill(_child_of(job.pid), signal.SIGKILL)
            break
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert errors.splitlines()[-1].startswith("error: rank 0 of 2 lost the others")
    assert "resume=auto" in errors
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert same(sweep / "0", out)


@pytest.mark.slow  # two jobs of two ranks each, one after the other
def test_two_ranks_that_are_told_stop_together_and_go_on_to_the_bit(sweep: Path, cache: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = [*TRAIN, f"hydra.run.dir={out}", *TINY, cache, "trainer.max_steps=6", "resume=auto"]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert job.stdout is not None
    for text in job.stdout:
        if "training: 2 of 6" in text:
            job.send_signal(signal.SIGTERM)
            break
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 143
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: stopped by SIGTERM at step ")
    assert f"resume=auto hydra.run.dir={out} resumes from" in errors
    assert (out / "checkpoints" / "last.ckpt").is_file()
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert same(sweep / "0", out)


ONE = [option for option in TINY if option != "trainer.devices=2"]
LAUNCHERS = {
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=15"],
}


@pytest.mark.slow  # each launcher trains five points, in processes of their own
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_outlives_a_failing_point_and_goes_on_where_it_ended(launcher: str, cache: str, tmp_path: Path) -> None:
    """Three points of which the first can not be; then the same command with that point mended."""
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    names = [f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=dim${model.embedding_dim}", "resume=auto"]
    line = [*TRAIN, "-m", *names, *LAUNCHERS[launcher], *ONE, cache, "trainer.max_steps=4"]
    done = _sweep([*line, "model.embedding_dim=0,8,16"])
    said = "model.embedding_dim: expected a number of at least 1 and at most 65536, got 0"
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {said}"
    told = done.stderr + "".join(path.read_text() for path in tmp_path.glob(".submitit/*/*.err"))
    assert "point 0 failed (" in told
    assert f"model.embedding_dim=0): {said}; the others go on" in told
    finished = {path.parent.name: path.read_bytes() for path in sorted(tmp_path.glob("*/metrics.json"))}
    assert list(finished) == ["dim16", "dim8"]
    threads = json.loads(finished["dim8"])["train"]["threads"]
    assert threads == 1, "points that share a machine do not fight for it"
    (tmp_path / "dim16" / "metrics.json").unlink()  # as if it had been cut off behind its last checkpoint
    done = _sweep([*line, "model.embedding_dim=4,8,16"])
    assert done.returncode == 0, done.stderr
    told = done.stdout + "".join(path.read_text() for path in tmp_path.glob(".submitit/*/*.out"))
    assert told.count(f"finished before, with these options: {tmp_path / 'dim8' / 'metrics.json'} is kept") == 1
    assert told.count("finished before") == 1
    assert told.count(f"resuming from {tmp_path / 'dim16' / 'checkpoints' / 'last.ckpt'}") == 1
    assert (tmp_path / "dim8" / "metrics.json").read_bytes() == finished["dim8"]
    again = json.loads((tmp_path / "dim16" / "metrics.json").read_text())
    before = json.loads(finished["dim16"])
    assert again["verification"] == before["verification"]
    assert (tmp_path / "dim4" / "metrics.json").is_file()
    other = _sweep([*line, "model.embedding_dim=8", "seed=1"])
    assert other.returncode == 2
    assert "seed: 0 then, 1 now" in other.stderr


def _sweep(line: list[str]) -> subprocess.CompletedProcess[str]:
    own = environment()
    if "basic" not in line[line.index("-m") + 4]:
        own.pop("OMP_NUM_THREADS")  # the command sets it for the processes it starts
    return subprocess.run(line, capture_output=True, text=True, check=False, env=own, timeout=900)


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("a=photo (1).jpg", "a='photo (1).jpg'"),
        ("images=José", "images='José'"),
        ("images=it's é", r"images='it\'s é'"),
        ("seed=0,1", "seed=0,1"),
        ("where={camera: 2}", "where={camera: 2}"),
        ("query='José'", "query='José'"),
        ("--help", "--help"),
        ("data=[folder", "data=[folder"),
    ],
)
def test_a_value_that_hydra_can_not_read_is_quoted(argument: str, read: str) -> None:

    assert launch.quoted(argument) == read


def test_an_argument_that_is_no_text_is_refused() -> None:

    with pytest.raises(ConfigError, match=r"images=Ren\\xe9: the argument is not UTF-8"):
        launch.quoted("images=Ren\udce9")


@pytest.mark.slow  # three trainings
def test_a_sweep_says_which_point_failed_and_goes_on(tmp_path: Path) -> None:
    faces(8, 3).save(tmp_path / "faces")
    names = [f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweep.subdir=${threshold}"]
    done = play("cluster", "-m", *names, f"embeddings={tmp_path / 'faces'}", "threshold=5,0.5,0.7")
    assert done.code == 2
    said = "threshold: expected a number of at least 0 and at most 4, got 5"
    point, *_, error = done.errors.splitlines()
    assert point.startswith("point 0 failed (")
    assert f"threshold=5): {said}" in point
    assert point.endswith("; the others go on")
    assert error.startswith(f"error: {said}")
    finished = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/metrics.json")}
    assert {name: metrics["threshold"] for name, metrics in finished.items()} == {"0.5": 0.5, "0.7": 0.7}


@pytest.mark.slow  # a process imports torch
def test_a_sweep_is_not_for_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    done = play("cluster", "-m", f"hydra.sweep.dir={tmp_path}", f"embeddings={tmp_path}", "threshold=0.5,0.7")
    assert done.code == 2
    assert "run it without torchrun, with trainer.devices=N" in done.errors.splitlines()[-1]


def _child_of(parent: int) -> int:
    """The process that `parent` started as rank 1."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                started_by = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if started_by == parent and b"LOCAL_RANK=1" in (folder / "environ").read_bytes():
                    return int(folder.name)
            except (OSError, IndexError):
                continue
    raise AssertionError("no second rank was started")


def test_the_options_that_a_job_was_given_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_options() == [], "outside of a command"
    typed = SimpleNamespace(overrides=SimpleNamespace(task=["++model.norm=batch", "model=nn4", "~seed", "a.b='c=d'"]))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: typed)
    assert given_options() == ["model.norm", "model.name", "seed", "a.b"]


def test_the_other_ranks_know_the_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.RUN_FOLDER, raising=False)

    def entered(*arguments: str) -> Path | None:
        argv = ["facenet", *arguments]
        return launch._enter_as_rank(argv, launch._named_folder(argv))

    assert entered("hydra.run.dir=runs/a", "hydra.run.dir='runs/José'") == Path("runs/José")
    assert entered("hydra.run.dir=runs/${model.name}") is entered() is None
    with pytest.raises(ConfigError, match="name the run folder"):
        entered("hydra.run.dir=runs/${model.name}", "++resume=auto")
    assert entered("hydra.run.dir=runs/a", "++resume=auto") == Path("runs/a")
