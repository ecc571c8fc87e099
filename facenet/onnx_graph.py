"""Foreign ONNX graphs made plain: weights kept in blocks of 8 bits become float32, axes become free.

Not every runtime reads block-quantised weights, and a graph whose input says "one image of 640x640" takes no other.
Needs the package `onnx` (extra `pretrained`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.foreign import install


def plain_graph(data: bytes, free: Mapping[str, Sequence[int]]) -> bytes:
    """Fold all that is constant about the weights of an ONNX file and free axes of its inputs and outputs.

    DequantizeLinear (w = (q - zero point) * scale, a scale for each block of an axis) and the Reshape after it become
    initialisers; inputs that no node reads are deleted; what is known of shapes in between is forgotten. A Reshape
    whose target begins with a batch of 1 takes the batch it is given instead.

    Args:
        data: The file's bytes.
        free: Axes that may have any size, by name of the input or output.

    Raises:
        DataError: the package `onnx` is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise DataError(f"onnx is not installed; run: {install('align')}") from None
    model = onnx.load_from_string(data)
    graph = model.graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
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
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _fold(node: Any, values: dict[str, np.ndarray]) -> bool:
    """Compute a node of constants and keep what it gives; False where it is none of those."""
    if node.op_type not in ("DequantizeLinear", "Reshape") or not all(name in values for name in node.input):
        return False
    inputs = [values[name] for name in node.input]
    if node.op_type == "Reshape":
        values[node.output[0]] = inputs[0].reshape(inputs[1])
        return True
    options = {item.name: item.i for item in node.attribute}
    axis, block = options.get("axis", 1), options.get("block_size", 0)
    codes, scale, zero = inputs
    if block:
        scale, zero = (np.repeat(part, block, axis).take(range(codes.shape[axis]), axis) for part in (scale, zero))
    elif scale.ndim:
        shape = [-1 if place == axis else 1 for place in range(codes.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    values[node.output[0]] = ((codes.astype(np.int32) - zero.astype(np.int32)) * scale).astype(np.float32)
    return True
