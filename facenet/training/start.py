"""Where the weights of a run start from: an encoder, weights that others trained, or those that timm publishes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from facenet.encoders.bundle import load_bundle
from facenet.encoders.encoder import Encoder
from facenet.encoders.ensemble import NAME as ENSEMBLE
from facenet.encoders.hub import load_from_hub
from facenet.encoders.lookup import SCHEME
from facenet.encoders.pretrained import PRETRAINED
from facenet.encoders.weights_file import import_weights
from facenet.errors import ConfigError, DataError
from facenet.models.net import Net
from facenet.models.options import ModelOptions, edition_of
from facenet.models.timm_net import TimmNet
from facenet.options import build as build_options
from facenet.options import to_dict
from facenet.training.options import TrainOptions

PUBLISHED = "timm"  # the `init` that stands for the weights that timm keeps in its cache
FREE = ("dropout", "input_size", "backend")  # options of a net that its weights do not depend on


def start_of(init: str | None) -> Encoder | None:
    """Return the encoder that a run starts from: a folder, a file of weights, a name, or an address on the hub.

    None for a run that starts from no encoder, but from drawn or published weights.

    Raises:
        ConfigError: an encoder that joins several nets.
        DataError: it is not there, or can not be read.
    """
    if init is None or init == PUBLISHED:
        return None
    if init in PRETRAINED or Path(init).is_file():
        return import_weights(init)[0]
    if not init.startswith(SCHEME) and not Path(init).exists():
        named = ", ".join(PRETRAINED)
        raise DataError(f"init={init}: no such encoder folder or file of weights; by name there are {named} and timm")
    start = load_from_hub(init) if init.startswith(SCHEME) else load_bundle(init)
    if start.name == ENSEMBLE:
        raise ConfigError(f"init={init}: it joins several nets; start from one of its members")
    return start


def load_start(model: nn.Module, options: TrainOptions) -> None:
    """Give a net the weights of `options.init`; without one it keeps those that were drawn.

    Raises:
        ConfigError: weights of another input size, or published ones that can not be had.
    """
    start: Any = start_of(options.init)
    if options.init == PUBLISHED:
        net = cast(TimmNet, model)
        name, dim = str(options.model.timm), net.embedding_dim
        start = TimmNet(name, embedding_dim=dim, input_size=net.input_size, dropout=0.0, published=True)
    elif start is None:
        return
    else:
        start = start.model
    ours, theirs = model.state_dict(), start.state_dict()
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        size = "x".join(map(str, cast(Net, model).input_size))
        raise ConfigError(f"init={options.init}: its weights are not of an input of {size}; leave model.input_size out")
    model.load_state_dict(theirs)


def take_net(options: TrainOptions, given: Collection[str] = ()) -> TrainOptions:
    """Return options whose net is that of the encoder or the file `init`; without one, the options as they are.

    An address on the hub is pinned to the commit that it is of.

    Options of the net at their defaults become the encoder's, unless they were `given` by name ("model.norm").
    Dropout, input size and the attention's backend may be others, since the weights do not depend on them.

    Raises:
        ConfigError: another option of the net was given and is not the encoder's; both values are named.
        DataError: the encoder or the file can not be read, or is of no known net.
    """
    if options.gate and options.init in (None, PUBLISHED):
        raise ConfigError("gate: it compares with what the run starts from; give init=ENCODER, or leave it out")
    if options.init == PUBLISHED and options.model.name != "timm":
        raise ConfigError(f"init={PUBLISHED}: it is for nets of timm; write model=timm model.timm=NAME")
    start = start_of(options.init)
    if start is None:
        return options
    recorded = {**start.options, "name": start.name, "edition": edition_of(start.options)}
    theirs, ours, plain = (
        to_dict(each) for each in (build_options(ModelOptions, recorded), options.model, ModelOptions())
    )
    chosen = _merge(ours, theirs, plain, given, f"init={options.init}")
    pinned = start.training["hub"] if str(options.init).startswith(SCHEME) else options.init
    return replace(options, init=pinned, model=build_options(ModelOptions, chosen))


def _merge(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    plain: Mapping[str, Any],
    given: Collection[str],
    init: str,
    prefix: str = "model.",
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in ours.items():
        own, old, default = value, theirs.get(key), plain.get(key)
        if isinstance(own, Mapping) and isinstance(old, Mapping) and isinstance(default, Mapping):
            merged[key] = _merge(own, old, default, given, init, f"{prefix}{key}.")
        elif (own is None or own == default) and f"{prefix}{key}" not in given:
            merged[key] = old
        elif own == old or key in FREE:
            merged[key] = own
        else:
            raise ConfigError(f"{init}: it has {prefix}{key}={old}, this run asks for {own}; leave {prefix}{key} out")
    return merged
