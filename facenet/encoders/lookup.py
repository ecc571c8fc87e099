"""Whatever `encoder=` names: a bundle's folder, an exported ONNX file, or a pretrained net by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.encoders import bundle, model_card, onnx_record, pretrained
from facenet.encoders.bundle import Encoder
from facenet.encoders.pretrained import PRETRAINED
from facenet.errors import ConfigError, DataError, choose, nearest
from facenet.export import onnx as export
from facenet.faces.options import DETECTORS
from facenet.files import read_sealed


def load(encoder: str | Path, *, device: str = "cpu", detector: str | None = None) -> Encoder:
    """Return the encoder; a pretrained net's name goes before a folder of that name (say ``./sface`` for that).

    `detector` "none" says that its images are faces already, cut as its alignment would cut them; None: as it is.

    Raises:
        ConfigError: another detector than the encoder's.
        DataError: nothing of that name, a damaged bundle or file, or a package that is not installed.
    """
    found = _load(encoder, device)
    align = found.preprocess.align
    if detector not in (None, align.detector if align else "none"):
        choose(DETECTORS, str(detector), "detector")
        if detector != "none":
            raise ConfigError(
                f"detector={detector}: {encoder} reads cropped faces; cut them out of photos with scripts/align.py"
            )
        found.preprocess = found.preprocess.of(align)
    return found


def _load(encoder: str | Path, device: str) -> Encoder:
    if str(encoder) in PRETRAINED:
        return pretrained.load(str(encoder))
    if not Path(encoder).exists():
        names = ", ".join(sorted(PRETRAINED))
        hint = nearest(str(encoder), PRETRAINED)
        raise DataError(
            f"{encoder}: no such encoder folder{hint}; scripts/train.py writes one into its run folder"
            f" (pretrained: {names})"
        )
    if Path(encoder).is_file():
        return export.load(encoder)
    record = Path(encoder) / "encoder.json"
    model = read_sealed(record).get("model") if record.is_file() else None
    name = model.get("name") if isinstance(model, dict) else None
    if isinstance(name, str) and name in PRETRAINED:
        return bundle.with_record(pretrained.load(str(name)), encoder)
    return bundle.load(encoder, device=device)


def read_record(encoder: str | Path | None) -> dict[str, Any] | None:
    """Return what an encoder says of itself, None for none; a folder's or file's network is not opened for it.

    Raises:
        DataError: as :func:`load`.
    """
    if encoder is None:
        return None
    named = str(encoder) in PRETRAINED or not Path(encoder).exists()
    return bundle.record_of(load(encoder)) if named else onnx_record.read_record(encoder)


def save_record(encoder: Encoder, source: str | Path, out: str | Path) -> Path:
    """Keep what was calibrated for an encoder that :func:`load` found at `source`; returns the folder that has it.

    A bundle keeps it itself; for a pretrained net a folder ``out/encoder`` is made that names the net, and can be used
    as ``encoder=``.

    Raises:
        ConfigError: an exported file, which is what it is.
    """
    check_record(source)
    folder = Path(out) / "encoder" if encoder.name in PRETRAINED and str(source) in PRETRAINED else Path(source)
    bundle.save_record(encoder, folder)
    model_card.recalibrate(folder, encoder)
    return folder


def check_record(source: str | Path) -> None:
    """Raise ConfigError if what is calibrated for the encoder at `source` can not be kept there."""
    if Path(source).is_file():
        raise ConfigError(
            f"calibrate=true: {source} is an exported file, which is not changed; calibrate the folder it was made of"
            " and export that again"
        )
