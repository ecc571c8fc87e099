"""Photos benchmark: faces found in an LFW tree, the meant face of several, scores of a pretrained net on its pairs.

YuNet and SFace were trained on other photographs: scores here are ones with outside data.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.composed import compose, head_of, judge
from benchmarks.tables import Table
from facenet.data.pairs import read_pairs
from facenet.data.pictures import read_picture
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.sources.folder import scan_lfw
from facenet.encoders import lookup as encoders
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.verification import verify_embeddings
from facenet.faces.alignment import Alignment
from facenet.faces.detector import find_faces
from facenet.options import Options as BaseOptions
from facenet.options import option
from facenet.types import Pairs

PAGE = ("accuracy", "sem", "auc", "eer")
HEADS, LEAST_HEADS = 600, 8  # photographs that may give a head to compose of, and heads for one composition


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the photos benchmark."""

    root: str | None = option(None, help="an LFW tree with images/ and protocol/")
    pairs: str = option("pairsDevTest.txt", help="pairs file below protocol/")
    encoder: str = option("sface", help="a pretrained net or an encoder's folder")
    images: int = option(0, least=0, help="images in which faces are looked for; 0: all")
    crops: tuple[float, ...] = option((0.4, 0.45, 0.52, 0.6), above=0, most=1, help="central shares of the picture")
    composed: int = option(1000, least=0, help="photographs with several faces, composed of those with one")
    threads: int = option(2, least=1, help="threads that look for faces")


def run(options: Options) -> dict[str, Any]:
    """Look for faces in the images of the tree, then score the pairs.

    The pairs are scored with the encoder's own alignment, with the square around the box, and with central crops.

    Raises:
        ConfigError: no root.
        DataError: an unusable tree or pairs file, or a missing extra.
    """
    if not options.root:
        raise ConfigError("photos: pass benchmark.root=DIR (or set FACENET_LFW), a tree with images/ and protocol/")
    records = scan_lfw(options.root)
    drawn = np.sort(np.random.default_rng(0).permutation(len(records))[: options.images or None])
    result: dict[str, Any] = {"detection": _detection(records.subset(drawn), options.threads)}
    result["composed"] = _composed(records, options.composed)
    listed = read_pairs(Path(options.root) / "protocol" / options.pairs)
    wanted = {*listed.first, *listed.second}
    shown = records.subset([row for row, key in enumerate(records.keys) if key in wanted])
    net = encoders.load(options.encoder, device="cpu")
    compared = ways(net.preprocess, options.crops)
    result["scores"] = {name: _score(net, way, shown, listed) for name, way in compared.items()}
    return result | {"pairs": options.pairs, "encoder": options.encoder, "images": len(drawn)}


def ways(preprocess: Preprocess, crops: Sequence[float]) -> dict[str, Preprocess]:
    """The preprocessings compared: the net's own, a box that is not turned, central crops."""
    own = preprocess.align or Alignment(margin=1.0, size=max(preprocess.size))
    found = {"aligned": replace(preprocess, align=own)}
    found |= {
        f"box x {margin:g}": replace(preprocess, align=replace(own, template="box", margin=margin))
        for margin in (1.0, 1.2)
    }
    return found | {f"central {crop:g}": replace(preprocess, align=None, crop=crop) for crop in crops}


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    scores = [
        (name, *(score[key] for key in PAGE), score["skipped"], score["seconds"])
        for name, score in result["scores"].items()
    ]
    return [
        Table(f"faces in {result['images']:,} images", ("what", "value"), list(result["detection"].items())),
        Table("photographs with several faces, composed", ("what", "value"), list(result["composed"].items())),
        Table(f"{result['encoder']} on {result['pairs']}", ("faces", *PAGE, "pairs skipped", "seconds"), scores),
    ]


def _detection(records: Records, threads: int) -> dict[str, float]:
    find_faces(np.asarray(read_picture(Path(records.root) / records.paths[0])))  # opens the detector
    alignment = Alignment()

    def one(row: int) -> tuple[int, float]:
        pixels = np.asarray(read_picture(Path(records.root) / records.paths[row]))
        usable = [face for face in find_faces(pixels) if not alignment.why_unusable(face)]
        if not usable:
            return 0, np.nan
        face = alignment.choose(usable, (pixels.shape[1], pixels.shape[0]))
        return len(usable), float(np.hypot(*(face.centre - np.array(pixels.shape[1::-1]) / 2)))

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        counts, distances = map(np.array, zip(*pool.map(one, range(len(records))), strict=True))
    seconds = time.perf_counter() - started
    return {
        "share with a face": float((counts > 0).mean()),
        "share with several": float((counts > 1).mean()),
        "median distance from the centre, pixels": float(np.nanmedian(distances)),
        "95 % within, pixels": float(np.nanquantile(distances, 0.95)),
        "images a second, decoded and searched": len(records) / seconds,
        "threads": threads,
    }


def _composed(records: Records, count: int) -> dict[str, float]:
    """Count what is taken from composed photographs: the meant face, another person's, or no face."""
    rng, heads = np.random.default_rng(0), []
    for row in rng.permutation(len(records))[: min(count, HEADS)]:
        head = head_of(read_picture(Path(records.root) / records.paths[row]))
        heads += [] if head is None else [head]
    if not count or len(heads) < LEAST_HEADS:
        return {}
    choices = [judge(compose(heads, rng), Alignment()) for _ in range(count)]
    kinds = Counter(choice.kind for choice in choices)
    return {
        "photographs": count,
        "boxes that compete, mean": float(np.mean([choice.usable for choice in choices])),
        "the meant face taken": kinds["meant"] / count,
        **{f"{kind} taken": kinds[kind] for kind in ("person", "decoy", "elsewhere", "nothing")},
        "largest gap to the best score": max(choice.best - choice.score for choice in choices),
    }


def _score(net: Encoder, way: Preprocess, faces: Records, pairs: Pairs) -> dict[str, Any]:
    started = time.perf_counter()
    net.preprocess = way
    embeddings, _ = embed_records(net, faces)
    score = verify_embeddings(embeddings, pairs, allow_missing=True).metrics()
    return {**{key: score[key] for key in PAGE}, "skipped": score["skipped"], "seconds": time.perf_counter() - started}
