"""Loader benchmark: image files to normalised batches, faces per second and core by stage, beside a training step.

The stages are the library's own path with ``cache=none``: decode, crop and resize, augment and normalise. The
peers crop, resize, mirror, jitter colours and normalise image by image; ours also rotates, scales, shifts and cuts out.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.training import SETTINGS, Step, interleave
from facenet.data.augment import Augment
from facenet.data.cache import pack
from facenet.data.datamodule import BatchDataset
from facenet.data.drawn.faces import draw, write_folder
from facenet.data.preprocess import Preprocess, stack
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.errors import ConfigError, choose
from facenet.models.registry import NETS

SIDE = 250  # pixels of the drawn JPEGs, as in Labeled Faces in the Wild
MARGIN = 1.25  # what the data module keeps around an image that is augmented
NET_CROP = 0.52  # conf/data/lfw.yaml
WALL = 3.0  # seconds, about, of each loader beside a net
Tables = list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]


def run(
    root: str | None = None,
    faces: int = 480,
    size: int = 160,
    crops: Sequence[float] = (0.64, 0.52, 1.0),
    repeats: int = 3,
    workers: int | None = None,
    nets: Sequence[str] = ("small", "nns2"),
    batch_size: int = 60,
    peers: bool = True,
) -> dict[str, Any]:
    """Measure on the JPEGs of a folder, or on drawn ones; returns plain numbers in nested objects.

    ``crops.<crop>.ours`` and the peers: `faces_per_core_second` (median), `least`, `most`, in CPU seconds of one
    thread; ``crops.<crop>.stages``: CPU milliseconds a face. ``nets.<net>``, in faces per second of wall time on all
    cores: `step` (training on a batch that is there), `files` and `cache` (loading alone), `files_trained` and
    `cache_trained` (training on what is loaded meanwhile), and the `_ratio` of each to the step.

    Raises:
        ConfigError: an unknown net or a number out of range.
        DataError: no images in the folder.
    """
    for name in nets:
        choose(NETS, name, "benchmark.nets")
    if min(faces, repeats, batch_size) < 1 or batch_size < 5:
        raise ConfigError("benchmark: expected faces and repeats of at least 1 and batch_size of at least 5")
    workers = _cores() if workers is None else workers
    with ExitStack() as cleanup:
        folder = root or cleanup.enter_context(tempfile.TemporaryDirectory())
        records = _records(folder, faces, drawn=root is None)
        result: dict[str, Any] = {
            "images": "drawn" if root is None else "files",
            "faces": len(records),
            "size": size,
            "workers": workers,
            "threads": torch.get_num_threads(),
            "crops": {},
            "nets": {},
        }
        for crop in crops:
            result["crops"][f"{crop:g}"] = _one_core(records, size, crop, repeats, batch_size, peers)
        for name in nets:
            result["nets"][name] = _beside_a_net(records, name, repeats, workers, batch_size)
    return result


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _records(folder: str, faces: int, *, drawn: bool) -> Records:
    """Return `faces` rows, spread over the folder; a small folder is read again and again."""
    if drawn:
        write_folder(draw(identities=24, images_per_identity=5, size=SIDE), folder)
    found = scan(folder)
    return found.subset([i * len(found) // faces if faces <= len(found) else i % len(found) for i in range(faces)])


def _batches(count: int, batch_size: int) -> list[list[int]]:
    return [list(range(i, min(i + batch_size, count))) for i in range(0, count, batch_size)]


def _one_core(records: Records, size: int, crop: float, repeats: int, batch_size: int, peers: bool) -> dict[str, Any]:
    """Measure the whole path, its stages and the peers on one thread, one after the other in every repetition."""
    preprocess, augment = Preprocess(size=(size, size), crop=crop), Augment()
    dataset = BatchDataset(records, records.labels, preprocess, MARGIN, None)
    batches = _batches(len(records), batch_size)
    generator = torch.Generator().manual_seed(0)

    def ours() -> None:
        for rows in batches:
            augment(dataset[rows][0], preprocess.size, generator, preprocess)

    contestants: dict[str, Callable[[], object]] = {"ours": ours}
    if peers:
        contestants |= {name: build(records, batches, size, crop) for name, build in PEERS.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        stages: dict[str, list[float]] = {}
        for repeat in range(repeats + 1):
            for name, contestant in contestants.items():
                rates[name].append(len(records) / _cpu_seconds(contestant))
            for name, spent in _stages(records, preprocess, augment, batches).items():
                stages.setdefault(name, []).append(spent / len(records) * 1e3)
            if repeat == 0:  # the warm-up
                rates, stages = {name: [] for name in contestants}, {}
    finally:
        torch.set_num_threads(before)
    result: dict[str, Any] = {
        name: {"faces_per_core_second": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in rates.items()
    }
    return {**result, "stages": {name: statistics.median(values) for name, values in stages.items()}}


def _stages(records: Records, preprocess: Preprocess, augment: Augment, batches: list[list[int]]) -> dict[str, float]:
    """Return the CPU seconds of each stage over all batches."""
    spent = dict.fromkeys(("decode", "crop and resize", "augment and normalise"), 0.0)
    generator = torch.Generator().manual_seed(0)
    for rows in batches:
        times = [time.thread_time()]
        pictures = [_loaded(str(records.source(row))) for row in rows]
        times.append(time.thread_time())
        batch = torch.from_numpy(stack([preprocess.read(picture, MARGIN) for picture in pictures]))
        times.append(time.thread_time())
        augment(batch, preprocess.size, generator, preprocess)
        times.append(time.thread_time())
        for name, start, end in zip(spent, times, times[1:], strict=False):
            spent[name] += end - start
    return spent


def _loaded(path: str) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def _beside_a_net(records: Records, name: str, repeats: int, workers: int, batch_size: int) -> dict[str, Any]:
    """Measure a training step, the loader from files and the loader from the packed cache, on all cores."""
    step = Step(name, batch_size, SETTINGS["fp32_channels_last"], torch.device("cpu"))
    times = interleave({"step": step}, WALL, repeats + 2)["step"]
    preprocess = Preprocess(size=step.model.input_size, crop=NET_CROP)
    packed, _ = pack(records, preprocess, margin=MARGIN)
    from_files = BatchDataset(records, records.labels, preprocess, MARGIN, None)
    from_cache = BatchDataset(records, records.labels, preprocess, MARGIN, packed)
    entry: dict[str, Any] = {"batch_size": batch_size, "step": _spread([batch_size / t for t in times])}
    for key, dataset, processes in (("files", from_files, workers), ("cache", from_cache, 0)):
        entry[key] = _spread(
            [_loaded_per_second(dataset, preprocess, processes, batch_size, round(WALL * 1000)) for _ in range(repeats)]
        )
        rate = entry["step"]["faces_per_second"]
        entry[f"{key}_ratio"] = entry[key]["faces_per_second"] / rate
        count = round(WALL * rate)
        trained = [_loaded_per_second(dataset, preprocess, processes, batch_size, count, step) for _ in range(repeats)]
        entry[f"{key}_trained"] = _spread(trained)
        entry[f"{key}_trained_ratio"] = entry[f"{key}_trained"]["faces_per_second"] / rate
    return entry


def _spread(rates: list[float]) -> dict[str, float]:
    return {"faces_per_second": statistics.median(rates), "least": min(rates), "most": max(rates)}


def _loaded_per_second(
    dataset: BatchDataset, preprocess: Preprocess, workers: int, batch_size: int, faces: int, step: Step | None = None
) -> float:
    """Return faces per second of wall time, the start of the workers included; with a `step`, trained on meanwhile."""
    rows = _batches(len(dataset), batch_size)
    if step is not None:  # takes one size of batch only
        rows = [row for row in rows if len(row) == batch_size] or [list(range(batch_size))]
    rows *= max(1, round(faces / sum(map(len, rows))))
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(dataset, None, sampler=rows, num_workers=workers)
    augment, generator = Augment(), torch.Generator().manual_seed(0)
    start, seen = time.perf_counter(), 0
    for images, _ in loader:
        batch = augment(images, preprocess.size, generator, preprocess)
        seen += len(batch)
        if step is not None:
            step.images = batch.contiguous(memory_format=torch.channels_last)
            step()
    return seen / (time.perf_counter() - start)


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _per_image(size: int, crop: float) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    chain = [
        v2.CenterCrop(round(SIDE * crop)),
        v2.Resize((size, size), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.1, contrast=0.25),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
    return v2.Compose(chain)


def _pil_v2(records: Records, batches: list[list[int]], size: int, crop: float) -> Callable[[], object]:
    from PIL import Image

    change = _per_image(size, crop)

    def load() -> None:
        for rows in batches:
            torch.stack([change(Image.open(str(records.source(row))).convert("RGB")) for row in rows])

    return load


def _decode_jpeg_v2(records: Records, batches: list[list[int]], size: int, crop: float) -> Callable[[], object]:
    change = _per_image(size, crop)

    def load() -> None:
        from torchvision.io import ImageReadMode, decode_jpeg

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision is about to drop it
            for rows in batches:
                data = [
                    torch.frombuffer(bytearray(Path(str(records.source(row))).read_bytes()), dtype=torch.uint8)
                    for row in rows
                ]
                torch.stack([change(decode_jpeg(item, ImageReadMode.RGB)) for item in data])

    return load


PEERS = {"PIL and torchvision v2": _pil_v2, "decode_jpeg and torchvision v2": _decode_jpeg_v2}


ROWS = {
    "step": "training step",
    "files": "loader alone, files",
    "files_trained": "training from files",
    "cache": "loader alone, packed cache",
    "cache_trained": "training from the packed cache",
}


def tables(result: dict[str, Any]) -> Tables:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    core: list[tuple[Any, ...]] = []
    for crop, entry in result["crops"].items():
        total = sum(entry["stages"].values())
        for name, value in entry.items():
            if name != "stages":
                core.append(
                    (crop, name, *(round(value[key]) for key in ("faces_per_core_second", "least", "most")), "")
                )
        for name, spent in entry["stages"].items():
            core.append((crop, f"ours: {name}", "", "", "", f"{spent:.3f} ms, {spent / total:.0%}"))
    nets: list[tuple[Any, ...]] = []
    for name, entry in result["nets"].items():
        for key, what in ROWS.items():
            rates = tuple(round(entry[key][field]) for field in ("faces_per_second", "least", "most"))
            ratio = f"{entry[f'{key}_ratio']:.2f}x" if key != "step" else ""
            nets.append((name, what, *rates, ratio))
    title = f"files to {result['size']} px batches on one core ({result['images']}, {result['faces']} faces)"
    beside = f"beside a training step, {result['threads']} threads, {result['workers']} workers"
    return [
        (title, ("crop", "what", "faces/s and core", "least", "most", "stage"), core),
        (beside, ("net", "what", "faces/s (median)", "least", "most", "of the step"), nets),
    ]
