"""An exported encoder in 8 bits: convolutions and inner fully connected layers, weights by channel, activations static.

Ranges of activations are the least and largest on calibration faces. What stays in float32 is what loses much and
costs little: squares and roots of L2 pooling, attention, the embedding layer and the unit length. On a trained NN4 at
77x77, embeddings moved by 0.0003 (mean sq_dist) so, and by 0.0053 with everything in 8 bits, at the same speed.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import load_onnx, need, seal, unseal
from facenet.errors import DataError
from facenet.export.onnx import BATCHES, TOLERANCE, opened, quiet
from facenet.files import atomic_write, read_bytes

INT8_NODES = ("Conv", "Relu", "Gemm")
BATCH = 32
FAR_OFF = 0.05  # mean sq_dist to the float vectors above which nothing is written


def export_int8(
    source: str | Path, images: Tensor, path: str | Path, *, far_off: float = FAR_OFF, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Write the 8-bit variant of an exported file, calibrated on normalised images (N, 3, H, W).

    The variant is another encoder, with a fingerprint of its own made of the original's and its content. Thresholds and
    preprocessing are the original's. Nothing is written if the vectors move by more than `far_off` (mean sq_dist), or
    if they change by more than `tolerance` with their batch. Returns `bytes`, `fingerprint`, `calibration_images` and,
    over these images, `sq_dist_to_float` (`mean`, `most`).

    Raises:
        DataError: no images, no package, a damaged source, or vectors that are far from the float ones.
    """
    path = Path(path)
    if not len(images):
        raise DataError(f"{path}: not written; no image to calibrate 8 bits with, give images=DIR")
    need("onnx", "onnxruntime")
    source = Path(source)
    record = unseal(read_bytes(source), source)
    quantised = _quantise(source, images)
    digest = hashlib.sha256(f"{record['fingerprint']}\nint8\n".encode() + quantised).hexdigest()
    record["training"] = {**record["training"], "int8_of": record["fingerprint"]}
    record |= {"fingerprint": digest, "compatible_with": [], "graph": {**record["graph"], "precision": "int8"}}
    data = seal(quantised, record)
    plain = load_onnx(source)
    ours = opened(data, plain)
    check_batches(ours, images, path, tolerance)
    moved = _moved(plain, ours, images, path, far_off)
    with atomic_write(path) as file:
        file.write(data)
    counts = {"bytes": len(data), "fingerprint": digest, "calibration_images": len(images)}
    return {**counts, "sq_dist_to_float": {"mean": float(moved.mean()), "most": float(moved.max())}}


def _quantise(source: Path, images: Tensor) -> bytes:
    """Return the serialised 8-bit graph without a record."""
    import onnx
    from onnxruntime import quantization

    model = onnx.load(str(source))
    nodes = model.graph.node
    layers = [place for place, node in enumerate(nodes) if node.op_type == "Gemm"]
    last = layers[-1] if layers else len(nodes)  # the embedding layer, that of an ensemble's last member, or none
    members = [nodes[place].name for place in layers if re.search(r"embedding\.(0\.)?weight", nodes[place].input[1])]
    kept = [*members, *(node.name for node in nodes[last:])]
    del model, nodes
    with tempfile.TemporaryDirectory(prefix="facenet-int8-") as folder, quiet():
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            str(source),
            str(target),
            _faces(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(INT8_NODES),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        quantised = onnx.load(str(target))
    del quantised.metadata_props[:]  # the source's record among them
    return bytes(quantised.SerializeToString(deterministic=True))


def _faces(images: Tensor) -> Any:
    """Hand out the images as the quantiser asks for them, a batch at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images.split(BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.contiguous().numpy()}

    return Faces()


def check_batches(encoder: Encoder, images: Tensor, path: Path, tolerance: float) -> None:
    """Raise DataError if the vectors of some images depend on the batch that the images are in, or are NaN."""
    few = images[: max(BATCHES)]
    alone = np.concatenate([encoder.embed_batch(image[None]) for image in few])
    for size in BATCHES:
        together = encoder.embed_batch(few[:size])
        if not np.abs(together - alone[:size]).max() <= tolerance:  # also NaN
            raise DataError(f"{path}: not written; its vectors change with the batch they are in (of {size})")


def _moved(plain: Encoder, ours: Encoder, images: Tensor, path: Path, far_off: float) -> np.ndarray:
    """Return squared distances (N,) between 8-bit and float vectors of the images; raises DataError if they are far."""
    vectors = [(ours.embed_batch(part), plain.embed_batch(part)) for part in images.split(BATCH)]
    moved = np.concatenate([((one - two) ** 2).sum(1) for one, two in vectors])
    if not moved.mean() <= far_off:
        raise DataError(
            f"{path}: not written; its vectors are {moved.mean():.3g} (mean sq_dist) from the float ones, at most"
            f" {far_off} allowed; calibrate with more images, like those it will see"
        )
    return moved
