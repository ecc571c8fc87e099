"""ONNX graphs built by hand."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def quantised(block: int) -> tuple[bytes, np.ndarray]:
    """A product with a weight (6, 8) kept as codes, one scale a row or a block of columns; a stale input beside."""
    rng = np.random.default_rng(block)
    codes = rng.integers(-128, 128, (6, 8)).astype(np.int8)
    shape = (6, -(-8 // block)) if block else (6,)
    scale, zero = rng.random(shape).astype(np.float32), rng.integers(-9, 9, shape).astype(np.int8)
    wide_scale, wide_zero = ((np.repeat(part, block, 1)[:, :8] if block else part[:, None]) for part in (scale, zero))
    weight = (codes.astype(np.float32) - wide_zero.astype(np.float32)) * wide_scale
    options = {"axis": 1, "block_size": block} if block else {"axis": 0}
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["flat"], **options),
        helper.make_node("Reshape", ["flat", "shape"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Reshape", ["product", "out_shape"], ["y"]),
    ]
    values = {
        "codes": codes,
        "scale": scale,
        "zero": zero,
        "shape": np.array([8, 6]),
        "out_shape": np.array([1, -1, 3]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "weight")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString(), weight.reshape(8, 6)


def projection(weight: np.ndarray, size: tuple[int, int]) -> bytes:
    """A net of one layer, images (B, 3, H, W) to unit embeddings (B, D), of a weight (D, 3 H W)."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["long"], transB=1),
        helper.make_node("LpNormalization", ["long"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, *size])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", len(weight)])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
