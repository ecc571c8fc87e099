"""Export benchmark: every net in onnxruntime beside torch, vectors and seconds.

Weights are drawn, and so are the statistics of batch norm, which the export folds into the convolutions. Both see the
same images in one process, in turns; ratios are of medians.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.mining import summary
from benchmarks.training import interleave
from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import need, seal
from facenet.errors import ConfigError, choose
from facenet.export.onnx import differences, graph, opened, pictures, record
from facenet.models.build import build_model
from facenet.models.registry import NETS

Tables = list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]


def run(
    models: Sequence[str] | None = None,
    batch_size: int = 32,
    seconds: float = 10.0,
    repeats: int = 5,
    threads: int | None = None,
) -> dict[str, Any]:
    """Export and measure every net at the paper's input size; returns plain numbers in nested objects.

    ``nets.<name>``: `input_size`, `bytes`, `export_seconds`, `max_difference` of a vector's numbers by batch size, and
    `speed`, see :func:`measure`. The mirror image is left out.

    Raises:
        ConfigError: an unknown net or a number below 1.
        DataError: a package is missing.
    """
    names = list(NETS) if models is None else list(models)
    for name in names:
        choose(NETS, name, "benchmark.models")
    if not names or min(batch_size, repeats) < 1 or seconds <= 0:
        raise ConfigError("benchmark: expected a net, batch_size and repeats of at least 1, seconds above 0")
    need("onnx", "onnxscript", "onnxruntime")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        result: dict[str, Any] = {"threads": torch.get_num_threads(), "batch_size": batch_size, "nets": {}}
        for name in names:
            result["nets"][name] = _net(name, batch_size, seconds, repeats)
        return result
    finally:
        torch.set_num_threads(before)


def _net(name: str, batch_size: int, seconds: float, repeats: int) -> dict[str, Any]:
    encoder = drawn(name, NETS[name].input_size)
    start = time.perf_counter()
    data = seal(graph(encoder), record(encoder))
    took = time.perf_counter() - start
    contestants = {"torch": encoder, "onnxruntime": opened(data, encoder, threads=torch.get_num_threads())}
    return {
        "input_size": list(NETS[name].input_size),
        "bytes": len(data),
        "export_seconds": took,
        "max_difference": {str(size): value for size, value in differences(encoder, data).items()},
        "speed": measure(contestants, batch_size, seconds, repeats),
    }


def drawn(name: str, size: tuple[int, int], **options: Any) -> Encoder:
    """Return an encoder with drawn weights and batch norm statistics, as if it had seen data."""
    torch.manual_seed(0)
    model = build_model(name, input_size=size, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            with torch.no_grad():
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
    told = {"embedding_dim": model.embedding_dim, "norm": "batch", **options, "input_size": list(size)}
    model = model.to(memory_format=torch.channels_last)
    return Encoder(model, name, told, Preprocess(size=size, mirror=False), fingerprint="drawn")


def measure(contestants: Mapping[str, Encoder], batch_size: int, seconds: float, repeats: int) -> dict[str, Any]:
    """Time encoders of one preprocessing on the same images, in turns.

    For each: `seconds` of a batch (median), `least`, `most`, `runs`, `images_per_second`, and `ratio`, by how much it
    is faster than the first.
    """
    first = next(iter(contestants.values()))
    images = first.preprocess.normalise(pictures(batch_size, first.preprocess.size))
    steps = {name: functools.partial(encoder.embed_batch, images) for name, encoder in contestants.items()}
    found = {name: summary(times) for name, times in interleave(steps, seconds, repeats).items()}
    base = next(iter(found.values()))["seconds"]
    return {
        name: {**entry, "images_per_second": batch_size / entry["seconds"], "ratio": base / entry["seconds"]}
        for name, entry in found.items()
    }


def tables(result: dict[str, Any]) -> Tables:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    rows: list[tuple[Any, ...]] = []
    for name, entry in result["nets"].items():
        height, width = entry["input_size"]
        differences = (f"{value:.1e}" for value in entry["max_difference"].values())
        rows.append((name, f"{height}x{width}", f"{entry['bytes'] / 1e6:.1f}", *differences, *speeds(entry["speed"])))
    sizes = next(iter(result["nets"].values()))["max_difference"]
    header = ("net", "input", "MB", *(f"difference, B={size}" for size in sizes), "torch images/s", "onnxruntime")
    title = f"ONNX beside torch, batches of {result['batch_size']}, {result['threads']} threads"
    return [(title, header, rows)]


def speeds(measured: Mapping[str, Any]) -> list[str]:
    """Return images/s of each contestant, of all but the first with by how much it is faster than that."""
    cells = [f"{entry['images_per_second']:.1f} ({entry['ratio']:.2f}x)" for entry in measured.values()]
    return [cells[0].split(" ")[0], *cells[1:]]
