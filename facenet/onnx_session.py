"""ONNX models opened by onnxruntime on the CPU (extras `align`, `pretrained`, `export`); nothing is downloaded."""

from __future__ import annotations

import os
from typing import Any

from facenet.errors import DataError
from facenet.foreign import install


def session(data: bytes, *, threads: int | None = None) -> Any:
    """Open a model; `threads` None is one a core.

    Raises:
        DataError: onnxruntime is not installed, or can not read the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DataError(f"onnxruntime is not installed; run: {install('pretrained')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ())
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"onnxruntime can not read the model ({reason})") from error
