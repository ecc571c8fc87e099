"""The folder of an encoder whose network is torch's: ``encoder.safetensors`` (weights) and ``encoder.json`` (the rest).

The fingerprint is computed anew at every load. Nothing is unpickled. A network is built without memory of its own
first, so that a record can not ask for more memory than the weights beside it take.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.ensemble import NAME, Ensemble
from facenet.encoders.onnx_net import OnnxNet
from facenet.encoders.record import FILE, SCHEMA, notes_of, write_record
from facenet.errors import ConfigError, DataError, FacenetError, one_line
from facenet.files import atomic_write, read_bytes, read_sealed
from facenet.models.build import build_recorded
from facenet.models.options import depends_on_edition, edition_of

WEIGHTS = "encoder.safetensors"
Net = TypeVar("Net", bound=torch.nn.Module)


def save_bundle(encoder: Encoder, folder: str | Path) -> None:
    """Write the folder; ``encoder.json`` comes last, each file atomically.

    Raises:
        ConfigError: the encoder is an ONNX graph, which has a file of its own, or its options are not those of its net.
    """
    if isinstance(encoder.model, OnnxNet):
        raise ConfigError(f"{encoder.name}: an ONNX encoder has no weights to save; copy its file")
    edition, recorded = getattr(encoder.model, "edition", None), edition_of(encoder.options)
    if edition not in (None, recorded) and depends_on_edition(encoder.options):
        raise ConfigError(
            f"{encoder.name}: its net is of edition {edition}, its options say {recorded}; give options={{...,"
            f' "edition": {edition}}}'
        )
    write_weights(encoder.model, Path(folder) / WEIGHTS)
    write_record(encoder, folder)


def load_bundle(folder: str | Path, *, device: str = "cpu") -> Encoder:
    """Read the folder and check it against its fingerprint.

    Raises:
        DataError: a file is missing, damaged, foreign or of another schema.
        ConfigError: `device` can not be used here.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such encoder folder; facenet train writes one into its run folder")
    record = read_sealed(folder / FILE)
    if record.get("schema") != SCHEMA:
        raise DataError(f"{folder}/{FILE}: schema {record.get('schema')!r}, this version reads {SCHEMA}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise DataError(f"{weights}: no such file; the bundle is incomplete")
    try:
        name, options = record["model"]["name"], dict(record["model"]["options"])
        preprocess = Preprocess.from_dict(record["preprocessing"])
        model = read_weights(lambda: _build(name, options), weights).to(memory_format=torch.channels_last)
        read = {view.size for view in preprocess.views}
        if tuple(model.every_view) != preprocess.views if isinstance(model, Ensemble) else len(read) > 1:
            raise ConfigError("preprocessing: its views are not those that the network reads")
        encoder = Encoder(model, name, options, preprocess, *notes_of(record))
    except DataError:
        raise
    except FacenetError as error:
        raise DataError(f"{folder}: not a usable encoder ({one_line(error)})") from error
    except Exception as error:  # torch and wrong JSON types raise many kinds
        raise DataError(f"{folder}: damaged encoder ({one_line(error)}); train or copy it again") from error
    if encoder.fingerprint != record.get("fingerprint"):
        raise DataError(f"{folder}: weights or settings do not match the recorded fingerprint; copy the bundle again")
    model.to(pick_device(device))
    return encoder


def _build(name: str, options: Mapping[str, Any]) -> torch.nn.Module:
    """Build the network of a record."""
    if name == NAME:
        return Ensemble(**options)
    return build_recorded(name, **{**options, "input_size": tuple(options["input_size"])})


def write_weights(module: torch.nn.Module, path: Path) -> None:
    """Write the tensors of a network as safetensors, atomically."""
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save_tensors(state))


def read_weights(build: Callable[[], Net], path: Path) -> Net:
    """Build a network, without memory of its own, and give it the tensors of a file that fits it.

    Raises:
        DataError: a damaged file, or other tensors than the network's.
    """
    try:
        tensors = load_tensors(read_bytes(path))
    except DataError:
        raise
    except Exception as error:  # safetensors has an error of its own, and lets others through
        raise DataError(f"{path}: damaged ({one_line(error)}); copy it again") from error
    with torch.device("meta"):
        model = build()
    wanted, found = (
        {key: (str(value.dtype).removeprefix("torch."), list(value.shape)) for key, value in state.items()}
        for state in (model.state_dict(), tensors)
    )
    for key in sorted({*wanted, *found}):
        if wanted.get(key) != found.get(key):
            here, there = (" ".join(map(str, side[key])) if key in side else "none" for side in (found, wanted))
            raise DataError(
                f"{path}: damaged, or of another network: {key[:80]} is {here}, its record asks for {there}"
            )
    model.load_state_dict(tensors, assign=True)
    if any(buffer.is_meta for buffer in model.buffers()):  # a net from outside computes some when it is built
        model = build()
        model.load_state_dict(tensors)
    return model


def pick_device(device: str) -> torch.device:
    """Return cuda, else mps, else cpu for "auto"; any other name is taken as it is.

    Raises:
        ConfigError: the device can not be used here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", 0))  # ranks of one machine take a GPU each
            return torch.device("cuda", local % torch.cuda.device_count()) if local else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device!r} can not be used here ({reason}); use auto or cpu") from error
