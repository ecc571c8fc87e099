"""An encoder as an ONNX file, in float32 and, if wanted, in 8 bits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.export.faces import calibration_faces, score_files
    from facenet.export.int8 import export_int8
    from facenet.export.onnx import export_onnx

    checked(config)
    encoder = encoders.load(config["encoder"], device="cpu")
    files, images, pairs = [config["out"]], config["images"], config["pairs"]
    faces = None
    if config["int8"]:
        faces = calibration_faces(
            encoder.preprocess, images, config["calibration_images"], pairs=pairs, seed=config["seed"]
        )
    started = time.perf_counter()
    metrics: dict[str, Any] = {"model": encoder.name, "dim": encoder.dim, "fingerprint": encoder.fingerprint}
    metrics |= {"file": config["out"], **export_onnx(encoder, config["out"])}
    metrics["mirror_in_graph"] = encoder.preprocess.mirror
    metrics["seconds"] = time.perf_counter() - started
    if faces is not None:
        metrics["int8"] = {"file": config["int8"], **export_int8(config["out"], faces, config["int8"])}
        files.append(config["int8"])
    named = dict(zip(("float32", "int8"), files, strict=False))
    if pairs:
        metrics["verification"] = score_files(named, images, pairs, allow_missing=config["allow_missing"])
    if config["speed"]:
        metrics["speed"] = speed(encoder, named, config)
    table(rows(metrics), title="export")
    return metrics


def checked(config: dict[str, Any]) -> None:
    from facenet.errors import ConfigError

    if (config["int8"] or config["pairs"]) and not config["images"]:
        raise ConfigError("export: int8=FILE and pairs=FILE need images=DIR_OR_CSV, faces to calibrate with and score")
    if config["int8"] and Path(config["int8"]).resolve() == Path(config["out"]).resolve():
        raise ConfigError("export: int8 and out are the same file; give two")
    if min(config["calibration_images"], config["batch_size"]) < 1:
        raise ConfigError("export: calibration_images and batch_size must be at least 1")


def speed(encoder: Any, files: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
    import torch

    from benchmarks.export import measure
    from facenet.encoders.onnx_file import load_onnx

    torch.set_num_threads(config["threads"] or torch.get_num_threads())
    loaded = {name: load_onnx(file, threads=torch.get_num_threads()) for name, file in files.items()}
    return measure({"torch": encoder, **loaded}, config["batch_size"], seconds=20.0, repeats=15)


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
