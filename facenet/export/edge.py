"""An encoder as a file for phones and small devices: OpenVINO, LiteRT (once TensorFlow Lite) or Core ML.

Input and output are those of the ONNX file, see :mod:`.onnx`: the mirror image and the unit length are in the graph.
OpenVINO reads any number of images, LiteRT and Core ML one at a time. Each of the packages is imported when it is used.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import need
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import ConfigError, DataError, choose, one_line
from facenet.export.onnx import BATCHES, WholeNet, network_of, pictures, quiet, record
from facenet.files import REFUSED, UMASK, explain_disk_errors, write_json

FAR_OFF = {False: 1e-5, True: 1e-4}  # 1 - cosine to torch's vector above which nothing is written; in 16 bits
EXTRA = "edge"  # the extra that installs the packages
INSIDE = "Manifest.json"  # what every package of Core ML, a folder, has in it

Run = Callable[[np.ndarray], np.ndarray]  # images (B, 3, H, W) float32 to vectors (B, D)


class Format(NamedTuple):
    """A file format: its ending, the packages it needs, how it is written, and how it is run."""

    ending: str
    packages: tuple[str, ...]
    batch: str  # how many images a run takes
    write: Callable[[WholeNet, Tensor, Path, bool], None]  # net, images (2, 3, H, W), file, weights in 16 bits
    open: Callable[[Path, int | None], Run | None]  # file, threads; None where this machine can not run it


class EdgeNet(OnnxNet):
    """A converted file as the network of an encoder, run by the runtime that it was made for."""

    def __init__(self, run: Run, name: str) -> None:
        """Take what runs the file, and the name of its format."""
        super().__init__(b"", mirrors=True)
        self._run, self._name = run, name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on images (B, 3, H, W): its vectors (B, D), as they are."""
        try:
            return self._run(np.ascontiguousarray(images, np.float32))
        except Exception as error:  # each runtime raises kinds of its own
            raise DataError(f"{self._name}: its runtime fails ({one_line(error)}); try another format=") from error


def check_format(name: str, path: str | Path) -> Format:
    """Return a format of :data:`FORMATS`, unless it can not be written to `path`.

    Raises:
        ConfigError: an unknown format, or a file of another ending.
        DataError: a package is not installed, or something else lies at `path`.
    """
    found, path = choose(FORMATS, name, "format"), Path(path)
    if path.suffix != found.ending:
        raise ConfigError(f"out={path}: a file of format={name} ends in {found.ending}")
    if path.exists() and not (path / INSIDE if name == "coreml" else path).is_file():
        raise DataError(f"{path}: something else lies there; give another path")
    need(*found.packages, extra=EXTRA)
    return found


def runs_here(name: str) -> bool:
    """Whether a file of a format can be run on this machine, and so be compared: Core ML runs on macOS alone."""
    return name != "coreml" or platform.system() == "Darwin"


def export_edge(
    encoder: Encoder, path: str | Path, name: str, *, half: bool = False, threads: int | None = None
) -> tuple[dict[str, Any], Encoder | None]:
    """Write an encoder in a format of :data:`FORMATS`, unless its vectors are far from torch's.

    ``PATH.json`` beside it says what the file reads, with preprocessing and thresholds, as in an ONNX file. `half`
    stores weights in 16 bits; Core ML then computes in 16 bits too, but for squares, sums and roots. `threads` are
    those of the file's runtime. While a converter runs, the standard output and error of this process go nowhere.

    Returns `bytes`, `precision` and `least_cosine` to torch's vectors by batch size (None where the file can not be run
    here), and the file as an encoder.

    Raises:
        ConfigError, DataError: as :func:`check_format`; an encoder that is ONNX already; a net that the package can not
            convert, or converts to vectors that are further from torch's than :data:`FAR_OFF`, or not of unit length.
    """
    path, kind = Path(path), check_format(name, path)
    net, ours = WholeNet(network_of(encoder), encoder.preprocess), None
    found: dict[str, Any] = {}
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".facenet-edge-", dir=path.parent) as folder:
            made = Path(folder) / "new" / path.name
            made.parent.mkdir()
            with _explained(path, name), torch.no_grad():
                kind.write(net, torch.zeros(2, 3, *encoder.preprocess.size), made, half)
                run = kind.open(made, threads)
            found = {"bytes": _bytes(made.parent), "precision": "float16" if half else "float32", "least_cosine": None}
            if run is not None:
                like = (encoder.name, encoder.options, encoder.preprocess)
                ours = Encoder(EdgeNet(run, name), *like, fingerprint=encoder.fingerprint)
                found["least_cosine"] = _least_cosines(encoder, ours, path, FAR_OFF[half])
            write_json(f"{made}.json", _record(encoder, name, found))
            _move(sorted(made.parent.iterdir()), path.parent, Path(folder))
    return found, ours


def _record(encoder: Encoder, name: str, found: dict[str, Any]) -> dict[str, Any]:
    content = record(encoder)
    for side in ("input", "output"):
        content["graph"][side] = content["graph"][side].replace("(B, ", f"({FORMATS[name].batch}, ")
    return content | {"format": name, "graph": content["graph"] | found}


def _least_cosines(encoder: Encoder, ours: Encoder, path: Path, far_off: float) -> dict[str, float]:
    """Return the least cosine of a file's vectors to torch's by batch size; raises DataError if one is far off."""
    found = {}
    for size in BATCHES:
        images = encoder.preprocess.normalise(pictures(size, encoder.preprocess.size))
        try:
            vectors = ours.embed_batch(images)
        except DataError as error:
            raise DataError(f"{path}: not written; {error}") from error
        found[str(size)] = float((vectors * encoder.embed_batch(images)).sum(1).min())
    if not all(cosine >= 1 - far_off for cosine in found.values()):  # also NaN
        listed = ", ".join(f"{cosine:.6f} at batch {size}" for size, cosine in found.items())
        raise DataError(
            f"{path}: not written; the cosine of its vectors to torch's is {listed}, {1 - far_off:g} is the least; try"
            " another format="
        )
    return found


def _openvino() -> Any:
    """Import OpenVINO without the package by which it reports its use to a server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _write_openvino(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    openvino = _openvino()
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("B")},))
    model = openvino.convert_model(program, input=[openvino.PartialShape([-1, *images.shape[1:]])])
    for port, name in ((model.inputs[0], "images"), (model.outputs[0], "embeddings")):
        port.get_tensor().set_names({name})
    openvino.save_model(model, path, compress_to_fp16=half)


def _open_openvino(path: Path, threads: int | None) -> Run:
    openvino = _openvino()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself it computes in bfloat16 where it can
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    model = openvino.compile_model(path, "CPU", options)
    return lambda images: np.array(model(images)[0])


class _Named(nn.Module):
    """A net whose output has the name that a LiteRT file gives it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embeddings": self.net(images)}


def _write_litert(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    import litert_torch

    litert_torch.convert(_Named(net), sample_kwargs={"images": images[:1]}).export(str(path))
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
    return lambda images: np.concatenate([run(images=image[None])["embeddings"] for image in images])


WIDE = ("pow", "square", "sqrt", "rsqrt", "reduce_sum", "reduce_sum_square", "reduce_l2_norm", "exp", "real_div")


def _write_coreml(net: WholeNet, images: Tensor, path: Path, half: bool) -> None:
    import coremltools

    program = torch.export.export(net, (images[:1],)).run_decompositions({})
    # squares and their sums may be larger than 16 bits can hold
    sixteen = coremltools.transform.FP16ComputePrecision(op_selector=lambda op: op.op_type not in WIDE)
    coremltools.convert(
        program,
        outputs=[coremltools.TensorType(name="embeddings", dtype=np.float32)],
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=sixteen if half else coremltools.precision.FLOAT32,
        package_dir=str(path),  # a temporary one would be left behind
    )


def _open_coreml(path: Path, threads: int | None) -> Run | None:
    if not runs_here("coreml"):
        return None
    import coremltools

    model = coremltools.models.MLModel(str(path))
    return lambda images: np.concatenate([model.predict({"images": image[None]})["embeddings"] for image in images])


FORMATS = {
    "openvino": Format(".xml", ("openvino",), "B", _write_openvino, _open_openvino),
    "litert": Format(
        ".tflite", ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"), "1", _write_litert, _open_litert
    ),
    "coreml": Format(".mlpackage", ("coremltools",), "1", _write_coreml, _open_coreml),
}


@contextlib.contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Keep a converter from talking about itself, and raise DataError for whatever it raises."""
    try:
        with quiet(), _silent():
            yield
    except Exception as error:  # converters raise many kinds
        if isinstance(error, OSError) and error.errno in REFUSED:  # a full disk is none of the converter's faults
            raise
        raise DataError(
            f"{path}: not written; {name} can not hold this net ({one_line(error)}); try another format="
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Send what is written to standard output and error nowhere, that of libraries in C++ too.

    Python writes to its first streams meanwhile. Loggers that are made then keep these, not a notebook's.
    """
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    first = contextlib.redirect_stdout(sys.__stdout__), contextlib.redirect_stderr(sys.__stderr__)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        with first[0], first[1]:
            yield
            sys.stdout.flush(), sys.stderr.flush()
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _move(made: Sequence[Path], folder: Path, aside: Path) -> None:
    """Move what was made into a folder; what lay there under its names goes aside first."""
    for part in made:
        if (folder / part.name).exists():
            (folder / part.name).replace(aside / part.name)
    for part in made:
        for file in [part, *part.rglob("*")]:  # Core ML's are private
            file.chmod((0o777 if file.is_dir() else 0o666) & ~UMASK)
        part.replace(folder / part.name)
