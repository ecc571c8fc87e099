"""Whatever `encoder=` names: a bundle's folder, an exported ONNX file, or a pretrained net by its name."""

from __future__ import annotations

from pathlib import Path

from facenet import bundle, pretrained
from facenet.bundle import Encoder
from facenet.errors import DataError, nearest
from facenet.pretrained import PRETRAINED


def load(encoder: str | Path, *, device: str = "cpu") -> Encoder:
    """Return the encoder; a pretrained net's name goes before a folder of that name (say ``./sface`` for that).

    Raises:
        DataError: nothing of that name, a damaged bundle or file, or a package that is not installed.
    """
    if str(encoder) in PRETRAINED:
        return pretrained.load(str(encoder))
    if not Path(encoder).exists():
        names = ", ".join(sorted(PRETRAINED))
        hint = nearest(str(encoder), PRETRAINED)
        raise DataError(
            f"{encoder}: no such encoder folder{hint}; scripts/train.py writes one into its run folder"
            f" (pretrained: {names})"
        )
    return bundle.load(encoder, device=device)
