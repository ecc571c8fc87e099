"""An encoder as an ONNX file, in float32 and, if wanted, in 8 bits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, refuse_unread
from facenet.console import table
from facenet.data.options import PairColumns
from facenet.options import SEED, option


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CommandOptions):
    """Options of ``export``."""

    encoder: str = option(help="encoder folder")
    out: str = option(help="ONNX file to write")
    int8: str | None = option(None, help="file of the 8-bit variant")
    images: str | None = option(None, help="faces to calibrate it with, and those of the pairs")
    calibration_images: int = option(256, least=1, help="drawn from images; those no pair names come first")
    pairs: str | None = option(None, help="LFW pairs file or CSV (first,second,same[,fold])")
    pair_columns: PairColumns = PairColumns()
    allow_missing: bool = option(False, help="leave out pairs without an image")
    speed: bool = option(False, help="measure images/s of torch, onnxruntime and 8 bits, in turns")
    batch_size: int = option(32, least=1, help="images at a time when speed is measured")
    threads: int | None = option(None, least=1, help="threads when speed is measured; null: torch's own number")
    seed: int = option(0, **SEED, help="seed of the choice of calibration images")


def run(options: ExportOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.export.faces import calibration_faces, faces_of_pairs, score_files
    from facenet.export.int8 import export_int8
    from facenet.export.onnx import export_onnx

    checked(options)
    encoder, files, images = encoders.load(options.encoder, device="cpu"), [options.out], options.images
    reported = None
    if options.pairs and images:
        reported = faces_of_pairs(images, options.pairs, options.pair_columns, allow_missing=options.allow_missing)
    faces = None
    if options.int8 and images:
        named = reported[0].keys if reported else ()
        faces = calibration_faces(encoder.preprocess, images, options.calibration_images, last=named, seed=options.seed)
    started = time.perf_counter()
    metrics: dict[str, Any] = {"model": encoder.name, "dim": encoder.dim, "fingerprint": encoder.fingerprint}
    metrics |= {"file": options.out, **export_onnx(encoder, options.out), "mirror_in_graph": encoder.preprocess.mirror}
    metrics["seconds"] = time.perf_counter() - started
    if faces is not None and options.int8:
        metrics["int8"] = {"file": options.int8, **export_int8(options.out, faces, options.int8)}
        files.append(options.int8)
    variants = dict(zip(("float32", "int8"), files, strict=False))
    if reported:
        metrics["verification"] = score_files(variants, *reported, allow_missing=options.allow_missing)
    if options.speed:
        metrics["speed"] = speed(encoder, variants, options)
    table(rows(metrics), title="export")
    return metrics


def checked(options: ExportOptions) -> None:
    from facenet.errors import ConfigError

    if (options.int8 or options.pairs) and not options.images:
        raise ConfigError("export: int8=FILE and pairs=FILE need images=DIR_OR_CSV, faces to calibrate with and score")
    if options.int8 and Path(options.int8).resolve() == Path(options.out).resolve():
        raise ConfigError("export: int8 and out are the same file; give two")
    refuse_unread(
        ("images", options.images is not None, options.int8 or options.pairs, "int8=FILE and pairs=FILE"),
        ("calibration_images", options.calibration_images != 256, options.int8, "int8=FILE"),
        ("seed", options.seed != 0, options.int8, "int8=FILE"),
        ("pair_columns", options.pair_columns != PairColumns(), options.pairs, "pairs=FILE"),
        ("allow_missing", options.allow_missing, options.pairs, "pairs=FILE"),
        ("batch_size", options.batch_size != 32, options.speed, "speed=true"),
        ("threads", options.threads is not None, options.speed, "speed=true"),
    )


def speed(encoder: Any, files: dict[str, str], options: ExportOptions) -> dict[str, Any]:
    import torch

    from facenet.encoders.onnx_file import load_onnx
    from facenet.export.speed import measure_speed

    torch.set_num_threads(options.threads or torch.get_num_threads())
    loaded = {name: load_onnx(file, threads=torch.get_num_threads()) for name, file in files.items()}
    return measure_speed({"torch": encoder, **loaded}, options.batch_size, seconds=20.0, repeats=15)


def rows(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = [("file", metrics["file"]), ("bytes", f"{metrics['bytes']:,}"), ("opset", metrics["opset"])]
    shown += [(f"largest difference, batch {size}", f"{v:.1e}") for size, v in metrics["max_difference"].items()]
    if "int8" in metrics:
        int8 = metrics["int8"]
        shown += [("8 bits", int8["file"]), ("8 bits: bytes", f"{int8['bytes']:,}")]
        shown.append(("8 bits: mean sq_dist to float32", int8["sq_dist_to_float"]["mean"]))
    for name, found in metrics.get("verification", {}).items():
        change = f" ({100 * found['accuracy_difference']:+.2f} points)" if name != "float32" else ""
        shown.append((f"accuracy, {name}", f"{found['accuracy']:.4f} +- {found['sem']:.4f}{change}"))
    for name, found in metrics.get("speed", {}).items():
        shown.append((f"images/s, {name}", f"{found['images_per_second']:.1f} ({found['ratio']:.2f}x torch)"))
    return shown


def main() -> None:
    launch("export", run)
