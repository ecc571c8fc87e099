"""FAISS factory strings, good, bad and mutated, given to a gallery: none may end the process or raise a bare error.

A child process plays the strings one after the other and prints what came of each. If a string ends the child, that is
counted, and another child goes on behind it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

from benchmarks.resources import environment
from facenet.errors import FacenetError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

FINGERPRINT, D, N = "fa" * 32, 32, 400
CODE = "import sys; from benchmarks.factories import child; child(sys.argv[1])"
TEXT = """
    Flat HNSW16 HNSW0 HNSW1 HNSW2 HNSW3 HNSW-1 HNSW99999 NSG32 NSG0 NSG16,Flat IVF8,Flat IVF0,Flat IVF-8,Flat
    IVF400,Flat IVF401,SQ8 IVF999999999,Flat IVF1,PQ1 IVF8,SQ8 IVF8,SQ4 IVF8,SQ6 IVF8,SQfp16 IVF8,SQbf16
    IVF8,PQ8 IVF8,PQ5 IVF8,PQ0 IVF8,PQ8x4 IVF8,PQ8x12 IVF8,PQ8x0 IVF8,PQ8x99 IVF8,PQ8x4fs IVF8,PQ8x4fsr
    IVF8,PQ8,RFlat IVF8_HNSW32,Flat IVF8_HNSW0,Flat IVF8_HNSW1,SQ8 IVF8(IVF4,Flat),Flat IVF8,RaBitQ IVF8,ITQ
    IVF8,LSHr IMI2x4,Flat IMI2x2,PQ8 IMI0x4,Flat IMI2x30,Flat PQ8 PQ8x4fs PQ16x16 PQ32 SQ8 SQ4 SQ5 SQfp16 RaBitQ
    RaBitQ8 LSH LSHrt RQ4x4 LSQ2x4 PRQ2x2x4 PLSQ2x2x4 RQ4x4fs ZnLattice2x4_4 PCA16,Flat PCA0,Flat PCA64,Flat
    PCAR16,SQ8 PCAW16,Flat OPQ4,PQ4 OPQ4_16,PQ4 ITQ16,LSH RR16,HNSW8 RR0,Flat L2norm,Flat Pad64,PQ8 HNSW16,SQ8
    HNSW16,PQ8 HNSW16,Flat HNSW16_SQ8 HNSW16_PQ8 HNSW0_SQ8 HNSW16,IVF8 IDMap,Flat IDMap2,HNSW16 Flat,IDMap
    Flat,RFlat Refine(PQ8) , Flat, ,Flat flat ivf8,flat IVF IVF8 HNSW PQ ((( IVF8(,Flat IVF8,Flat;rm ../x SVS
    SVSVamana64 NNDescent8
"""
PLAIN = TEXT.split()
STRINGS = (*PLAIN, "", " ", "A" * 5000, "Flat\x00", "Flat\n", "\ud800", "\xe9\xe8", "IVF\uff11\uff16,Flat")


def play(count: int, seed: int = 0) -> dict[str, int]:
    """Give `count` strings to a gallery: the list, shuffled, then mutations of it; returns counts of what came out."""
    rng = random.Random(seed)
    todo = [*rng.sample(STRINGS, len(STRINGS)), *(mutated(rng) for _ in range(max(0, count - len(STRINGS))))][:count]
    counts = {"strings": len(todo), "accepted": 0, "refused": 0, "failed_later": 0, "tracebacks": 0, "aborts": 0}
    with tempfile.TemporaryDirectory(prefix="facenet-factories-") as folder:
        while todo:
            done = subprocess.run(
                [sys.executable, "-c", CODE, folder], input=json.dumps(todo), text=True, capture_output=True,
                env=environment(""), check=False,
            )  # fmt: skip
            told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            for answer in told:
                counts[answer["outcome"]] += 1
                if answer["outcome"] in ("tracebacks", "failed_later"):
                    print(f"{answer['factory']!r}: {answer['said']}", flush=True)
            if len(told) < len(todo):
                counts["aborts"] += 1
                print(f"{todo[len(told)]!r} ended the process: {done.returncode} {done.stderr[-300:]}", flush=True)
            todo = todo[len(told) + 1 :]
    return counts


def mutated(rng: random.Random) -> str:
    """One of the strings with one to three characters changed, put in, left out, or two strings joined."""
    text = rng.choice(PLAIN)
    if rng.random() < 0.2:
        return text + rng.choice((",", "_", "")) + rng.choice(PLAIN)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at] + rng.choice(("", "0", "1", "9", "16", "x", ",", "_", "(", "-")) + text[at + rng.randrange(2) :]
        )
    return text


def child(folder: str) -> None:
    """Play the strings that stdin names, and print a line of JSON for each."""
    for number, factory in enumerate(json.load(sys.stdin)):
        outcome, said = "accepted", ""
        try:
            outcome, said = _used(Path(folder) / f"{number}-{random.random()}", factory)
        except Exception:  # what is counted here
            outcome, said = "tracebacks", traceback.format_exc()[-600:]
        print(json.dumps({"factory": factory, "outcome": outcome, "said": said}), flush=True)


def _used(place: Path, factory: str) -> tuple[str, str]:
    """Fill, search, change, save and open again a gallery with that index."""
    rows = normalise(np.random.default_rng(0).normal(size=(N + 60, D)))
    rows[N // 2 : N // 2 + 30] = rows[0]
    with Gallery.open(place, create=True) as gallery:
        gallery.add(_embedded(rows[:N], 0))
        try:
            gallery.configure(factory=factory, recall_target=0.5)
        except FacenetError as error:
            return ("refused", "") if "\n" not in str(error) else ("tracebacks", f"several lines: {error}")
    try:
        for start in (N, N + 30):
            with Gallery.open(place) as gallery:
                gallery.search(_queries(rows[:20]), 10)
                gallery.within(_queries(rows[:5]), 1.0)
                gallery.add(_embedded(rows[start : start + 30], start))
                gallery.remove([f"f{start - 100 - i}" for i in range(10)], by="id")
                gallery.save_cache(force=True)
                gallery.hits(_queries(rows[:20]), N)
                if gallery.check():
                    return "tracebacks", str(gallery.check())
    except FacenetError as error:
        return "failed_later", str(error)
    return "accepted", ""


def _embedded(rows: np.ndarray, start: int) -> EmbeddingSet:
    names = [f"f{start + i}" for i in range(len(rows))]
    return EmbeddingSet(rows, names, ["p"] * len(rows), FINGERPRINT)


def _queries(rows: np.ndarray) -> EmbeddingSet:
    return EmbeddingSet.unnamed(rows, FINGERPRINT)
