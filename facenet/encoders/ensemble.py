"""Several networks that answer as one: an ordinary encoder whose vector joins those of its members.

Letters: B batch, n members, D_i width of a member's vectors, D width of the joined ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenet.data.views import View
from facenet.encoders.encoder import Encoder, average, views_of
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import ConfigError
from facenet.models.build import build_recorded

NAME = "ensemble"  # its place in records, beside the names of nets


class Ensemble(nn.Module):
    """Images of all members' views to joined unit vectors (B, D).

    A tall image holds the views of each member in turn, see :mod:`facenet.data.views`. Each member gives a unit vector
    of its own views. Side by side, divided by the square root of n, they are a unit vector of width D_1 + ... + D_n:
    its squared distances are the mean of the members'. A `reduction` maps it linearly to another width; the result is
    scaled to unit length again.

    Args:
        members: For each member `name` and `options` of its net, whether it averages with the `mirror` image, and its
            `views`, as :meth:`~facenet.data.views.View.to_dict` gives them.
        embedding_dim: D, or the width of the reduction.
        reduced: Whether there is a reduction.

    Raises:
        ConfigError: as :func:`~facenet.models.build.build_recorded`; no member, or one without views; a width that is
            not that of the members.
    """

    def __init__(self, members: Sequence[Mapping[str, Any]], *, embedding_dim: int, reduced: bool = False) -> None:
        super().__init__()
        if not members or not all(member["views"] and type(member["mirror"]) is bool for member in members):
            raise ConfigError("members: expected one or more, each with views, and true or false for mirror")
        self.nets = nn.ModuleList(
            build_recorded(
                member["name"], **{**member["options"], "input_size": tuple(member["options"]["input_size"])}
            )
            for member in members
        )
        self.mirrors = [member["mirror"] for member in members]
        self.views = [tuple(View.from_dict(view) for view in member["views"]) for member in members]
        joined = sum(int(member["options"]["embedding_dim"]) for member in members)
        if not reduced and embedding_dim != joined:
            raise ConfigError(
                f"embedding_dim: the members' vectors have {joined} numbers together, got {embedding_dim}"
            )
        self.reduction = nn.Linear(joined, embedding_dim) if reduced else None

    @property
    def every_view(self) -> list[View]:
        """The views of all members in turn."""
        return [view for views in self.views for view in views]

    def members(self, images: Tensor) -> Iterator[tuple[nn.Module, list[Tensor], bool]]:
        """Yield each net, the views (B, 3, H_i, W_i) of the tall images that it reads, and whether it mirrors them."""
        cut = iter(views_of(images, self.every_view))
        for net, views, mirror in zip(self.nets, self.views, self.mirrors, strict=True):
            yield net, list(itertools.islice(cut, len(views))), mirror

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors (B, D) of tall images (B, 3, H, W)."""
        return self.joined([average(net, parts, mirror=mirror) for net, parts, mirror in self.members(images)])

    def joined(self, vectors: Sequence[Tensor]) -> Tensor:
        """Join the members' unit vectors (B, D_i), and reduce them."""
        joined = torch.cat(list(vectors), 1) / math.sqrt(len(vectors))
        return joined if self.reduction is None else nn.functional.normalize(self.reduction(joined), dim=1, eps=1e-4)


def join(encoders: Sequence[Encoder], *, views: int = 1) -> Encoder:
    """Return an encoder whose vectors are those of others, side by side and divided by the square root of their number.

    Each member averages `views` of a face, see :meth:`~facenet.data.preprocess.Preprocess.with_views`.

    Weights are copied. The thresholds are unknown: calibrate them. The record of whom the members were trained on is
    that of all of them.

    Raises:
        ConfigError: no encoder, the same one twice, an ensemble or an ONNX graph among them, or encoders that align or
            normalise faces in different ways.
    """
    if not encoders:
        raise ConfigError("encoders: expected one or more, got none")
    first, seen = encoders[0].preprocess, dict[str, int]()
    for number, encoder in enumerate(encoders, 1):
        where = f"encoders: number {number} ({encoder.name} {encoder.fingerprint[:12]})"
        if isinstance(encoder.model, OnnxNet):
            raise ConfigError(
                f"{where} is an ONNX graph, whose weights can not be copied; give folders of trained nets"
            )
        if encoder.name == NAME:
            raise ConfigError(f"{where} is an ensemble itself; give its members")
        if encoder.fingerprint in seen:
            raise ConfigError(f"{where} is number {seen[encoder.fingerprint]} again; leave it out")
        seen[encoder.fingerprint] = number
        other = encoder.preprocess
        if (other.mean, other.std, other.align) != (first.mean, first.std, first.align):
            raise ConfigError(f"{where} aligns or normalises faces in another way than number 1; join others")
    read = [encoder.preprocess.with_views(views) for encoder in encoders]
    cut = [own.views or (View(own.size, own.crop, own.centre),) for own in read]
    members = [
        {
            "name": encoder.name,
            "options": encoder.options,
            "mirror": encoder.preprocess.mirror,
            "views": [view.to_dict() for view in own],
        }
        for encoder, own in zip(encoders, cut, strict=True)
    ]
    preprocess = replace(first, mirror=False).reading([view for own in cut for view in own])
    options: dict[str, Any] = {"members": members, "embedding_dim": sum(encoder.dim for encoder in encoders)}
    model = Ensemble(**options)
    for net, encoder in zip(model.nets, encoders, strict=True):
        net.load_state_dict(encoder.model.state_dict())
    return Encoder(model, NAME, options, preprocess, training=_training(encoders))


def _training(encoders: Sequence[Encoder]) -> dict[str, Any]:
    """Return the summary of an ensemble: its members, whom they were trained on, and if that were drawn faces alone."""
    kinds = {encoder.training.get("data") for encoder in encoders}
    return {
        "data": kinds.pop() if len(kinds) == 1 else "several",
        "members": [encoder.fingerprint for encoder in encoders],
        "people": [entry for encoder in encoders for entry in encoder.training.get("people", [])],
    }


def reduce(encoder: Encoder, weight: np.ndarray, bias: np.ndarray) -> Encoder:
    """Return an ensemble whose joined vectors x (D,) become the unit vector of W x + b, W (d, D) and b (d,)."""
    options = {**encoder.options, "embedding_dim": len(weight), "reduced": True}
    model = Ensemble(**options)
    state: dict[str, Any] = dict(encoder.model.state_dict())
    state |= {"reduction.weight": torch.from_numpy(weight).float(), "reduction.bias": torch.from_numpy(bias).float()}
    model.load_state_dict(state)
    return Encoder(model, NAME, options, encoder.preprocess, training=dict(encoder.training))
