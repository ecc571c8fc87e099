"""Prove that two commits compute the same numbers, bit for bit, on equal data with one thread.

python benchmarks/same_numbers.py old=COMMIT new=COMMIT [lfw=DIR] [steps=100] [work=DIR] [again=true]

Each commit runs a short quick start. If `lfw` or FACENET_LFW names the LFW tree, a short LFW View 1 recipe runs too.
Weights, embeddings, tables and metrics are compared. Times and thread counts are not.
With `again=true` the old commit runs twice first, to prove that it repeats.
Finished runs stay in `work` and are used again.
Exit 0: equal. Exit 1: a difference or a failed run. Exit 2: a bad call.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parent.parent
OPTIONS = ("old", "new", "lfw", "steps", "work", "again")
COMPARED = ("encoder.safetensors", "encoder.json", "metrics.json", "*.npy", "*.csv")
NOT_COMPARED = re.compile(r"(.*_)?(seconds|threads|per_second)")  # names of what depends on the machine
SHOWN = 3  # differences of an artefact that are printed; all of them are in metrics.json
FACES = (  # few enough to draw in seconds
    "data.synthetic.train_identities=48",
    "data.synthetic.held_out_identities=15",
    "data.synthetic.evaluation_identities=30",
    "gallery_people=20",
)


class BadCall(Exception):
    """The command line can not be followed."""


def read_call(arguments: list[str]) -> dict[str, str]:
    """Read KEY=VALUE arguments; raises BadCall."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = [key for key in given if key not in OPTIONS]
    if unknown or not given.get("old") or not given.get("new"):
        named = f"unknown option {unknown[0]!r}" if unknown else "old=COMMIT and new=COMMIT are needed"
        raise BadCall(f"{named}; options: {', '.join(OPTIONS)}")
    call = {"lfw": os.environ.get("FACENET_LFW", ""), "steps": "100", "work": "runs/same_numbers", "again": "false"}
    call |= given
    if not call["steps"].isdecimal() or int(call["steps"]) < 4:
        raise BadCall(f"steps={call['steps']}: expected a whole number from 4")
    if call["again"] not in ("true", "false"):
        raise BadCall(f"again={call['again']}: expected true or false")
    if call["lfw"] and not (Path(call["lfw"]) / "protocol").is_dir():
        raise BadCall(f"lfw={call['lfw']}: no LFW tree, which holds images/ and protocol/")
    return call


def full_name(commit: str) -> str:
    """Return a commit's hash; raises BadCall."""
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise BadCall(f"{commit}: no such commit in {REPOSITORY}")
    return found.stdout.strip()


def commands(steps: int, lfw: str) -> dict[str, list[str]]:
    """Return the command of each part, which validates twice; the quick start trains for half the steps."""
    short = steps // 2
    train = f'train=["trainer.max_steps={short}","trainer.val_check_interval={short // 2}"]'
    parts = {"quickstart": ["facenet quickstart", *FACES, train]}
    if lfw:
        limits = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps // 2}", "seed=0"]
        root = f"data.root={Path(lfw).resolve()}"
        parts["lfw_view1"] = ["facenet train", "experiment=lfw_view1", root, *limits]
    return parts


def environment(tree: Path, cache: Path) -> dict[str, str]:
    """Return this process's environment with the commit's package, one thread, no GPU and its own cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FACENET_")}
    ours = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return kept | ours | {"XDG_CACHE_HOME": str(cache)}


def check_out(commit: str, tree: Path) -> None:
    """Put a commit's files into `tree`, unless they are there, and check that its own package is imported."""
    if not tree.is_dir():
        new = tree.with_name("tree.new")
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(REPOSITORY), str(new)], check=True)
        subprocess.run(["git", "-C", str(new), "checkout", "-q", "--detach", commit], check=True)
        new.rename(tree)
    command = [sys.executable, "-c", "import facenet; print(facenet.__file__)"]
    found = subprocess.run(
        command, cwd=tree, env=environment(tree, tree), stdout=subprocess.PIPE, text=True, check=True
    )
    if not Path(found.stdout.strip()).resolve().is_relative_to(tree):
        raise SystemExit(f"error: {commit} would run the package in {found.stdout.strip()}, not its own")


def run_part(folder: Path, name: str, arguments: list[str]) -> float:
    """Run a command of a commit into `folder`/`name`, unless it finished before; return the seconds it took."""
    out, marker, log = (folder / f"{name}{ending}" for ending in ("", ".done.json", ".log"))
    command = [*arguments, f"hydra.run.dir={out}"]
    done = json.loads(marker.read_text()) if marker.is_file() else {}
    if done.get("command") == command:
        return float(done["seconds"])
    marker.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started, tree = time.perf_counter(), folder.parent / "tree"
    options: dict[str, Any] = {"cwd": tree, "env": environment(tree, folder / "cache"), "stderr": subprocess.STDOUT}
    with log.open("w") as file:
        ended = subprocess.run([sys.executable, *command], stdout=file, check=False, **options)
    if ended.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {ended.returncode}; see {log}")
    seconds = round(time.perf_counter() - started, 1)
    marker.write_text(json.dumps({"command": command, "seconds": seconds}, indent=2) + "\n")
    print(f"{folder.parent.name} {folder.name}: {name} took {seconds:.0f} s", flush=True)
    return seconds


def leaves(content: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested objects and lists into {dotted name: value}, without times and thread counts."""
    if not isinstance(content, dict | list) or not content:
        return {name: content}
    found: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if not NOT_COMPARED.fullmatch(str(key)):
            found |= leaves(value, f"{name}.{key}" if name else str(key))
    return found


def read(path: Path, folder: Path) -> dict[str, Any]:
    """Return a file's arrays or leaves by name; its run's folder reads RUN, its commit's TREE."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if path.suffix == ".npy":
        return {"array": np.load(path)}
    text = path.read_text(encoding="utf-8").replace(str(folder), "RUN").replace(str(folder.parent / "tree"), "TREE")
    return leaves(json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines())))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a line for each name that only one side has, and for each value that is not the same bit for bit."""
    found = []
    for name in {**old, **new}:
        if name not in new or name not in old:
            found.append(f"{name}: only in {'old' if name in old else 'new'}")
        elif isinstance(old[name], np.ndarray) and isinstance(new[name], np.ndarray):
            found += [f"{name}: {text}" for text in array_difference(old[name], new[name])]
        elif repr(old[name]) != repr(new[name]):
            found.append(f"{name}: {old[name]!r} -> {new[name]!r}")
    return found


def array_difference(old: np.ndarray, new: np.ndarray) -> list[str]:
    """Return a line if type, shape or any byte differs, else nothing."""
    if old.dtype != new.dtype or old.shape != new.shape:
        return [f"{old.dtype} {old.shape} -> {new.dtype} {new.shape}"]
    if old.tobytes() == new.tobytes():
        return []
    most = np.abs(old.astype(np.float64) - new.astype(np.float64)).max()
    return [f"{np.count_nonzero(old != new)} of {old.size} values differ, by at most {most:.3g}"]


def compare(old: Path, new: Path, parts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the differences of each artefact that either run wrote."""
    found: dict[str, list[str]] = {}
    written = {path.relative_to(run) for run in (old, new) for one in COMPARED for path in run.rglob(one)}
    for name in sorted(path for path in written if path.parts[0] in parts):
        if (old / name).is_file() and (new / name).is_file():
            found[str(name)] = differences(read(old / name, old), read(new / name, new))
        else:
            found[str(name)] = [f"only in {'old' if (old / name).is_file() else 'new'}"]
    return found


def show(found: dict[str, list[str]]) -> None:
    """Print a row for each artefact."""
    width = max(map(len, found), default=0)
    for name, lines in found.items():
        more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
        print(f"  {name:{width}}  {'; '.join(lines[:SHOWN]) + more if lines else 'equal'}")


def main(arguments: list[str]) -> int:
    """Follow the command line; return the exit code."""
    call = read_call(arguments)
    old, new, again = full_name(call["old"]), full_name(call["new"]), call["again"] == "true"
    if old == new and not again:
        raise BadCall("old and new are the same commit; again=true runs it twice")
    work, parts = Path(call["work"]).resolve(), commands(int(call["steps"]), call["lfw"])
    if not call["lfw"]:
        print("lfw_view1 is skipped: neither lfw=DIR nor FACENET_LFW is given")
    runs = {"old": (old, "first")} | ({"repeat": (old, "again")} if again else {})
    runs |= {"new": (new, "first")} if new != old else {}
    metrics: dict[str, Any] = {"call": call, "old": old, "new": new, "seconds": {}, "equal": True}
    for title, (commit, name) in runs.items():
        folder = work / commit[:12] / name
        folder.mkdir(parents=True, exist_ok=True)
        check_out(commit, folder.parent / "tree")
        metrics["seconds"][title] = {part: run_part(folder, part, command) for part, command in parts.items()}
        if title == "old":
            continue
        metrics[title] = compare(work / old[:12] / "first", folder, parts)
        differ = sum(map(bool, metrics[title].values()))
        print(f"{title}: {old[:12]} against {commit[:12]}: {differ} of {len(metrics[title])} artefacts differ")
        show(metrics[title])
        metrics["equal"] &= bool(metrics[title]) and not differ
    (work / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"{'equal' if metrics['equal'] else 'NOT equal'}; metrics: {work / 'metrics.json'}")
    return 0 if metrics["equal"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BadCall as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
