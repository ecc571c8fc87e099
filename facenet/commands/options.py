"""What the options of every command have."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from facenet.options import Options, option

PHOTOGRAPHS = (".jpg", ".jpeg", ".webp", ".heic", ".heif")


@dataclass(frozen=True, kw_only=True)
class CommandOptions(Options):
    """The base of every command's options."""

    plugins: tuple[str, ...] = option((), resumable=True, help="modules to import first: they may register_net, ...")


@dataclass(frozen=True, kw_only=True)
class EncoderUse(Options):
    """How an encoder is run."""

    detector: str | None = option(None, help="none: pictures are faces already; null: as the encoder was trained")
    device: str = option("auto", help="auto, cpu, cuda")


def warn_of_drawn_faces(encoder: Any, images: Iterable[Any]) -> None:
    """Say in one line that an encoder of drawn faces meets photographs, which JPEG, WebP and HEIC files are."""
    if encoder.drawn and any(str(image).lower().endswith(PHOTOGRAPHS) for image in images):
        print(
            "warning: this encoder has learned drawn faces alone and can not tell people in photographs apart; train on"
            " photographs, or take encoder=sface",
            file=sys.stderr,
        )
