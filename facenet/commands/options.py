"""What the options of every command have, and those that several share."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class CommandOptions(Options):
    """The base of every command's options."""

    plugins: tuple[str, ...] = option((), resumable=True, help="modules to import first: they may register_net, ...")


@dataclass(frozen=True, kw_only=True)
class EncoderUse(Options):
    """How an encoder is run."""

    detector: str | None = option(None, help="none: pictures are faces already; null: as the encoder was trained")
    device: str = option("auto", help="auto, cpu, cuda")
