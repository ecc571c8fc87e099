"""An encoder as one ONNX file that any runtime reads, and back: weights, preprocessing, thresholds, fingerprint.

Input `images` (B, 3, H, W) float32, RGB, normalised; output `embeddings` (B, D) of unit length. Batch norm is folded
into the convolutions, and averaging over the mirror image is a part of the graph, so that the file is complete. What
comes before, the record inside says (``preprocessing``): crop the central square, resize, (value / 255 - mean) / std.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder, views_of
from facenet.encoders.ensemble import Ensemble
from facenet.encoders.onnx_file import need, seal
from facenet.encoders.onnx_net import OnnxNet
from facenet.encoders.record import record_of
from facenet.errors import ConfigError, DataError
from facenet.files import atomic_write
from facenet.models.layers import ConvBlock

OPSET = 18  # what the exporter writes without converting, and runtimes since 2023 read
BATCHES = (1, 4, 7)
TOLERANCE = 1e-5
LONG = ("people",)  # of the training summary: hashes of everybody's name


class WholeNet(nn.Module):
    """All that happens after the preprocessing: images (B, 3, H, W) to unit embeddings (B, D)."""

    def __init__(self, net: nn.Module, preprocess: Preprocess) -> None:
        """Copy the network, in plain memory format, with batch norm folded into the convolutions."""
        super().__init__()
        self.mirror, self.views = preprocess.mirror, preprocess.views
        self.net = copy.deepcopy(net).cpu().to(memory_format=torch.contiguous_format)
        for block in self.net.modules():
            if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
                block.conv, block.norm = fuse_conv_bn_eval(block.conv, block.norm), nn.Identity()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embed the images; views and mirror images are one batch of a network, so that each layer is there once."""
        if isinstance(self.net, Ensemble):
            return self.net.joined([_as_one_batch(*member) for member in self.net.members(images)])
        return _as_one_batch(self.net, views_of(images, self.views) if self.views else [images], self.mirror)


def _as_one_batch(net: nn.Module, parts: Sequence[Tensor], mirror: bool) -> Tensor:
    """Do as :func:`~facenet.encoders.encoder.average`."""
    given = [*parts, *(part.flip(-1) for part in parts if mirror)]
    if len(given) == 1:
        return net(given[0])
    every = net(torch.cat(given))  # (V B, D)
    every = every.reshape(len(given), given[0].shape[0], every.shape[1])
    return nn.functional.normalize(every.sum(0), dim=-1, eps=1e-4)


def export_onnx(encoder: Encoder, path: str | Path) -> dict[str, Any]:
    """Write an encoder as ONNX, unless it differs from torch by more than :data:`TOLERANCE` at some batch size.

    The fingerprint is the encoder's own: the vectors are the same, and so are the galleries. Returns `bytes`, `opset`
    and `max_difference` by batch size.

    Raises:
        ConfigError: an encoder that is ONNX already.
        DataError: a package is missing, the vectors differ, or the file can not be written.
    """
    path = Path(path)
    network_of(encoder)
    need("onnx", "onnxscript", "onnxruntime")
    data = seal(graph(encoder), record(encoder))
    found = differences(encoder, data)
    check_differences(found, path)
    with atomic_write(path) as file:
        file.write(data)
    return {"bytes": len(data), "opset": OPSET, "max_difference": {str(size): value for size, value in found.items()}}


def check_differences(found: Mapping[int, float], path: Path) -> None:
    """Raise DataError if a file's vectors differ from torch's by more than :data:`TOLERANCE`."""
    if not all(value <= TOLERANCE for value in found.values()):
        listed = ", ".join(f"{value:.2g} at batch {size}" for size, value in found.items())
        raise DataError(f"{path}: not written; its vectors differ from torch's by {listed} ({TOLERANCE:g} allowed)")


def network_of(encoder: Encoder) -> nn.Module:
    """Return the torch network of an encoder; raises ConfigError if the encoder is ONNX already."""
    if isinstance(encoder.model, OnnxNet):
        raise ConfigError(f"{encoder.name}: this encoder is an ONNX file already; export the folder of a trained one")
    return encoder.model


def graph(encoder: Encoder) -> bytes:
    """Return the serialised graph, without traces of where it was made."""
    images = torch.zeros(2, 3, *encoder.preprocess.size)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            WholeNet(network_of(encoder), encoder.preprocess),
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("B")}},
        )
    assert program is not None
    model = program.model_proto
    inner = model.graph
    for part in (model, inner, *inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer):
        del part.metadata_props[:]  # files and lines of the network's source
        part.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))


def record(encoder: Encoder, **changes: Any) -> dict[str, Any]:
    """Return what goes into the file: ``encoder.json`` without long lists, and what the graph reads, does and gives."""
    height, width = encoder.preprocess.size
    content = record_of(encoder)
    content["training"] = {key: value for key, value in encoder.training.items() if key not in LONG}
    content["graph"] = {
        "input": f"images (B, 3, {height}, {width}) float32, RGB: (value / 255 - mean) / std",
        "output": f"embeddings (B, {encoder.dim}) float32, of unit length",
        "mirrors": encoder.preprocess.mirror,
        "precision": "float32",
    }
    return {**content, **changes}


def differences(encoder: Encoder, data: bytes) -> dict[int, float]:
    """Return the largest absolute difference of a file's vectors from the encoder's, by batch size."""
    ours, found = opened(data, encoder), {}
    for size in BATCHES:
        images = encoder.preprocess.normalise(pictures(size, encoder.preprocess.size))
        found[size] = float(np.abs(ours.embed_batch(images) - encoder.embed_batch(images)).max())
    return found


def opened(data: bytes, like: Encoder, *, threads: int | None = None) -> Encoder:
    """Return the content of a file, not written yet, as an encoder that stands for `like`."""
    net = OnnxNet(data, threads=threads, mirrors=like.preprocess.mirror)
    return Encoder(net, like.name, like.options, like.preprocess, fingerprint=like.fingerprint)


def pictures(count: int, size: tuple[int, int]) -> Tensor:
    """Draw pictures (count, 3, H, W) in [0, 255] that are smooth, as photographs are, with some noise."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    noise = torch.rand(count, 3, *size, generator=generator)
    return (255 * (0.9 * smooth + 0.1 * noise)).clamp(0, 255)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters and quantisers from talking about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
