"""An encoder as a file for phones and small devices: OpenVINO, LiteRT (once TensorFlow Lite) or Core ML.

Input and output are those of the ONNX file, see :mod:`.onnx`: the mirror image and the unit length are in the graph.
OpenVINO reads any number of images, LiteRT and Core ML one at a time. Each of the packages is imported when it is used.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import need
from facenet.encoders.onnx_net import OnnxNet, unit
from facenet.errors import ConfigError, DataError, choose, one_line
from facenet.export.onnx import BATCHES, WholeNet, network_of, pictures, quiet, record
from facenet.files import explain_disk_errors, write_json

FAR_OFF = 1e-3  # 1 - cosine to torch's vector above which nothing is written
EXTRA = "edge"  # the extra that installs the packages

Run = Callable[[np.ndarray], np.ndarray]  # images (B, 3, H, W) float32 to vectors (B, D)


class Format(NamedTuple):
    """A file format: its ending, the package that converts, how it is written, and how it is run."""

    ending: str
    package: str
    write: Callable[[WholeNet, Tensor, Path, bool], None]  # net, images (2, 3, H, W), file, weights in 16 bits
    open: Callable[[Path, int | None], Run | None]  # file, threads; None where this machine can not run it


class EdgeNet(OnnxNet):
    """A converted file as the network of an encoder, run by the runtime that it was made for."""

    def __init__(self, run: Run) -> None:
        """Take what runs the file."""
        super().__init__(b"", mirrors=True)
        self._run = run

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on images (B, 3, H, W) and scale its vectors (B, D) to length 1."""
        return unit(self._run(np.ascontiguousarray(images, np.float32)))


def check_format(name: str, path: str | Path) -> None:
    """Refuse a format that can not be written to `path`, before any work.

    Raises:
        ConfigError: an unknown format, or a file of another ending.
        DataError: a package is not installed.
    """
    found = choose(FORMATS, name, "format")
    if Path(path).suffix != found.ending:
        raise ConfigError(f"out={path}: a file of format={name} ends in {found.ending}")
    need(found.package, extra=EXTRA)


def export_edge(
    encoder: Encoder, path: str | Path, name: str, *, half: bool = False, threads: int | None = None
) -> tuple[dict[str, Any], Encoder | None]:
    """Write an encoder in a format of :data:`FORMATS`, unless its vectors are far from torch's.

    ``PATH.json`` beside it says what the file reads, with preprocessing and thresholds, as in an ONNX file. `half`
    stores weights in 16 bits. Returns `bytes`, `precision` and `least_cosine` to torch's vectors by batch size (None
    where the file can not be run here), and the file as an encoder.

    Raises:
        ConfigError, DataError: as :func:`check_format`; an encoder that is ONNX already; a net that the package can not
            convert, or converts to vectors whose cosine to torch's is below 1 - :data:`FAR_OFF`.
    """
    path, kind = Path(path), FORMATS[name]
    check_format(name, path)
    net = WholeNet(network_of(encoder), encoder.preprocess)
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".facenet-edge-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            with _explained(path, kind.package), torch.no_grad():
                kind.write(net, torch.zeros(2, 3, *encoder.preprocess.size), made, half)
                run = kind.open(made, threads)
            found: dict[str, Any] = {"bytes": _bytes(Path(folder)), "precision": "float16" if half else "float32"}
            found["least_cosine"] = None if run is None else _least_cosines(encoder, run, path)
            write_json(f"{made}.json", _record(encoder, name, found))
            for part in sorted(Path(folder).iterdir()):
                _replace(part, path.parent / part.name)
    with _explained(path, kind.package):
        run = kind.open(path, threads)
    return found, None if run is None else _encoder(encoder, run)


def _record(encoder: Encoder, name: str, found: dict[str, Any]) -> dict[str, Any]:
    content = record(encoder)
    count = "B" if name == "openvino" else "1"
    for side in ("input", "output"):
        content["graph"][side] = content["graph"][side].replace("(B, ", f"({count}, ")
    return content | {"format": name, "graph": content["graph"] | {"precision": found["precision"]}}


def _encoder(like: Encoder, run: Run) -> Encoder:
    return Encoder(EdgeNet(run), like.name, like.options, like.preprocess, fingerprint=like.fingerprint)


def _least_cosines(encoder: Encoder, run: Run, path: Path) -> dict[str, float]:
    """Return the least cosine of a file's vectors to torch's by batch size; raises DataError if one is far off."""
    ours, found = _encoder(encoder, run), {}
    for size in BATCHES:
        images = encoder.preprocess.normalise(pictures(size, encoder.preprocess.size))
        found[str(size)] = float((ours.embed_batch(images) * encoder.embed_batch(images)).sum(1).min())
    if not all(cosine >= 1 - FAR_OFF for cosine in found.values()):  # also NaN
        listed = ", ".join(f"{cosine:.5f} at batch {size}" for size, cosine in found.items())
        raise DataError(
            f"{path}: not written; the cosine of its vectors to torch's is {listed} ({1 - FAR_OFF:g} is the least)"
        )
    return found


def _write_openvino(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    import openvino

    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("B")},))
    model = openvino.convert_model(program, input=[openvino.PartialShape([-1, *images.shape[1:]])])
    for port, name in ((model.inputs[0], "images"), (model.outputs[0], "embeddings")):
        port.get_tensor().set_names({name})
    openvino.save_model(model, path, compress_to_fp16=half)


def _open_openvino(path: Path, threads: int | None) -> Run:
    import openvino

    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself it computes in bfloat16 where it can
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    model = openvino.compile_model(path, "CPU", options)
    return lambda images: np.array(model(images)[0])


def _write_litert(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    import litert_torch

    litert_torch.convert(net, sample_kwargs={"images": images[:1]}).export(str(path))
    if not half:
        return
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    sixteen = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    weights = quantizer.Quantizer(str(path))
    weights.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=sixteen,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
    )
    weights.quantize().export_model(str(path), overwrite=True)


def _open_litert(path: Path, threads: int | None) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(str(path), num_threads=threads)
    opened.allocate_tensors()
    run = opened.get_signature_runner()
    output = next(iter(run.get_output_details()))
    return lambda images: np.concatenate([run(images=image[None])[output] for image in images])


def _write_coreml(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    import coremltools

    program = torch.export.export(net, (images[:1],)).run_decompositions({})
    coremltools.convert(
        program,
        outputs=[coremltools.TensorType(name="embeddings")],
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
        package_dir=str(path),  # a temporary one would be left behind
    )


def _open_coreml(path: Path, threads: int | None) -> Run | None:
    if platform.system() != "Darwin":
        return None
    import coremltools

    model = coremltools.models.MLModel(str(path))
    return lambda images: np.concatenate([model.predict({"images": image[None]})["embeddings"] for image in images])


FORMATS = {
    "openvino": Format(".xml", "openvino", _write_openvino, _open_openvino),
    "litert": Format(".tflite", "litert_torch", _write_litert, _open_litert),
    "coreml": Format(".mlpackage", "coremltools", _write_coreml, _open_coreml),
}


@contextlib.contextmanager
def _explained(path: Path, package: str) -> Iterator[None]:
    """Keep a converter from talking about itself, and raise DataError for whatever it raises."""
    try:
        with quiet(), _silent():
            yield
    except OSError:
        raise
    except Exception as error:  # converters raise many kinds
        raise DataError(f"{path}: not written; {package} can not convert this net ({one_line(error)})") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Send what is written to standard output and error nowhere, that of libraries in C++ too."""
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        with Path(os.devnull).open("wb") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _replace(made: Path, path: Path) -> None:
    if path.is_dir() and made.is_dir():  # a package of Core ML is a folder
        shutil.rmtree(path)
    made.replace(path)
