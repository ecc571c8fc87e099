"""An encoder as a file for other runtimes: ONNX, in float32 and in 8 bits, or a format of phones and small devices."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, refuse_unread
from facenet.console import table
from facenet.data.options import PairColumns
from facenet.options import SEED, option

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CommandOptions):
    """Options of ``export``."""

    encoder: str = option(help="encoder folder")
    out: str = option(help="file to write: .onnx, .xml (OpenVINO), .tflite (LiteRT) or .mlpackage (Core ML)")
    format: str = option("onnx", choices=("onnx", "openvino", "litert", "coreml"), help="format of the file")
    half: bool = option(False, help="weights in 16 bits; not for onnx")
    int8: str | None = option(None, help="ONNX: file of the 8-bit variant")
    images: str | None = option(None, help="faces to calibrate it with, and those of the pairs")
    calibration_images: int = option(256, least=1, help="drawn from images; those no pair names come first")
    pairs: str | None = option(None, help="LFW pairs file or CSV (first,second,same[,fold])")
    pair_columns: PairColumns = PairColumns()
    allow_missing: bool = option(False, help="leave out pairs without an image")
    speed: bool = option(False, help="measure images/s of torch and of each file, in turns")
    batch_size: int = option(32, least=1, help="images at a time when speed is measured")
    threads: int | None = option(None, least=1, help="threads when speed is measured; null: torch's own number")
    seed: int = option(0, **SEED, help="seed of the choice of calibration images")


def run(options: ExportOptions, out: Path) -> dict[str, Any]:
    import torch

    from facenet.encoders import lookup as encoders
    from facenet.export.faces import faces_of_pairs, score_encoders
    from facenet.export.speed import measure_speed

    checked(options)
    encoder, images, reported = encoders.load(options.encoder, device="cpu"), options.images, None
    if options.pairs and images:
        reported = faces_of_pairs(images, options.pairs, options.pair_columns, allow_missing=options.allow_missing)
    metrics: dict[str, Any] = {"model": encoder.name, "dim": encoder.dim, "fingerprint": encoder.fingerprint}
    metrics |= {"file": options.out, "format": options.format, "mirror_in_graph": encoder.preprocess.mirror}
    started = time.perf_counter()
    if options.format == "onnx":
        variants = write_onnx(encoder, options, reported[0].keys if reported else (), metrics)
    else:
        variants = write_edge(encoder, options, metrics)
    metrics["seconds"] = time.perf_counter() - started
    contestants = {"torch": encoder} | variants
    if reported:
        metrics["verification"] = score_encoders(contestants, *reported, allow_missing=options.allow_missing)
    if options.speed:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        metrics["speed"] = measure_speed(contestants, options.batch_size, seconds=20.0, repeats=15)
    table(rows(metrics), title="export")
    return metrics


def write_onnx(
    encoder: Encoder, options: ExportOptions, reported: Collection[str], metrics: dict[str, Any]
) -> dict[str, Encoder]:
    """Write the ONNX file, and the 8-bit one if asked for; returns them as encoders, by precision."""
    from facenet.encoders.onnx_file import load_onnx
    from facenet.export.faces import calibration_faces
    from facenet.export.int8 import export_int8
    from facenet.export.onnx import export_onnx

    faces = None
    if options.int8 and options.images:
        count, seed = options.calibration_images, options.seed
        faces = calibration_faces(encoder.preprocess, options.images, count, last=reported, seed=seed)
    metrics |= export_onnx(encoder, options.out)
    files = {"float32": options.out}
    if faces is not None and options.int8:
        metrics["int8"] = {"file": options.int8, **export_int8(options.out, faces, options.int8)}
        files["int8"] = options.int8
    if not (options.pairs or options.speed):  # nobody asks the files
        return {}
    return {name: load_onnx(file, threads=threads(options)) for name, file in files.items()}


def write_edge(encoder: Encoder, options: ExportOptions, metrics: dict[str, Any]) -> dict[str, Encoder]:
    """Write a file of another format; returns it as an encoder, where it can be run here."""
    from facenet.export.edge import export_edge

    told, file = export_edge(encoder, options.out, options.format, half=options.half, threads=threads(options))
    metrics |= told
    return {} if file is None else {options.format: file}


def threads(options: ExportOptions) -> int | None:
    """Return the threads of a file's runtime: torch's number when speed is measured, else the runtime's own (None)."""
    import torch

    return (options.threads or torch.get_num_threads()) if options.speed else None


def checked(options: ExportOptions) -> None:
    from facenet.errors import ConfigError
    from facenet.export.edge import FORMATS, check_format, runs_here

    endings = {kind.ending: name for name, kind in FORMATS.items()}
    if options.format != "onnx":
        check_format(options.format, options.out)
    elif Path(options.out).suffix in endings:
        raise ConfigError(f"out={options.out}: add format={endings[Path(options.out).suffix]}, or end it in .onnx")
    if (options.pairs or options.speed) and not runs_here(options.format):
        raise ConfigError(
            "export: pairs=FILE and speed=true run the file, and Core ML runs on macOS alone; leave them out"
        )
    if (options.int8 or options.pairs) and not options.images:
        raise ConfigError("export: int8=FILE and pairs=FILE need images=DIR_OR_CSV, faces to calibrate with and score")
    if options.int8 and Path(options.int8).resolve() == Path(options.out).resolve():
        raise ConfigError("export: int8 and out are the same file; give two")
    refuse_unread(
        ("int8", options.int8 is not None, options.format == "onnx", "format=onnx"),
        ("half", options.half, options.format != "onnx", "format=openvino, litert and coreml"),
        ("images", options.images is not None, options.int8 or options.pairs, "int8=FILE and pairs=FILE"),
        ("calibration_images", options.calibration_images != 256, options.int8, "int8=FILE"),
        ("seed", options.seed != 0, options.int8, "int8=FILE"),
        ("pair_columns", options.pair_columns != PairColumns(), options.pairs, "pairs=FILE"),
        ("allow_missing", options.allow_missing, options.pairs, "pairs=FILE"),
        ("batch_size", options.batch_size != 32, options.speed, "speed=true"),
        ("threads", options.threads is not None, options.speed, "speed=true"),
    )


def rows(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = [("file", metrics["file"]), ("bytes", f"{metrics['bytes']:,}")]
    if metrics["format"] == "onnx":
        shown.append(("opset", metrics["opset"]))
        shown += [(f"largest difference, batch {size}", f"{v:.1e}") for size, v in metrics["max_difference"].items()]
    elif metrics["least_cosine"] is None:
        shown.append(("least cosine to torch", "not compared: Core ML runs on macOS alone"))
    else:
        shown += [(f"least cosine to torch, batch {size}", f"{v:.6f}") for size, v in metrics["least_cosine"].items()]
    if "int8" in metrics:
        int8 = metrics["int8"]
        shown += [("8 bits", int8["file"]), ("8 bits: bytes", f"{int8['bytes']:,}")]
        shown.append(("8 bits: mean sq_dist to float32", int8["sq_dist_to_float"]["mean"]))
    for name, found in metrics.get("verification", {}).items():
        change = ""
        if name != "torch":
            change = f" ({100 * found['accuracy_difference']:+.2f} points, {found['verdicts_changed']} other verdicts)"
        shown.append((f"accuracy, {name}", f"{found['accuracy']:.4f} +- {found['sem']:.4f}{change}"))
    for name, found in metrics.get("speed", {}).items():
        shown.append((f"images/s, {name}", f"{found['images_per_second']:.1f} ({found['ratio']:.2f}x torch)"))
    return shown


def main() -> None:
    launch("export", run)
