"""Whatever `encoder=` names is found, and what is not is told with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet import bundle, encoders
from facenet.errors import ConfigError, DataError
from tests.test_bundle import make


def test_folders_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.save(make(), tmp_path / "sface")
    monkeypatch.chdir(tmp_path)
    assert encoders.load("sface").name == "sface"
    assert encoders.load("./sface").name == "small"
    with pytest.raises(DataError, match=r"no such encoder folder \(did you mean 'sface'\?\).*pretrained: sface"):
        encoders.load("sfac")


def test_a_detector_can_be_left_out_but_not_exchanged(tmp_path: Path) -> None:
    found, plain = encoders.load("sface"), encoders.load("sface", detector="none")
    assert found.preprocess.align is not None
    assert plain.preprocess.align is None
    assert plain.fingerprint == found.fingerprint, "the images are the same, cut before"
    assert encoders.load("sface", detector="yunet").preprocess == found.preprocess
    bundle.save(make(), tmp_path / "e")
    assert encoders.load(tmp_path / "e", detector="none").preprocess.align is None
    with pytest.raises(ConfigError, match="reads cropped faces; cut them out of photos with scripts/align"):
        encoders.load(tmp_path / "e", detector="yunet")
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        encoders.load("sface", detector="yunt")
