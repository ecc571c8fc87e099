"""What the options of every command have."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from facenet.errors import ConfigError
from facenet.options import Options, option

MODULES = {"import": "import_weights"}  # of commands whose names are words of Python
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


def refuse_unread(*rows: tuple[str, object, object, str]) -> None:
    """Raise ConfigError for an option that is given, while nothing is asked for that reads it.

    Each row is the option's name, whether it is given, whether what reads it is asked for, and what that is.
    """
    for name, given, asked, what in rows:
        if given and not asked:
            raise ConfigError(f"{name}: it is for {what}, which is not asked for; ask for that, or leave {name} out")


def warn_of_drawn_faces(encoder: Any, images: Iterable[Any]) -> None:
    """Say in one line that an encoder of drawn faces meets photographs, which JPEG, WebP and HEIC files are."""
    if encoder.drawn and any(str(image).lower().endswith(PHOTOGRAPHS) for image in images):
        print(
            "warning: this encoder has learned drawn faces alone and can not tell people in photographs apart; train on"
            " photographs, or take encoder=sface",
            file=sys.stderr,
        )


def command_module(name: str) -> ModuleType:
    """Import the module of a command; it has ``run`` and ``main``."""
    return importlib.import_module(f"facenet.commands.{MODULES.get(name, name)}")
