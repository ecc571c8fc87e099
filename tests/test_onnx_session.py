"""A model that can not be opened is one line that says what to do."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from facenet.errors import DataError
from facenet.onnx_session import session


def test_what_can_not_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="onnxruntime can not read the model"):
        session(b"no model")
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"not installed; run: pip install -e '\.\[pretrained\]'"):
        session(b"")
