"""The encoder: a network with its preprocessing, images in, unit vectors out.

The network is either a torch module or an ONNX graph. An encoder with an ONNX graph never loads torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from facenet.data.preprocess import Preprocess
from facenet.data.views import View, place
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import DataError
from facenet.vectors import UNIT_TOLERANCE, square_norms

if TYPE_CHECKING:
    from torch import Tensor, nn

AT_ONCE = 32  # images that a torch network sees at a time on a CPU: 256 take gigabytes and are no faster
SAME = 1e-10  # sq_dist up to which the vectors of two test images count as equal: far below those of any trained net


@dataclass
class Encoder:
    """A trained network with its preprocessing: images in, unit vectors (N, D) out.

    Attributes:
        model: A torch module, which is put into evaluation mode, or an ONNX graph.
        name: The network's key in :data:`facenet.models.registry.NETS`, or the name of a pretrained network.
        options: The options that the network was built with.
        preprocess: What happens to an image before the network.
        thresholds: Calibrated squared distances by false accept rate: {far: sq_dist}.
        compatible_with: Fingerprints of encoders whose galleries this encoder may join.
        training: Summary of the run that made the encoder.
        with_older: Calibrated squared distances to vectors of an older encoder, by its fingerprint.
        calibration: What `thresholds` were calibrated on: folder, people, faces; {} if unknown.
        fingerprint: See :func:`fingerprint`. A given one is kept: an exported file has that of its encoder.
    """

    model: nn.Module | OnnxNet
    name: str
    options: dict[str, Any]
    preprocess: Preprocess
    thresholds: dict[float, float] = field(default_factory=dict)
    compatible_with: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    with_older: dict[str, dict[float, float]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    _tells_apart: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Put the network into evaluation mode and compute the fingerprint, unless it is given."""
        if not isinstance(self.model, OnnxNet):
            self.model.eval()
        if not self.fingerprint:
            self.fingerprint = fingerprint(self.model.state_dict(), self.name, self.options, self.preprocess)

    @property
    def drawn(self) -> bool:
        """Whether the encoder has learned drawn faces alone, which teach nothing about photographs."""
        return self.training.get("data") == "synthetic"

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self.options["embedding_dim"])

    def embed(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Embed paths, PIL images or uint8 arrays (H, W, 3): float32 unit rows (N, D), (0, D) for none.

        A single image, in no list, gives one row (1, D). :func:`facenet.embed_folder` leaves unreadable images out.

        Raises:
            DataError: an image can not be read or shows no face (the message has its path or its place); or
                as :meth:`embed_batch`.
        """
        if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) == 3:
            images = [images]
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            parts.append(self.embed_batch(self.preprocess(images[start : start + batch_size], first=start)))
        return np.concatenate(parts)

    def embed_batch(self, images: np.ndarray | Tensor, *, names: Sequence[str] = ()) -> np.ndarray:
        """Embed normalised float32 images (B, 3, H, W): (B, D) float32; `names` (B,) may be named in an error.

        The first call embeds two test images as well, which have nothing in common.

        Raises:
            DataError: the network returns the same vector for both test images, vectors of another width, or a vector
                that is not finite or not of unit length.
        """
        if not self._tells_apart:
            first, second = self._checked(self._run(self.preprocess.normalise(_test_images(*self.preprocess.size))))
            if not ((first - second) ** 2).sum() > SAME:
                raise DataError(
                    f"{self._label}: it gives one vector to two images that have nothing in common; its weights or its"
                    " preprocessing are broken, train or export it again"
                )
            self._tells_apart = True
        return self._checked(self._run(images), names)

    def _run(self, images: np.ndarray | Tensor) -> np.ndarray:
        if isinstance(self.model, OnnxNet):
            return self.model.embed(np.asarray(images), mirror=self.preprocess.mirror)
        import torch

        views = () if "members" in self.options else self.preprocess.views  # an ensemble cuts them itself
        device = next(itertools.chain(self.model.parameters(), self.model.buffers())).device
        # parts of nearly one size: kernels give the same bits for 16 images or more, others for a few
        count = max(1, math.ceil(len(images) / AT_ONCE)) if device.type == "cpu" else 1
        with torch.inference_mode():
            found = []
            for part in torch.as_tensor(images).tensor_split(count):
                given = part.to(device, memory_format=torch.channels_last)
                found.append(encode(self.model, given, mirror=self.preprocess.mirror, views=views).float().cpu())
            return torch.cat(found).numpy()

    def _checked(self, vectors: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """Return `vectors` (B, D), all finite and of unit length; raises DataError otherwise."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            given = vectors.shape[1:]
            raise DataError(
                f"{self._label}: it gives {given} numbers for an image, expected {self.dim}; export it again"
            )
        norms = np.sqrt(square_norms(vectors))
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # NaN is not
        if len(bad):
            of = f", the first of {names[bad[0]]}" if names else ""
            raise DataError(
                f"{self._label}: {len(bad)} of its {len(vectors)} vectors are not of unit length (norm"
                f" {norms[bad[0]]:.3g}{of}); its weights or its preprocessing are broken, train or export it again"
            )
        return vectors

    @property
    def _label(self) -> str:
        return f"encoder {self.name} ({self.fingerprint[:12]})"

    def threshold(self, far: float) -> float:
        """Return the squared distance calibrated for a false accept rate; between two such rates linear in log(far).

        Raises:
            DataError: the rate is smaller or larger than the calibrated ones; the message lists them.
        """
        rates = sorted(self.thresholds)
        for known in rates:
            if abs(known - far) <= 1e-9 + 1e-6 * far:
                return self.thresholds[known]
        if rates and rates[0] < far < rates[-1]:
            measured = np.maximum.accumulate([self.thresholds[known] for known in rates])
            return float(np.interp(np.log(far), np.log(rates), measured))
        raise DataError(
            f"encoder {self.fingerprint[:12]}: no threshold for far={far:g} (calibrated:"
            f" {', '.join(f'{known:g}' for known in rates) or 'none'});"
            " run facenet calibrate, or choose a rate between these"
        )


def _test_images(height: int, width: int) -> np.ndarray:
    """Draw two pictures (2, 3, H, W) uint8, of 16 coloured squares each."""
    squares = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    return squares[:, :, rows][..., columns]


def encode(model: nn.Module, images: Tensor, *, mirror: bool, views: Sequence[View] = ()) -> Tensor:
    """Embed normalised images (B, 3, H, W): unit vectors (B, D), averaged over views and mirror images if asked.

    `views` are those that a tall image holds, see :mod:`facenet.data.views`; none: the image is the only one.
    """
    return average(model, views_of(images, views) if views else [images], mirror=mirror)


def average(model: nn.Module, parts: Sequence[Tensor], *, mirror: bool) -> Tensor:
    """Embed some views (B, 3, H, W) of the same images, and their mirror images if asked: unit vectors (B, D)."""
    from torch.nn.functional import normalize

    given = [image for part in parts for image in ((part, part.flip(-1)) if mirror else (part,))]
    embeddings: Tensor = model(given[0])
    if len(given) == 1:
        return embeddings
    for image in given[1:]:
        embeddings = embeddings + model(image)
    return normalize(embeddings, dim=-1, eps=1e-4)


def views_of(images: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Return the views that tall images (B, 3, H, W) hold."""
    return [images[..., rows, columns] for rows, columns in place(views)]


def fingerprint(state: Mapping[str, Any], name: str, options: Mapping[str, Any], preprocess: Preprocess) -> str:
    """Return the SHA-256 (64 hex digits) over weights, the model's name and options, and preprocessing.

    `state` names tensors or arrays. Nothing else is covered: calibrated thresholds or a longer summary of the training
    never change the fingerprint.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([name, dict(options), preprocess.to_dict()], sort_keys=True).encode())
    for key in sorted(state):
        kind, shape, content = _plain(state[key])
        digest.update(f"\n{key} {kind} {shape}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _plain(value: Tensor | np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Return type, shape and bytes of a tensor, or of an array under the name that torch gives its type."""
    if isinstance(value, np.ndarray):
        return f"torch.{value.dtype}", value.shape, value.tobytes()
    import torch

    tensor = value.detach().cpu().contiguous()
    return str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
