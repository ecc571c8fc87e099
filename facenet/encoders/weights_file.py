"""Weights that others trained, from a file, as an encoder: what fits is accounted for to the last name.

Files are read without running code: ``.pt`` and ``.pth`` with ``weights_only``, ``.safetensors``, and the initialisers
of ``.onnx``. The names decide which net of which family they are of, see :mod:`facenet.models.names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.pretrained import PRETRAINED
from facenet.errors import DataError, one_line
from facenet.faces.alignment import Alignment
from facenet.files import read_bytes
from facenet.foreign import plain_graph, plain_model
from facenet.models.build import build_model
from facenet.models.names import FAMILIES, renamed
from facenet.models.registry import KNOWN

HOLDERS = ("state_dict", "model_state_dict", "model", "backbone", "net")  # keys under which a file may keep weights
PREFIXES = r"^(module|backbone|model|net)\."  # that wrappers put before every name
COUNTER = "num_batches_tracked"  # of batch norm: a file without it is complete
SHOWN = 3  # names that a message lists


class Fit(NamedTuple):
    """How the weights of a file fit a net: names in the file's order."""

    family: str
    net: str
    options: dict[str, Any]  # of the net
    weights: dict[str, Tensor]  # by our names, those that fit
    unused: list[str]  # a classifier's
    unexpected: list[str]  # that the net has no place for, or one of another shape
    missing: list[str]  # places of the net that nothing fills

    @property
    def whole(self) -> bool:
        """Whether the net is filled, and nothing is left over."""
        return not self.unexpected and not self.missing


def preprocessing(family: str) -> Preprocess:
    """Return what the nets of a family read: RGB; 160 pixels of a box, or 112 on ArcFace's template."""
    if family == "sface":  # its first two layers are (x - 127.5) / 128
        return _reads(112, 128 / 255, "arcface")
    if family == "facenet-pytorch":  # fixed_image_standardization: (x - 127.5) / 128; MTCNN's boxes
        return _reads(160, 128 / 255, "box")
    return _reads(112, 0.5, "arcface")  # ((x / 255) - 0.5) / 0.5


def _reads(side: int, std: float, template: str) -> Preprocess:
    align = Alignment(template=template, margin=1.0, size=side)
    return Preprocess(size=(side, side), std=(std, std, std), mirror=False, align=align)


def read_weights_file(source: str | Path) -> dict[str, Tensor]:
    """Return the named tensors of a file, or of a pretrained net by its name.

    Raises:
        DataError: missing, damaged, of an unknown kind, or a file that would run code.
    """
    if str(source) in PRETRAINED:
        return _initialisers(plain_model(str(source), PRETRAINED[str(source)].free))
    path, data = Path(source), read_bytes(source)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(data)
        if path.suffix == ".onnx":
            return _initialisers(plain_graph(data, {}))
        if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            return _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except DataError:
        raise
    except Exception as error:  # each reader raises kinds of its own
        raise DataError(f"{path}: no weights that can be read safely ({one_line(error)}); export them again") from error
    raise DataError(f"{path}: expected a file of weights: .pt, .pth, .safetensors or .onnx")


def _tensors(content: Any) -> dict[str, Tensor]:
    """Return the tensors of what a file holds, without the prefixes of wrappers."""
    for key in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    while found and all(re.match(PREFIXES, name) for name in found):
        found = {re.sub(PREFIXES, "", name): value for name, value in found.items()}
    return found


def _initialisers(data: bytes) -> dict[str, Tensor]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(data).graph
    return {item.name: torch.tensor(numpy_helper.to_array(item)) for item in graph.initializer}


def fit(weights: Mapping[str, Tensor], net: str | None = None) -> Fit:
    """Return how weights fit the net of a family that they fit best; `net` allows one alone."""
    found = [
        _fit(weights, name, one)
        for name, family in FAMILIES.items()
        for one in family.nets
        if net in (None, one)
    ]  # fmt: skip
    return max(found, key=lambda one: (one.whole, len(one.weights) - len(one.missing)))


def _fit(weights: Mapping[str, Tensor], family: str, net: str) -> Fit:
    named = renamed(weights, FAMILIES[family])
    theirs = {ours: name for name in weights for ours in renamed({name: None}, FAMILIES[family])}
    width = next((named[key].shape[0] for key in ("embedding.0.weight",) if key in named and named[key].ndim), 512)
    options = {"embedding_dim": int(width), "input_size": list(KNOWN[net][1])}
    with torch.device("meta"):
        places = build_model(net, embedding_dim=int(width)).state_dict()
    fits = {
        name: value.reshape(places[name].shape)
        for name, value in named.items()
        if name in places and value.numel() == places[name].numel() and _alike(value, places[name])
    }
    return Fit(
        family, net, options, fits,
        unused=[name for name in weights if name not in theirs.values()],
        unexpected=[theirs[name] for name in named if name not in fits],
        missing=[name for name in places if name not in fits and not name.endswith(COUNTER)],
    )  # fmt: skip


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two shapes are one but for sides of 1: ONNX has slopes (C, 1, 1)."""
    return [side for side in one.shape if side > 1] == [side for side in other.shape if side > 1]


def import_weights(source: str | Path, net: str | None = None) -> tuple[Encoder, Fit]:
    """Return an encoder with the weights of a file, and the account of them. Its thresholds are yet to be calibrated.

    Raises:
        DataError: as :func:`read_weights_file`, or weights that do not fill one of the known nets.
    """
    weights = read_weights_file(source)
    found = fit(weights, net)
    if not found.whole:
        raise DataError(f"{source}: {told(found, len(weights))}")
    model = build_model(found.net, embedding_dim=found.options["embedding_dim"])
    model.load_state_dict(found.weights, strict=False)
    training = {"source": f"{Path(source).name}, imported ({found.family})", "data": "outside data"}
    return Encoder(model, found.net, found.options, preprocessing(found.family), training=training), found


def told(found: Fit, count: int) -> str:
    """Return one line on weights that do not fit."""
    parts = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (("have no place in it", found.unexpected), ("of its places stay empty", found.missing))
        if names
    ]
    nets = ", ".join(name for family in FAMILIES.values() for name in family.nets)
    return (
        f"no weights of a known net: {len(found.weights)} of {count} fit {found.net}, the nearest; {'; '.join(parts)};"
        f" known are {nets}"
    )
