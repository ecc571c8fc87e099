"""The encoder on disk: ``encoder.safetensors`` (weights) and ``encoder.json`` (everything else).

The fingerprint is the SHA-256 over weights, model name and options, and preprocessing, and nothing else:
calibrating thresholds or training it further on paper never changes it. It is recomputed at every load, and
``encoder.json`` is sealed, so a file that was changed or damaged does not load. Nothing is unpickled, and a network is
built without memory first: a record can not ask for more than the weights beside it take.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from facenet.data.preprocess import Preprocess
from facenet.errors import ConfigError, DataError, FacenetError, one_line
from facenet.files import atomic_write, read_bytes, read_sealed, sha256_file, write_sealed
from facenet.models.build import build_model
from facenet.models.linear_attention import TrackPool

SCHEMA = 1
DEVICES = ("auto", "cpu", "cuda", "mps")
Net = TypeVar("Net", bound=torch.nn.Module)


@dataclass
class Encoder:
    """A trained network with its preprocessing: images in, unit vectors (N, D) out.

    Attributes:
        model: The network, in evaluation mode.
        name: Its key in :data:`facenet.models.registry.NETS`.
        options: The options it was built with.
        preprocess: What happens to an image before the network.
        thresholds: Calibrated squared distances by false accept rate: {far: sq_dist}.
        compatible_with: Fingerprints of encoders whose galleries this one may join.
        training: Summary of the run that made it.
        fingerprint: See :func:`fingerprint`; kept where it is given, as by an exported file of the same network.
    """

    model: torch.nn.Module
    name: str
    options: dict[str, Any]
    preprocess: Preprocess
    thresholds: dict[float, float] = field(default_factory=dict)
    compatible_with: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Put the network into evaluation mode and compute the fingerprint, unless it is given."""
        self.model.eval()
        if not self.fingerprint:
            self.fingerprint = fingerprint(self.model.state_dict(), self.name, self.options, self.preprocess)

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self.options["embedding_dim"])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.model.parameters(), self.model.buffers())).device

    def embed(self, images: Sequence[Any] | np.ndarray | Tensor, *, batch_size: int = 256) -> np.ndarray:
        """Embed paths, PIL images or uint8 arrays (H, W, 3): float32 unit rows (N, D), (0, D) for none.

        Raises:
            DataError: an image can not be read.
        """
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            parts.append(self.embed_batch(self.preprocess(images[start : start + batch_size])))  # type: ignore[arg-type]
        return np.concatenate(parts)

    def embed_batch(self, images: Tensor) -> np.ndarray:
        """Embed normalised images (B, 3, H, W): (B, D) float32."""
        mirror = self.preprocess.mirror and not getattr(self.model, "mirrors", False)
        with torch.inference_mode():
            images = images.to(self.device, memory_format=torch.channels_last)
            return encode(self.model, images, mirror=mirror).float().cpu().numpy()

    def threshold(self, far: float) -> float:
        """Return the squared distance calibrated for a false accept rate.

        Raises:
            DataError: it was not calibrated for this rate; the message lists the rates it has.
        """
        for known, sq_dist in self.thresholds.items():
            if abs(known - far) <= 1e-9 + 1e-6 * far:
                return sq_dist
        rates = ", ".join(f"{far:g}" for far in sorted(self.thresholds)) or "none"
        raise DataError(
            f"encoder {self.fingerprint[:12]}: no threshold for far={far:g} (calibrated: {rates});"
            " run scripts/verify.py calibrate=true or choose a rate it has"
        )


def encode(model: torch.nn.Module, images: Tensor, *, mirror: bool) -> Tensor:
    """Embed normalised images (B, 3, H, W): unit vectors (B, D), averaged with the mirror images' if asked."""
    embeddings: Tensor = model(images)
    if mirror:
        embeddings = torch.nn.functional.normalize(embeddings + model(images.flip(-1)), dim=-1, eps=1e-4)
    return embeddings


def fingerprint(state: Mapping[str, Tensor], name: str, options: Mapping[str, Any], preprocess: Preprocess) -> str:
    """Return 64 hex digits that change with any weight, the model's name or options, or the preprocessing."""
    digest = hashlib.sha256()
    digest.update(json.dumps([name, dict(options), preprocess.to_dict()], sort_keys=True).encode())
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(encoder: Encoder, folder: str | Path) -> None:
    """Write the bundle; ``encoder.json`` comes last, each file atomically."""
    folder = Path(folder)
    _write_weights(encoder.model, folder / "encoder.safetensors")
    save_record(encoder, folder)


def _write_weights(module: torch.nn.Module, path: Path) -> None:
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save_tensors(state))


def save_record(encoder: Encoder, folder: str | Path) -> None:
    """Write ``encoder.json`` alone (after calibration, for instance); the weights stay as they are."""
    write_sealed(Path(folder) / "encoder.json", record_of(encoder))


def record_of(encoder: Encoder) -> dict[str, Any]:
    """Return everything about an encoder but its weights, as JSON knows it."""
    return {
        "schema": SCHEMA,
        "model": {"name": encoder.name, "options": encoder.options},
        "embedding_dim": encoder.dim,
        "preprocessing": encoder.preprocess.to_dict(),
        "fingerprint": encoder.fingerprint,
        "thresholds": {f"{far:g}": sq_dist for far, sq_dist in sorted(encoder.thresholds.items())},
        "compatible_with": list(encoder.compatible_with),
        "training": encoder.training,
    }


class Told(NamedTuple):
    """What a record says of an encoder beside its network, checked."""

    thresholds: dict[float, float]
    compatible_with: list[str]
    training: dict[str, Any]


def told(record: Mapping[str, Any]) -> Told:
    """Read thresholds, compatible encoders and summary of a record.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: they are none.
    """
    thresholds = {float(far): float(sq_dist) for far, sq_dist in record["thresholds"].items()}
    if not all(0 < far <= 1 and 0 <= sq_dist <= 4 for far, sq_dist in thresholds.items()):
        raise ValueError("expected thresholds {far in (0, 1]: sq_dist in [0, 4]}")
    known, training = record["compatible_with"], record["training"]
    if not isinstance(known, list) or not all(isinstance(item, str) for item in known):
        raise ValueError("expected a list of fingerprints as compatible_with")
    if not isinstance(training, dict):
        raise ValueError("expected a summary of the training")
    return Told(thresholds, list(known), dict(training))


def with_record(encoder: Encoder, folder: str | Path) -> Encoder:
    """Give an encoder whose weights are not in the folder the thresholds and compatible encoders that it records.

    Raises:
        DataError: a damaged record, or one of another encoder.
    """
    record = read_sealed(Path(folder) / "encoder.json")
    if record.get("schema") != SCHEMA or record.get("fingerprint") != encoder.fingerprint:
        raise DataError(f"{folder}: not a record of {encoder.name} as it is here; calibrate it again")
    try:
        encoder.thresholds, encoder.compatible_with, _ = told(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{folder}/encoder.json: damaged ({one_line(error)}); calibrate it again") from error
    return encoder


def load(folder: str | Path, *, device: str = "cpu") -> Encoder:
    """Read a bundle and check it against its fingerprint.

    Raises:
        DataError: a file is missing, damaged, foreign or of another schema.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such encoder folder; scripts/train.py writes one into its run folder")
    record = read_sealed(folder / "encoder.json")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{folder}/encoder.json: schema {record.get('schema')!r}, this version reads {SCHEMA}")
    weights = folder / "encoder.safetensors"
    if not weights.is_file():
        raise DataError(f"{weights}: no such file; the bundle is incomplete")
    try:
        name, options = record["model"]["name"], dict(record["model"]["options"])
        options["input_size"] = tuple(options["input_size"])
        preprocess = Preprocess.from_dict(record["preprocessing"])
        model = _filled(lambda: build_model(name, **options), weights)
        encoder = Encoder(
            model.to(memory_format=torch.channels_last),
            name,
            {**options, "input_size": list(options["input_size"])},
            preprocess,
            *told(record),
        )
    except DataError:
        raise
    except FacenetError as error:
        raise DataError(f"{folder}: not a usable encoder ({one_line(error)})") from error
    except Exception as error:  # torch and wrong JSON types raise many kinds
        raise DataError(f"{folder}: damaged encoder ({one_line(error)}); train or copy it again") from error
    if encoder.fingerprint != record.get("fingerprint"):
        raise DataError(f"{folder}: weights or settings do not match the recorded fingerprint; copy the bundle again")
    encoder.model.to(pick_device(device))
    return encoder


def _filled(build: Callable[[], Net], path: Path) -> Net:
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
    return model


def pick_device(device: str) -> torch.device:
    """Turn "auto" into cuda, else mps, else cpu; any other name is taken as it is.

    Raises:
        DataError: the device is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device!r} can not be used here ({reason}); use auto or cpu") from error


def save_track_pool(
    pool: TrackPool, folder: str | Path, encoder: Encoder, *, options: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Write ``track_pool.safetensors`` and, last, ``track_pool.json``: options, D, the encoder's fingerprint.

    `options` are those of :class:`~facenet.models.linear_attention.TrackPool` but `dim`; `training` is a summary.
    """
    folder = Path(folder)
    _write_weights(pool, folder / "track_pool.safetensors")
    record = {
        "schema": SCHEMA,
        "dim": encoder.dim,
        "options": dict(options),
        "encoder": encoder.fingerprint,
        "sha256": sha256_file(folder / "track_pool.safetensors"),
        "training": dict(training),
    }
    write_sealed(folder / "track_pool.json", record)


def load_track_pool(folder: str | Path, encoder: Encoder) -> TrackPool:
    """Read a TrackPool, in evaluation mode, for the encoder it was trained over.

    Raises:
        DataError: a file is missing, damaged or foreign, or it was trained over another encoder.
    """
    folder = Path(folder)
    record = read_sealed(folder / "track_pool.json")
    weights = folder / "track_pool.safetensors"
    if record.get("schema") != SCHEMA:
        raise DataError(f"{folder}/track_pool.json: schema {record.get('schema')!r}, this version reads {SCHEMA}")
    if record.get("encoder") != encoder.fingerprint:
        raise DataError(
            f"{folder}: trained over encoder {str(record.get('encoder'))[:12]}, not over {encoder.fingerprint[:12]};"
            " run scripts/tracks.py for this encoder"
        )
    if not weights.is_file() or record.get("sha256") != sha256_file(weights):
        raise DataError(f"{weights}: missing, or not the file its record names; run scripts/tracks.py again")
    try:
        pool = _filled(lambda: TrackPool(record["dim"], **record["options"]), weights)
    except DataError:
        raise
    except Exception as error:  # wrong JSON types raise many kinds
        raise DataError(f"{folder}: damaged ({one_line(error)}); run scripts/tracks.py again") from error
    if pool.dim != encoder.dim:
        raise DataError(f"{folder}: of width {pool.dim}, the encoder's is {encoder.dim}; run scripts/tracks.py again")
    return pool.eval().requires_grad_(False)  # so that a long stream keeps no graph
