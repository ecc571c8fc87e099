"""ONNX files that anybody could seal: graphs that burn time or memory, hide loops, or give no usable vectors.

Each must be refused in one line, or answered, within :data:`SECONDS` and :data:`MEGABYTES`.
"""

from __future__ import annotations

import itertools
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.mutate import mutated
from benchmarks.faults.tiny import PICTURES, SIDE, D, tiny_encoder, tiny_net
from benchmarks.resources import in_fresh_process, status_bytes
from facenet.encoders import lookup as encoders
from facenet.encoders import onnx_apart
from facenet.encoders.onnx_file import _fields, _text, seal
from facenet.errors import FacenetError
from facenet.export.onnx import OPSET, record

SECONDS, MEGABYTES = 10.0, 2000.0
BATCHES = (2, 40)  # pictures of a call


def _graph(*nodes: Any, values: Mapping[str, Any] | None = None, end: str = "added") -> bytes:
    """A net of one matrix, and nodes that make `extra`, a number that is added to its vectors."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, D)).astype(np.float32)
    first = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["vectors"]),
    ]
    last = [
        helper.make_node("Add", ["vectors", "extra"], ["added"]),
        helper.make_node("Identity", [end], ["embeddings"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape])
        for name, shape in (("images", (3, SIDE, SIDE)), ("embeddings", (D,)))
    ]
    stored = {"weights": weights, **(values or {})}
    if not any("extra" in node.output for node in nodes):
        stored.setdefault("extra", np.float32(0))
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    inner = helper.make_graph([*first, *nodes, *last], "net", ends[:1], ends[1:], tensors)
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def _node(kind: str, inputs: str, outputs: str, **options: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs.split(), outputs.split(), **options)


def _sizes(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.int64)


def _long_product(seed: int) -> bytes:
    """Products of large matrices, made of the images' mean so that they are not computed while the file is read."""
    side = 6000 + 500 * (seed % 5)
    nodes = [_node("ReduceMean", "images", "mean", keepdims=0), _node("Expand", "mean shape", "m0")]
    nodes += [_node("MatMul", f"m{step} m0", f"m{step + 1}") for step in range(20)]
    return _graph(*nodes, _node("ReduceMin", "m20", "extra", keepdims=0), values={"shape": _sizes(side, side)})


def _long_folded_product(seed: int) -> bytes:
    """Products that the runtime computes while it reads the file."""
    side = 6000 + 500 * (seed % 5)
    nodes = [_node("Expand", "one shape", "m0")]
    nodes += [_node("MatMul", f"m{step} m0", f"m{step + 1}") for step in range(20)]
    last = _node("ReduceMin", "m20", "extra", keepdims=0)
    return _graph(*nodes, last, values={"shape": _sizes(side, side), "one": np.float32(1)})


def _large(seed: int) -> bytes:
    nodes = [_node("ReduceMean", "images", "mean", keepdims=0), _node("Expand", "mean shape", "many")]
    return _graph(
        *nodes, _node("ReduceMax", "many", "extra", keepdims=0), values={"shape": _sizes((1 << 31) + seed % 9)}
    )


def _doubled(seed: int) -> bytes:
    nodes = [_node("Flatten", "images", "d0", axis=0)]
    nodes += [_node("Concat", f"d{step} d{step}", f"d{step + 1}", axis=1) for step in range(40 + seed % 5)]
    return _graph(*nodes, _node("ReduceMax", nodes[-1].output[0], "extra", keepdims=0))


def _grows_with_the_batch(seed: int) -> bytes:
    """A tensor of B^6 numbers: nothing for two images, gigabytes for 32."""
    nodes = [
        _node("Shape", "images", "batch", start=0, end=1),
        _node("Tile", "batch six", "shape"),
        _node("ReduceMean", "images", "mean", keepdims=0),
        _node("Expand", "mean shape", "many"),
    ]
    return _graph(*nodes, _node("ReduceMax", "many", "extra", keepdims=0), values={"six": _sizes(6 + seed % 4)})


def _wide(seed: int, width: float = 5e7) -> bytes:
    """Vectors of 16 numbers by its word, of some hundred megabytes in fact, which shows when it runs."""
    nodes = [
        _node("Shape", "images", "batch", start=0, end=1),
        _node("ReduceMean", "images axes", "mean"),
        _node("Reshape", "mean column", "short"),  # (B, 1)
        _node("ReduceMax", "short", "one", keepdims=0),
        _node("Mul", "one zero", "nothing"),
        _node("Add", "nothing width", "wanted"),
        _node("Cast", "wanted", "number", to=7),
        _node("Reshape", "number single", "last"),
        _node("Concat", "batch last", "shape", axis=0),
        _node("Expand", "short shape", "wide"),
    ]
    values = {"axes": _sizes(1, 2, 3), "column": _sizes(-1, 1), "single": _sizes(1), "zero": np.float32(0)}
    return _graph(*nodes, values={**values, "width": np.float32(width + 8 * (seed % 9))}, end="wide")


def _many_nodes(seed: int) -> bytes:
    names = ["extra0", *(f"e{number}" for number in range(60_000 + seed)), "extra"]
    nodes = [_node("Identity", one, two) for one, two in itertools.pairwise(names)]
    return _graph(*nodes, values={"extra0": np.float32(0)})


def _deep(seed: int) -> bytes:
    """As many nodes as are let through, one behind the other."""
    names = ["extra0", *(f"e{number}" for number in range(15_000)), "extra"]
    nodes = [_node("Sin", one, two) for one, two in itertools.pairwise(names)]
    return _graph(_node("ReduceMean", "images", "extra0", keepdims=0), *nodes)


def _sorted(seed: int) -> bytes:
    nodes = [
        _node("RandomNormal", "", "many", shape=[40_000_000 + seed % 7]),
        _node("TopK", "many count", "top places", axis=0),
    ]
    return _graph(*nodes, _node("ReduceMax", "top", "extra", keepdims=0), values={"count": _sizes(40_000_000)})


def _constant(value: float) -> Callable[[int], bytes]:
    def made(seed: int) -> bytes:
        nodes = [_node("Mul", "vectors zero", "nothing"), _node("Add", "nothing value", "same")]
        return _graph(*nodes, values={"zero": np.float32(0), "value": np.float32(value)}, end="same")

    return made


def _looped(seed: int) -> bytes:
    """A loop without an end; two of three are hidden behind a tag of too many bytes, which readers cut."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (
            ("at", TensorProto.INT64),
            ("goes", TensorProto.BOOL),
            ("was", TensorProto.FLOAT),
            ("goes_on", TensorProto.BOOL),
            ("is", TensorProto.FLOAT),
        )
    ]
    inner = [_node("Identity", "goes", "goes_on"), _node("Sin", "was", "is")]
    body = helper.make_graph(inner, "body", ends[:3], ends[3:])
    values = {"often": np.int64(1 << 62), "yes": np.bool_(1), "zero": np.float32(0)}
    whole = _graph(_node("Loop", "often yes zero", "extra", body=body), values=values)
    tags = (b"\x32", b"\xb2\x00", b"\xb2\x80\x80\x80\x10")
    return _tagged(whole, (7, 1, 5, 6), tags[seed % 3])


def _tagged(data: bytes, path: tuple[int, ...], tag: bytes) -> bytes:
    """Write `tag` before the fields at a path of field numbers, and their lengths anew."""
    at, parts = 0, []
    for field, start, end in _fields(memoryview(data), 0, len(data), itertools.count()):
        if field != path[0]:
            parts.append(data[at:end])
        elif len(path) > 1:
            parts.append(_text(field, _tagged(data[start:end], path[1:], tag)))
        else:
            parts.append(tag + _text(field, data[start:end])[1:])
        at = end
    return b"".join(parts)


def _laughs(seed: int) -> bytes:
    """Functions of ten calls of the next one, some twenty deep."""
    from onnx import helper, load_from_string

    model = load_from_string(
        _graph(helper.make_node("f0", ["zero"], ["extra"], domain="d"), values={"zero": np.float32(0)})
    )
    sets, deep = [helper.make_opsetid("", OPSET), helper.make_opsetid("d", 1)], 15 + seed % 6
    for level in range(deep):
        names = ["x", *(f"x{number}" for number in range(9)), "y"]
        kind, domain = (f"f{level + 1}", "d") if level + 1 < deep else ("Sin", "")
        nodes = [helper.make_node(kind, [one], [two], domain=domain) for one, two in itertools.pairwise(names)]
        model.functions.append(helper.make_function("d", f"f{level}", ["x"], ["y"], nodes, sets))
    model.opset_import.append(sets[1])
    return bytes(model.SerializeToString())


def _mutated(seed: int) -> bytes:
    return mutated("model.onnx", _graph(), random.Random(seed))


def _claims_more(seed: int) -> bytes:
    """An initialiser whose shape asks for more numbers than it has."""
    from onnx import load_from_string

    model = load_from_string(_graph())
    model.graph.initializer[0].dims[seed % 2] = (1 << 33) + seed
    return bytes(model.SerializeToString())


ATTACKS: dict[str, Callable[[int], bytes]] = {
    "none": lambda seed: _graph(),
    "nan": _constant(float("nan")),
    "long_product": _long_product,
    "long_folded_product": _long_folded_product,
    "large": _large,
    "doubled": _doubled,
    "grows_with_the_batch": _grows_with_the_batch,
    "wide": _wide,
    "many_nodes": _many_nodes,
    "deep": _deep,
    "sorted": _sorted,
    "zeros": _constant(0.0),
    "ones": _constant(1.0),
    "loop": _looped,
    "functions": _laughs,
    "claims_more": _claims_more,
    "mutated": _mutated,
}


def attacks(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` files, every second one a mutation: (kind, bytes without a seal)."""
    kinds = [name for name in ATTACKS if name not in ("none", "mutated")]
    for number in range(count):
        name = kinds[number // 2 % len(kinds)] if number % 2 else "mutated"
        yield name, ATTACKS[name](seed + number)


def played(place: Path, count: int, seed: int = 0, seconds: float = onnx_apart.SECONDS) -> dict[str, int]:
    """Call :func:`play` in a process of its own, which has not been large before, and print what it found."""
    found = in_fresh_process(play, str(place), count, seed, seconds)
    print("\n".join(found.pop("lines")), flush=True)
    return dict(found)


def play(place: str, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Load each file and embed pictures, as a command would; the most seconds and megabytes are rounded up.

    A graph may take `seconds` for its first answer. Memory is the peak of this process or of a graph's, which is never
    below what this one had when it started that one.
    """
    onnx_apart.SECONDS = seconds
    counts = {"files": count, "refused": 0, "answered": 0, "crashes": 0, "slow": 0, "large": 0, "seconds": 0}
    lines, before = [], 0.0
    with tiny_net():
        told, file = record(tiny_encoder()), Path(place) / "hostile.onnx"
        for kind, data in attacks(count, seed):
            file.write_bytes(seal(data, told))
            start = time.perf_counter()
            what, message = _tried(file)
            taken, peak = time.perf_counter() - start, _peak()
            counts[what] += 1
            counts["slow"] += taken > SECONDS
            counts["large"] += peak > MEGABYTES and peak > before
            counts["seconds"] = max(counts["seconds"], int(np.ceil(taken)))
            rise = f", {peak:.0f} MB" if peak > before else ""
            lines.append(f"{kind}: {what} in {taken:.1f} s{rise}: {message[:200]}")
            before = peak
    return {**counts, "megabytes": int(np.ceil(before)), "lines": lines}


def _tried(file: Path) -> tuple[str, str]:
    """Return the outcome of a file, and what was said."""
    try:
        encoder = encoders.load(file)
        for size in BATCHES:
            encoder.embed(np.resize(PICTURES, (size, *PICTURES.shape[1:])))
    except FacenetError as error:
        return "crashes" if "\n" in str(error) else "refused", str(error)
    except Exception as error:  # whatever it is, it is what this campaign looks for
        return "crashes", f"{type(error).__name__}: {error}"
    return "answered", ""


def _peak() -> float:
    """Return the largest peak of this process and of those that it has waited for, in megabytes."""
    return max(status_bytes("VmHWM") / 1e6, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
