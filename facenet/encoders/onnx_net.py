"""An ONNX file as a network that an Encoder holds: run by onnxruntime on the CPU.

Needs the package `onnxruntime` (extras `export`, `align`, `pretrained`); nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenet.errors import DataError, one_line
from facenet.foreign import session

AT_ONCE = 32  # images of a run: more take gigabytes and are no faster


class OnnxNet(nn.Module):
    """Images (B, 3, H, W) to unit vectors (B, D), without gradients; the session is opened at first use.

    What identifies it in a state dict, and so in an encoder's fingerprint, is `identity`: the SHA-256 of its file.
    `mirrors` says that its graph averages over the mirror image itself, so that an encoder does not do it again;
    `shape` (H, W, D), where given, is what the graph has to read and give.
    """

    identity: Tensor

    def __init__(
        self,
        data: bytes,
        *,
        threads: int | None = None,
        identity: str | None = None,
        mirrors: bool = False,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        """Take the bytes of an ONNX file; `identity` is 64 hex digits where the file's own hash is not meant."""
        super().__init__()
        self.mirrors = mirrors
        digits = identity or hashlib.sha256(data).hexdigest()
        self.register_buffer("identity", torch.from_numpy(np.frombuffer(bytes.fromhex(digits), np.uint8).copy()))
        self._data, self._threads, self._shape = data, threads, shape
        self._opened: tuple[int, Any] | None = None

    @property
    def session(self) -> Any:
        """The open model; a forked process opens its own. Raises DataError where it is none of the stated shape."""
        if self._opened is None or self._opened[0] != os.getpid():
            opened = session(self._data, threads=self._threads)
            if self._shape is not None:
                _check(opened, *self._shape)
            self._opened = (os.getpid(), opened)
        return self._opened[1]

    def forward(self, images: Tensor) -> Tensor:
        """Run the model and scale its vectors to length 1."""
        opened, name = self.session, self.session.get_inputs()[0].name
        given = images.detach().to("cpu", torch.float32).split(AT_ONCE)
        try:
            parts = [opened.run(None, {name: part.contiguous().numpy()})[0] for part in given]
        except Exception as error:  # onnxruntime raises many kinds
            raise DataError(f"onnxruntime can not run the model ({one_line(error)}); export it again") from error
        return nn.functional.normalize(torch.from_numpy(np.concatenate(parts)).to(images.device), dim=-1, eps=1e-4)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it can not be copied."""
        return {**self.__dict__, "_opened": None}


def _check(opened: Any, height: int, width: int, dim: int) -> None:
    read, given = ([(item.type, item.shape[1:]) for item in side()] for side in (opened.get_inputs, opened.get_outputs))
    if read != [("tensor(float)", [3, height, width])] or given != [("tensor(float)", [dim])]:
        raise DataError(
            f"its graph maps {read} to {given}, its record says images (B, 3, {height}, {width}) to (B, {dim});"
            " export it again"
        )
