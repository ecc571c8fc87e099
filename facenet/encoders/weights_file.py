"""Weights that others trained, from a file, as an encoder: what fits is accounted for to the last name.

No code in a file is run: ``.pt`` and its like are read with ``weights_only``, others are ``.safetensors`` and the
constants of ``.onnx``. The names decide which net of which family they are of, see :mod:`facenet.models.names`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import WIDEST, need
from facenet.encoders.pretrained import PRETRAINED
from facenet.errors import DataError, choose, one_line
from facenet.faces.alignment import Alignment
from facenet.files import read_bytes
from facenet.foreign import arrays, plain_graph, plain_model
from facenet.models.build import build_model
from facenet.models.names import FAMILIES, our_name
from facenet.models.registry import KNOWN

KINDS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".onnx")
HOLDERS = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone", "net")  # keys of weights
PREFIXES = r"^(module|_orig_mod|backbone|model|net)\."  # that wrappers put before every name
COUNTER = "num_batches_tracked"  # of batch norm: a file without it is complete
SHOWN = 3  # names that a message lists
IMPORTED = {net: family for family, one in FAMILIES.items() for net in one.nets}


class Fit(NamedTuple):
    """How the weights of a file fit a net; names are the file's, but for `missing`."""

    family: str
    net: str
    options: dict[str, Any]  # of the net
    weights: dict[str, Tensor]  # by our names, those that fit
    unused: list[str]  # a classifier's
    unexpected: list[str]  # that the net has no place for
    misshapen: list[str]  # of another shape than their place, with both shapes
    missing: list[str]  # places of the net that the file does not name

    @property
    def whole(self) -> bool:
        """Whether the net is filled, and nothing is left over."""
        return not (self.unexpected or self.misshapen or self.missing)


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


# Reading


def read_weights_file(source: str | Path) -> dict[str, Tensor]:
    """Return the named tensors of a file, or of a pretrained net by its name, without the prefixes of wrappers.

    Raises:
        DataError: missing, damaged, of an unknown kind, without tensors, or a file that would run code.
    """
    if str(source) in PRETRAINED:
        return _constants(plain_model(str(source), PRETRAINED[str(source)].free))
    path = Path(source)
    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path}: expected a file of weights: {', '.join(KINDS)}")
    data = read_bytes(path)
    try:
        found = _without_wrappers(_content(data, path.suffix.lower()))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # each reader raises kinds of its own
        raise DataError(
            f"{path}: no weights that can be read without running code ({one_line(error)}); save the net's state_dict"
        ) from error
    if not found:
        raise DataError(f"{path}: no tensors in it; save the net's state_dict")
    for name, value in found.items():
        if why := _unusable(value):
            raise DataError(f"{path}: {name[:80]} {why}; save the net's state_dict again")
    return found


def _content(data: bytes, suffix: str) -> Any:
    if suffix == ".safetensors":
        from safetensors.torch import load

        return load(data)
    if suffix == ".onnx":
        need("onnx")
        return _constants(plain_graph(data, {}))
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _constants(data: bytes) -> dict[str, Tensor]:
    import onnx

    return {name: torch.tensor(value) for name, value in arrays(onnx.load_from_string(data).graph).items()}


def _without_wrappers(content: Any) -> dict[str, Tensor]:
    """Return the tensors of what a file holds; of a training's file those of the backbone alone."""
    for key in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    while True:
        found = {name: value for name, value in found.items() if name.startswith("backbone.")} or found
        if not found or not all(re.match(PREFIXES, name) for name in found):
            return found
        found = {re.sub(PREFIXES, "", name): value for name, value in found.items()}


def _unusable(value: Tensor) -> str:
    """Return why a tensor is none to load, or ""; one that claims more numbers than it holds would take memory."""
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"is {value.layout} on {value.device}, expected plain numbers"
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"holds fewer numbers than its shape {tuple(value.shape)} says"
    return "" if not value.is_floating_point() or bool(torch.isfinite(value).all()) else "is not finite"


# Fitting


def fit(weights: Mapping[str, Tensor], net: str | None = None) -> Fit:
    """Return how weights fit the net that they fit best; `net` allows one alone.

    Raises:
        ConfigError: a `net` of no family.
    """
    nets = IMPORTED if net is None else {net: choose(IMPORTED, net, "net")}
    found = [_fit(weights, family, one) for one, family in nets.items()]
    return max(found, key=lambda one: (one.whole, len(one.weights) - len(one.missing)))


def _fit(weights: Mapping[str, Tensor], family: str, net: str) -> Fit:
    ours = {name: our_name(name, FAMILIES[family]) for name in weights}
    width = next((weights[name].shape[:1].numel() for name, one in ours.items() if one == "embedding.0.weight"), 0)
    options: dict[str, Any] = {
        "embedding_dim": width if 0 < width <= WIDEST else 512,
        "input_size": list(KNOWN[net][1]),
    }
    with torch.device("meta"):
        places = build_model(net, embedding_dim=options["embedding_dim"]).state_dict()
    fits: dict[str, Tensor] = {}
    unexpected, misshapen, named = [], [], set()
    for name, value in weights.items():
        one = ours[name]
        if one is None:
            continue
        number = value.is_floating_point() or name.endswith(COUNTER)
        if one not in places or one in named or not number:
            unexpected.append(name)
        elif not _alike(value, places[one]):
            misshapen.append(f"{name} is {_shape(value)}, not {_shape(places[one])}")
        else:
            fits[one] = value.reshape(places[one].shape).to(places[one].dtype)
        named.add(one)
    return Fit(
        family, net, options, fits, [name for name, one in ours.items() if one is None], unexpected, misshapen,
        [name for name in places if name not in named and not name.endswith(COUNTER)],
    )  # fmt: skip


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two shapes are one but for sides of 1: ONNX has slopes (C, 1, 1)."""
    return [side for side in one.shape if side != 1] == [side for side in other.shape if side != 1]


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def import_weights(source: str | Path, net: str | None = None) -> tuple[Encoder, Fit]:
    """Return an encoder with the weights of a file, and the account of them. Its thresholds are yet to be calibrated.

    Raises:
        ConfigError: a `net` that no file is known of.
        DataError: as :func:`read_weights_file`, or weights that do not fill one of the known nets.
    """
    found = fit(read_weights_file(source), net)
    if not found.whole:
        raise DataError(f"{source}: {_told(found, net)}")
    with torch.device("meta"):
        model = build_model(found.net, embedding_dim=found.options["embedding_dim"])
    counters = {name: torch.zeros_like(value, device="cpu") for name, value in model.state_dict().items()
                if name.endswith(COUNTER)}  # fmt: skip
    model.load_state_dict({**counters, **{name: value.clone() for name, value in found.weights.items()}}, assign=True)
    training = {"source": f"{Path(source).name}, imported ({found.family})", "data": "outside data"}
    return Encoder(model, found.net, found.options, preprocessing(found.family), training=training), found


def _told(found: Fit, net: str | None) -> str:
    """Return one line on weights that do not fit."""
    parts = [
        f"{len(names)} {what} ({_listed(names)})"
        for what, names in (
            ("of another shape", found.misshapen),
            ("without a place there", found.unexpected),
            ("of its weights are not in the file", found.missing),
        )
        if names
    ]
    nearest = "" if net else ", the nearest"
    return (
        f"{len(found.weights)} weights fit {found.net}{nearest}, but {'; '.join(parts)}; known are files of"
        f" {', '.join(IMPORTED)}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
