"""Weights of other packages: only the one known content is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet import foreign as package_models
from facenet.errors import ConfigError, DataError
from facenet.foreign import PACKAGE_MODELS, package_model


def test_the_known_files_are_found() -> None:
    assert len(package_model("yunet")) == 122_489
    assert len(package_model("sface")) == 10_667_852


def test_missing_changed_and_unknown_ones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        package_model("yunett")
    changed = PACKAGE_MODELS["yunet"]._replace(sha256="00" * 32)
    for model, said in (
        (changed, r"SHA-256 differs\); run: pip install"),
        (
            changed._replace(package="no_such_package"),
            r"no_such_package is not installed; run: pip install -e '\.\[align\]'",
        ),
        (changed._replace(path="models/gone.onnx"), r"gone\.onnx: can not be read"),
    ):
        monkeypatch.setattr(package_models, "PACKAGE_MODELS", {"yunet": model})
        with pytest.raises(DataError, match=said):
            package_model("yunet")
