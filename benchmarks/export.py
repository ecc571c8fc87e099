"""Export benchmark: every net in onnxruntime beside torch, vectors and seconds.

Weights are drawn, and so are the statistics of batch norm, which the export folds into the convolutions. Both see the
same images in one process, in turns; ratios are of medians.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.resources import limited_threads
from benchmarks.tables import Table
from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import need, seal
from facenet.errors import ConfigError, choose
from facenet.export.onnx import differences, graph, opened, record
from facenet.export.speed import measure_speed
from facenet.models.build import build_model
from facenet.models.registry import NETS, TABLES
from facenet.options import Options as BaseOptions
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the export benchmark."""

    models: tuple[str, ...] | None = option(None, help="nets by name; null is every net")
    batch_size: int = option(32, least=1, help="images of a batch")
    seconds: float = option(10.0, above=0, help="of each net and contestant, after a warm-up")
    repeats: int = option(5, least=1, help="timed batches, at most")
    threads: int | None = option(None, least=1, help="of both; null is what torch takes by itself")


def run(options: Options) -> dict[str, Any]:
    """Export and measure every net at the paper's input size; returns plain numbers in nested objects.

    ``nets.<name>``: `input_size`, `bytes`, `export_seconds`, `max_difference` of a vector's numbers by batch size, and
    `speed`, see :func:`facenet.export.speed.measure_speed`. The mirror image is left out.

    Raises:
        ConfigError: no net, or an unknown one.
        DataError: a package is missing.
    """
    names = list(TABLES) if options.models is None else list(options.models)
    for name in names:
        choose(NETS, name, "benchmark.models")
    if not names:
        raise ConfigError("benchmark.models: expected a net, got an empty list")
    need("onnx", "onnxscript", "onnxruntime")
    with limited_threads(options.threads) as threads:
        nets = {name: _net(name, options, threads) for name in names}
    return {"threads": threads, "batch_size": options.batch_size, "nets": nets}


def _net(name: str, options: Options, threads: int) -> dict[str, Any]:
    encoder = drawn(name, NETS[name].input_size)
    start = time.perf_counter()
    data = seal(graph(encoder), record(encoder))
    took = time.perf_counter() - start
    contestants = {"torch": encoder, "onnxruntime": opened(data, encoder, threads=threads)}
    return {
        "input_size": list(NETS[name].input_size),
        "bytes": len(data),
        "export_seconds": took,
        "max_difference": {str(size): value for size, value in differences(encoder, data).items()},
        "speed": measure_speed(contestants, options.batch_size, options.seconds, options.repeats),
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
    known = {"embedding_dim": model.embedding_dim, "norm": "batch", **options, "input_size": list(size)}
    model = model.to(memory_format=torch.channels_last)
    return Encoder(model, name, known, Preprocess(size=size, mirror=False), fingerprint="drawn")


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for name, entry in result["nets"].items():
        height, width = entry["input_size"]
        differences = (f"{value:.1e}" for value in entry["max_difference"].values())
        rows.append((name, f"{height}x{width}", f"{entry['bytes'] / 1e6:.1f}", *differences, *speeds(entry["speed"])))
    sizes = next(iter(result["nets"].values()))["max_difference"]
    header = ("net", "input", "MB", *(f"difference, B={size}" for size in sizes), "torch images/s", "onnxruntime")
    title = f"ONNX beside torch, batches of {result['batch_size']}, {result['threads']} threads"
    return [Table(title, header, rows)]


def speeds(measured: Mapping[str, Any]) -> list[str]:
    """Return images/s of each contestant, of all but the first with by how much it is faster than that."""
    cells = [f"{entry['images_per_second']:.1f} ({entry['ratio']:.2f}x)" for entry in measured.values()]
    return [cells[0].split(" ")[0], *cells[1:]]
