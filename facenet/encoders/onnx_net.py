"""An ONNX graph as the network of an encoder: run by onnxruntime on the CPU, without torch.

Needs the package `onnxruntime` (extras `export`, `align`, `pretrained`); nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from facenet.encoders.onnx_apart import SessionApart
from facenet.errors import DataError, one_line
from facenet.foreign import open_session

AT_ONCE = 16  # images of a run: 32 take 200 MB more and give the same vectors
LANES = 8


class SessionHere:
    """The session of a known graph, in this process: as :class:`~facenet.encoders.onnx_apart.SessionApart`."""

    def __init__(self, data: bytes, *, threads: int | None = None) -> None:
        self._session = open_session(data, threads=threads)
        self._name = self._session.get_inputs()[0].name
        self.inputs, self.outputs = (
            [(item.type, item.shape) for item in side]
            for side in (self._session.get_inputs(), self._session.get_outputs())
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the first output (B, ...) for images (B, 3, H, W) float32; raises DataError if the graph fails."""
        try:
            found: np.ndarray = self._session.run(None, {self._name: np.ascontiguousarray(images)})[0]
        except Exception as error:  # onnxruntime raises many kinds
            raise DataError(f"onnxruntime can not run the model ({one_line(error)}); export it again") from error
        return found


Session = SessionHere | SessionApart


class OnnxNet:
    """Images (B, 3, H, W) to unit vectors (B, D); the session is opened at first use.

    `mirrors` says that the graph averages over the mirror image itself, so that an encoder does not do it again.
    `shape` (H, W, D), if given, is what the graph has to read and give. `apart` runs a graph of unknown origin in a
    process of its own, see :mod:`facenet.encoders.onnx_apart`.
    """

    def __init__(
        self,
        data: bytes,
        *,
        threads: int | None = None,
        identity: str | None = None,
        mirrors: bool = False,
        shape: tuple[int, int, int] | None = None,
        apart: bool = False,
    ) -> None:
        """Take the bytes of an ONNX file; `identity` is 64 hex digits if the file's own hash is not meant."""
        self.mirrors = mirrors
        self.identity = identity or hashlib.sha256(data).hexdigest()
        self._data, self._threads, self._shape, self._apart = data, threads, shape, apart
        self._opened: tuple[int, Session] | None = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return what identifies the network in an encoder's fingerprint: the SHA-256 of its file, in bytes."""
        return {"identity": np.frombuffer(bytes.fromhex(self.identity), np.uint8)}

    @property
    def session(self) -> Session:
        """The open model; a forked process opens its own. Raises DataError if it is none of the stated shape."""
        if self._opened is None or self._opened[0] != os.getpid():
            opened = (SessionApart if self._apart else SessionHere)(self._data, threads=self._threads)
            if self._shape is not None:
                _check(opened, *self._shape)
            self._opened = (os.getpid(), opened)
        return self._opened[1]

    def embed(self, images: np.ndarray, *, mirror: bool = False) -> np.ndarray:
        """Embed normalised images (B, 3, H, W): (B, D), averaged with the mirror images' if asked."""
        vectors = self(images)
        if mirror and not self.mirrors:
            vectors = unit(vectors + self(images[..., ::-1]))
        return vectors

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the graph on images (B, 3, H, W) and scale its vectors (B, D) to length 1."""
        opened, images = self.session, np.asarray(images, np.float32)
        starts = range(0, max(1, len(images)), AT_ONCE)
        try:
            return unit(np.concatenate([opened.run(images[at : at + AT_ONCE]) for at in starts]))
        except BaseException:
            self._opened = None  # the child is gone, or waits with half of an answer
            raise

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it can not be copied."""
        return {**self.__dict__, "_opened": None}


def unit(vectors: np.ndarray, eps: float = 1e-4) -> np.ndarray:
    """Scale `vectors` (..., D) float32 to unit length; those shorter than `eps` are divided by it.

    The squares are summed in eight lanes, and the lanes from left to right: the order of torch's `normalize` on a CPU
    with AVX2. So the vectors are, to the last bit, those that galleries hold of the same graph run through torch.
    """
    squares, whole = vectors * vectors, vectors.shape[-1] // LANES * LANES
    lanes = np.zeros((*vectors.shape[:-1], LANES), np.float32)
    for at in range(0, whole, LANES):
        lanes += squares[..., at : at + LANES]
    total = np.zeros(vectors.shape[:-1], np.float32)
    for column in (*np.moveaxis(lanes, -1, 0), *np.moveaxis(squares[..., whole:], -1, 0)):
        total += column
    found: np.ndarray = vectors / np.maximum(np.sqrt(total), np.float32(eps))[..., None]
    return found


def _check(opened: Session, height: int, width: int, dim: int) -> None:
    read, given = ([(kind, shape[1:]) for kind, shape in side] for side in (opened.inputs, opened.outputs))
    if read != [("tensor(float)", [3, height, width])] or given != [("tensor(float)", [dim])]:
        raise DataError(
            f"its graph maps {str(read)[:200]} to {str(given)[:200]}, its record says images (B, 3, {height}, {width})"
            f" to (B, {dim}); export it again"
        )
