"""Reading benchmark: the images of a batch in the batch's order, and in the order in which they lie in larger files.

A set of drawn faces is written in tar files, once with its people one after the other and once shuffled, as the shards
of a webdataset are. The images of each batch are read by one thread, as a loader process does, and not decoded. For a
cold read the system gives up the pages that it keeps of the set; how far it obeys is its own affair.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ready import drawn_pictures
from benchmarks.sampler import draw_labels
from benchmarks.tables import Table
from facenet.data.index import Columns, Index, digest_of_image, index_folder, padded
from facenet.data.options import SamplerOptions
from facenet.data.records import Records
from facenet.data.sampler import IdentitySampler
from facenet.data.sources.kinds import scan_usable
from facenet.export.speed import summary
from facenet.options import Options as BaseOptions
from facenet.options import option

LAYOUTS = ("by person", "shuffled")
ORDERS = ("as in the batch", "as they lie")
CACHES = ("cold", "warm")
BLOCK = 512  # bytes of a tar header; members are padded to it


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the reading benchmark."""

    images: int = option(1_000_000, least=1000, help="images of the set; a million take 5.5 GB")
    shards: int = option(8, least=1, help="tar files of the set")
    batch_size: int = option(1800, least=5, help="images of a batch")
    batches: int = option(25, least=1, help="batches read in each way")
    folder: str | None = option(None, help="where to write; null: a temporary folder")


def run(options: Options) -> dict[str, Any]:
    """Return images a second (a summary of seconds over the batches) of each layout, cache and order.

    ``layouts.<layout>.<cache>.<order>``: seconds of a batch. ``layouts.<layout>.ordering``: seconds that finding the
    order of a batch takes, which are part of "as they lie".
    """
    layouts: dict[str, Any] = {}
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory(prefix="facenet-reading-", dir=options.folder) as name:
            root = Path(name) / "faces"
            make_set(root, options.images, options.shards, shuffled=layout == "shuffled")
            _, records = scan_usable("folder", str(root), max_bad_share=0)
            layouts[layout] = _measure(records, root, options)
    return {"batch_size": options.batch_size, "images": options.images, "layouts": layouts}


def make_set(root: Path, images: int, shards: int, *, shuffled: bool) -> None:
    """Write tar files of drawn pictures of 112x112 and their index."""
    root.mkdir(parents=True)
    pictures = drawn_pictures()
    members = [bytes(BLOCK) + picture + bytes(-len(picture) % BLOCK) for picture in pictures]  # nobody reads a header
    room, length = (np.array([len(one) for one in group]) for group in (members, pictures))
    rows = np.random.default_rng(0).permutation(images) if shuffled else np.arange(images)
    which = np.arange(images) % len(pictures)
    shard, offset = np.empty(images, np.uint16), np.empty(images, np.int64)
    names = tuple(f"{number:05d}.tar" for number in range(shards))
    for number, part in enumerate(np.array_split(rows, shards)):
        with (root / names[number]).open("wb") as file:
            file.writelines(members[picture] for picture in which[part].tolist())
            file.flush()
            os.fsync(file.fileno())
        shard[part], offset[part] = number, np.cumsum(room[which[part]]) - room[which[part]] + BLOCK
    labels = draw_labels(images)
    digest = np.array([digest_of_image(picture) for picture in pictures], np.uint64)[which]
    people = padded(np.arange(int(labels[-1]) + 1))
    columns = Columns(padded(np.arange(images)), people, labels, names, shard, offset, length[which], digest)
    Index("tar", root, columns).save(index_folder(root))


def _measure(records: Records, root: Path, options: Options) -> dict[str, Any]:
    """Read batches in both orders by turns; each batch is another one."""
    sampler = IdentitySampler(records.labels, SamplerOptions(batch_size=options.batch_size, faces_per_identity=8))
    files = [*root.iterdir(), *index_folder(root).iterdir()]
    spent: dict[str, dict[str, list[float]]] = {cache: {order: [] for order in ORDERS} for cache in CACHES}
    ordering = []
    for number in range(options.batches):
        rows = np.asarray(sampler.whole(number))
        for cache in CACHES:
            for order in ORDERS[:: 1 if number % 2 else -1]:
                if cache == "cold":
                    forget(files)
                start = time.perf_counter()
                places = np.arange(len(rows)) if order == ORDERS[0] else records.as_they_lie(rows)
                known = time.perf_counter()
                for row in rows[places].tolist():
                    records.source(row)
                spent[cache][order].append(time.perf_counter() - start)
                if (cache, order) == (CACHES[1], ORDERS[1]):
                    ordering.append(known - start)
    timed = {cache: {order: summary(times) for order, times in orders.items()} for cache, orders in spent.items()}
    return {**timed, "ordering": summary(ordering)}


def forget(files: Iterable[Path]) -> None:
    """Ask the system to give up what it keeps of some files in memory, if it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    size = result["batch_size"]

    def rate(entry: dict[str, Any]) -> str:
        return f"{size / entry['seconds']:,.0f} ({size / entry['most']:,.0f} to {size / entry['least']:,.0f})"

    rows: list[tuple[Any, ...]] = []
    for layout, entry in result["layouts"].items():
        for cache in CACHES:
            given, near = (entry[cache][order] for order in ORDERS)
            ratio = f"{given['seconds'] / near['seconds']:.2f}"
            rows.append((layout, cache, rate(given), rate(near), ratio, f"{entry['ordering']['seconds'] * 1e3:.1f}"))
    header = ("files", "cache", *(f"{order}, images/s" for order in ORDERS), "ratio", "ms to find the order")
    return [Table(f"reading batches of {size} of {result['images']:,} images (median, least to most)", header, rows)]
