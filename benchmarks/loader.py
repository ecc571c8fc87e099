"""Loader benchmark: image files to normalised batches, faces per second and core by stage, beside a training step.

The stages are the library's own path with ``cache=none``: decode and crop, resize, augment and normalise. Bare decoding
is of bytes that are in memory, and all that the library adds is measured against it. The peers crop, resize, mirror,
jitter colours and normalise image by image; ours also rotates, scales, shifts and cuts out.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.resources import cores, limited_threads
from benchmarks.tables import Table
from benchmarks.training import SETTINGS, Step
from facenet.data.augment import Augment
from facenet.data.cache import pack
from facenet.data.datamodule import BatchDataset
from facenet.data.drawn.faces import draw, write_folder
from facenet.data.face_cache import FaceCache
from facenet.data.options import DrawnOptions
from facenet.data.pictures import decode
from facenet.data.preprocess import Preprocess, stack
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.errors import choose
from facenet.export.speed import interleave
from facenet.models.registry import NETS
from facenet.options import Options as BaseOptions
from facenet.options import option

MARGIN = 1.25  # what the data module keeps around an image that is augmented
NET_CROP = 0.52  # conf/data/lfw.yaml


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the loader benchmark."""

    root: str | None = option(None, help="folder, .rec, .tar or .zip of JPEGs; null draws faces into a folder")
    side: int = option(250, least=32, help="pixels of a drawn JPEG; 250 is that of Labeled Faces in the Wild")
    faces: int = option(480, least=1, help="files read; a small folder is read again and again")
    size: int = option(160, least=1, help="pixels of the network's input in the stages")
    crops: tuple[float, ...] = option((0.64, 0.52, 1.0), above=0, most=1, help="0.64: 160 of 250 pixels, not resized")
    repeats: int = option(3, least=1, help="timed rounds")
    workers: int | None = option(None, least=0, help="loader processes; null is one for each core")
    nets: tuple[str, ...] = option(("small", "nns2"), help="nets whose training step is the comparison")
    batch_size: int = option(60, least=5, help="faces of a batch")
    seconds: float = option(3.0, above=0, help="about, of each loader beside a net")
    peers: bool = option(True, help="measure torchvision's transforms too")


def run(options: Options) -> dict[str, Any]:
    """Measure on the JPEGs of a folder, or on drawn ones; returns plain numbers in nested objects.

    ``crops.<crop>.ours`` and the peers: `faces_per_core_second` (median), `least`, `most`, in CPU seconds of one
    thread; ``crops.<crop>.stages``: CPU milliseconds a face. ``nets.<net>``, in faces per second of wall time on all
    cores: `step` (training on a batch that is there), `files` and `cache` (loading alone), `files_trained` and
    `cache_trained` (training on what is loaded meanwhile), and the `_ratio` of each to the step.

    Raises:
        ConfigError: an unknown net.
        DataError: no images in the folder.
    """
    for name in options.nets:
        choose(NETS, name, "benchmark.nets")
    workers = cores() if options.workers is None else options.workers
    with ExitStack() as cleanup:
        folder = options.root or cleanup.enter_context(tempfile.TemporaryDirectory())
        records = _records(folder, options)
        return {
            "images": "drawn" if options.root is None else "files",
            "faces": len(records),
            "size": options.size,
            "workers": workers,
            "threads": torch.get_num_threads(),
            "crops": {f"{crop:g}": _one_core(records, options, crop) for crop in options.crops},
            "nets": {name: _beside_a_net(records, options, name, workers) for name in options.nets},
        }


def _records(folder: str, options: Options) -> Records:
    """Return `faces` rows, spread over the folder; a small folder is read again and again."""
    if options.root is None:
        write_folder(draw(range(24), 5, DrawnOptions(size=options.side, difficulty=0.5)), folder)
    found, faces = scan(folder), options.faces
    return found.subset([i * len(found) // faces if faces <= len(found) else i % len(found) for i in range(faces)])


def _batches(count: int, batch_size: int) -> list[list[int]]:
    return [list(range(i, min(i + batch_size, count))) for i in range(0, count, batch_size)]


def _one_core(records: Records, options: Options, crop: float) -> dict[str, Any]:
    """Measure the whole path, its stages and the peers on one core, one after the other in every repetition."""
    size, repeats = options.size, options.repeats
    preprocess, augment = Preprocess(size=(size, size), crop=crop), Augment()
    dataset = BatchDataset(FaceCache(records, preprocess, MARGIN, keep=False), records.labels)
    batches = _batches(len(records), options.batch_size)
    generator = torch.Generator().manual_seed(0)

    def ours() -> None:
        for rows in batches:
            augment(dataset[rows][0], preprocess.size, generator, preprocess)

    contestants: dict[str, Callable[[], object]] = {"bare decoding": _bare(records), "ours": ours}
    if options.peers:
        contestants |= {name: build(records, batches, size, crop) for name, build in PEERS.items()}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    stages: dict[str, list[float]] = {}
    with limited_threads(1):
        for _ in range(repeats + 1):
            for name, contestant in contestants.items():
                rates[name].append(len(records) / _cpu_seconds(contestant))
            for name, spent in _stages(records, preprocess, augment, batches).items():
                stages.setdefault(name, []).append(spent / len(records) * 1e3)
    result: dict[str, Any] = {name: _spread(values[1:], "faces_per_core_second") for name, values in rates.items()}
    bare = result["bare decoding"]["faces_per_core_second"]
    return {
        **result,
        "of_bare_decoding": result["ours"]["faces_per_core_second"] / bare,
        "stages": {name: statistics.median(values[1:]) for name, values in stages.items()},
    }  # one warms up


def _bare(records: Records) -> Callable[[], object]:
    """Return what decodes all images, whose bytes are in memory, and does nothing else."""
    files = [_content(records, row) for row in range(len(records))]
    return lambda: [simplejpeg.decode_jpeg(data) for data in files]


def _content(records: Records, row: int) -> bytes:
    """Return the bytes of an image."""
    source: Any = records.source(row)
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _stages(records: Records, preprocess: Preprocess, augment: Augment, batches: list[list[int]]) -> dict[str, float]:
    """Return the CPU seconds of each stage over all batches."""
    spent = dict.fromkeys(("decode and crop", "resize", "augment and normalise"), 0.0)
    generator = torch.Generator().manual_seed(0)
    for rows in batches:
        times = [time.thread_time()]
        cut = [preprocess.face(records.source(row), MARGIN) for row in rows]
        times.append(time.thread_time())
        batch = torch.from_numpy(stack([preprocess.fit(face, MARGIN) for face in cut]))
        times.append(time.thread_time())
        augment(batch, preprocess.size, generator, preprocess)
        times.append(time.thread_time())
        for name, start, end in zip(spent, times, times[1:], strict=False):
            spent[name] += end - start
    return spent


def _beside_a_net(records: Records, options: Options, name: str, workers: int) -> dict[str, Any]:
    """Measure a training step, the loader from files and the loader from the packed cache, on all cores."""
    batch_size, wall, rounds = options.batch_size, options.seconds, range(options.repeats)
    step = Step(name, batch_size, SETTINGS["fp32_channels_last"], torch.device("cpu"))
    times = interleave({"step": step}, wall, options.repeats + 2)["step"]
    preprocess = Preprocess(size=step.model.input_size, crop=NET_CROP)
    packed, _ = pack(records, preprocess, margin=MARGIN)
    from_files = BatchDataset(FaceCache(records, preprocess, MARGIN, keep=False), records.labels)
    from_cache = BatchDataset(packed, records.labels)
    entry: dict[str, Any] = {"batch_size": batch_size, "step": _spread([batch_size / t for t in times])}
    rate = entry["step"]["faces_per_second"]
    for key, dataset, processes in (("files", from_files, workers), ("cache", from_cache, 0)):
        call = (dataset, preprocess, processes, batch_size)
        entry[key] = _spread([_loaded_per_second(*call, round(wall * 1000)) for _ in rounds])
        entry[f"{key}_trained"] = _spread([_loaded_per_second(*call, round(wall * rate), step) for _ in rounds])
        for measured in (key, f"{key}_trained"):
            entry[f"{measured}_ratio"] = entry[measured]["faces_per_second"] / rate
    return entry


def _spread(rates: list[float], name: str = "faces_per_second") -> dict[str, float]:
    return {name: statistics.median(rates), "least": min(rates), "most": max(rates)}


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
    start = time.process_time()  # faces are decoded by threads
    call()
    return time.process_time() - start


def _per_image(side: int, size: int, crop: float) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    chain = [
        v2.CenterCrop(round(side * crop)),
        v2.Resize((size, size), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.1, contrast=0.25),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
    return v2.Compose(chain)


def _side(records: Records) -> int:
    """Return the shorter side of the first image, in pixels; all have one size."""
    return min(decode(_content(records, 0), lambda picture: picture.size))


def _pil_v2(records: Records, batches: list[list[int]], size: int, crop: float) -> Callable[[], object]:
    change = _per_image(_side(records), size, crop)

    def load() -> None:
        for rows in batches:
            torch.stack([change(Image.open(io.BytesIO(_content(records, row))).convert("RGB")) for row in rows])

    return load


def _decode_jpeg_v2(records: Records, batches: list[list[int]], size: int, crop: float) -> Callable[[], object]:
    change = _per_image(_side(records), size, crop)

    def load() -> None:
        from torchvision.io import ImageReadMode, decode_jpeg

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision is about to drop it
            for rows in batches:
                data = [torch.frombuffer(bytearray(_content(records, row)), dtype=torch.uint8) for row in rows]
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


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    core: list[tuple[Any, ...]] = []
    for crop, entry in result["crops"].items():
        total = sum(entry["stages"].values())
        for name, value in entry.items():
            if isinstance(value, dict) and name != "stages":
                core.append(
                    (crop, name, *(round(value[key]) for key in ("faces_per_core_second", "least", "most")), "")
                )
        core.append((crop, "ours, of bare decoding", "", "", "", f"{entry['of_bare_decoding']:.2f}x"))
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
        Table(title, ("crop", "what", "faces/s and core", "least", "most", "stage"), core),
        Table(beside, ("net", "what", "faces/s (median)", "least", "most", "of the step"), nets),
    ]
