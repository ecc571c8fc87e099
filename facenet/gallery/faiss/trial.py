"""Try a FAISS factory string in a process of its own, before a gallery takes it.

Some strings end the process (HNSW0 aborts, HNSW1 is a segmentation fault). Others fail at the second addition (NSG32)
or ask for all memory. The trial plays on random vectors what a gallery does with its index: train, add, search, write,
map, copy, add again, remove. Its memory and time are limited.

Letters: n vectors of the trial, D embedding width.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import ConfigError

PROVEN = re.compile(r"Flat|HNSW(8|16|32|64)|IVF[1-9]\d{0,4},(Flat|SQ8|PQ[1-9]\d?)")  # what kinds are made of
SECONDS, MEMORY = 30, 4 << 30  # limits of a trial
FACES, LISTS = 600, 16  # vectors, and inverted lists at most: training thousands of lists takes minutes
MOST_FACES = 70_000  # that training may ask for
CLUSTERS = re.compile(r"number of clusters \((\d+)\)")
SHOWN = 60  # characters of a string in a message
CODE = "import sys; sys.path[:] = sys.argv[1:]; from facenet.gallery.faiss.trial import main; main()"


@functools.cache
def try_factory(dim: int, factory: str) -> None:
    """Return if a gallery of width D can use a factory string; strings of a proven form are not tried.

    Raises:
        ConfigError: the string ended the process of the trial, raised an error, or took too much memory or time.
    """
    if PROVEN.fullmatch(factory):
        return
    if not factory.isprintable():
        raise _refused(factory, "it holds characters that can not be printed")
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, *sys.path], input=json.dumps([dim, factory]), capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _refused(factory, f"a trial took more than {SECONDS} s") from None
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = lines[-1] if lines else {"step": "start"}
    if "said" in last:  # by :func:`new_index`, which names the string
        raise ConfigError(last["said"])
    if "why" in last:
        raise _refused(factory, last["why"])
    if "done" not in last:
        raise _refused(
            factory, f"FAISS ended the process of a trial ({_ending(done.returncode)}, step: {last['step']})"
        )


def shown(factory: str) -> str:
    """Return a factory string for a message."""
    return repr(factory if len(factory) <= SHOWN else factory[:SHOWN] + "...")


def reason(error: BaseException) -> str:
    """Return what FAISS said, without the place in its source."""
    text = " ".join(str(error).split())
    return re.sub(r".* at \S+:\d+: (Error: )?('.*' failed: )?", "", text)[-120:] or type(error).__name__


def _refused(factory: str, why: str) -> ConfigError:
    advice = "choose another string, or kind=hnsw, ivf_sq8 or ivf_pq"
    return ConfigError(f"factory: {shown(factory)} can not be used: {why}; {advice}")


def _ending(code: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit status {code}"


# In the process of the trial


def main() -> None:
    """Play the trial that stdin names, and print each step and the result as a line of JSON."""
    dim, factory = json.load(sys.stdin)
    _limit()
    step = "start"
    try:
        for step in _steps(dim, factory):
            print(json.dumps({"step": step}), flush=True)
        result: dict[str, Any] = {"done": True}
    except ConfigError as error:
        result = {"said": " ".join(str(error).split())}
    except MemoryError:
        result = {"why": f"it asks for more than {MEMORY >> 30} GB for a small gallery (step: {step})"}
    except Exception as error:  # whatever FAISS raises is a reason to refuse the string
        result = {"why": f"{reason(error)} (step: {step})"}
    print(json.dumps(result), flush=True)


def _limit() -> None:
    """Limit memory and processor time, and write no core file; not where the system has no such limits."""
    with contextlib.suppress(ImportError):
        import resource

        for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_CORE, 0)):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))


def _steps(dim: int, factory: str) -> Iterator[str]:
    """Do with an index what a gallery does, and yield the name of each step before it."""
    from facenet.gallery.faiss.file import copied, mapped, write_hashed
    from facenet.gallery.faiss.kinds import drop, held, new_index

    yield "build"
    new_index(dim, factory)
    index = new_index(dim, re.sub(r"IVF(\d+)", lambda found: f"IVF{min(int(found[1]), LISTS)}", factory))
    yield "train"
    vectors = _trained(index, dim)
    numbers = np.arange(len(vectors), dtype=np.int64) * 2 + 7
    first = slice(0, FACES)
    yield "add"
    index.add_with_ids(vectors[first], numbers[first])
    yield "search"
    _search(index, vectors)
    yield "write"
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "index").open("wb") as file:
            write_hashed(index, file)
        content = np.memmap(Path(folder) / "index", np.uint8, "r")
        yield "search the written index"
        _search(mapped(content), vectors)
        yield "add again"
        again = copied(content)
        again.add_with_ids(vectors[:50], 10**6 + numbers[:50])
        _search(again, vectors)
        yield "remove"
        drop(again, numbers[:20])
        if len(held(again)) not in (FACES + 50, FACES + 30):
            raise RuntimeError(f"{len(held(again))} numbers are in it where {FACES + 30} should be")
        _search(again, vectors)


def _trained(index: Any, dim: int) -> np.ndarray:
    """Train an index; returns the vectors (n, D), some of which are equal: more if training asks for more."""
    vectors = _random(FACES, dim)
    if not index.is_trained:
        try:
            index.train(vectors)
        except RuntimeError as error:
            asked = CLUSTERS.search(str(error))
            if not asked or int(asked[1]) > MOST_FACES:
                raise
            vectors = _random(int(asked[1]), dim)
            index.train(vectors)
    return vectors


def _random(count: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dim), np.float32)
    vectors[1 : count // 4] = vectors[0] + 1e-3 * vectors[1 : count // 4]
    vectors[count // 2 : count // 2 + 20] = vectors[0]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _search(index: Any, vectors: np.ndarray) -> None:
    """Search with several parameters, for few, for all, and among some.

    Raises:
        RuntimeError: sq_dist is NaN or negative, or a number is none of the index.
    """
    from facenet.gallery.faiss.kinds import held, parameters, selecting, use_parameter

    known, queries, settings = held(index), vectors[:FACES:50], parameters(index)
    for parameter in {settings[0], settings[len(settings) // 2], settings[-1]}:
        use_parameter(index, parameter)
        for k in (1, 10, int(index.ntotal)):
            sq_dist, found = index.search(queries, k)
            there = found >= 0
            if not np.isin(found[there], known).all() or not (sq_dist[there] > -1).all():
                raise RuntimeError("its answers are no neighbours")
        with contextlib.suppress(ConfigError):
            index.search(queries, 5, params=selecting(index, parameter, known[:200]))
