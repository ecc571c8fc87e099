"""What the options of every command have, and the help text that follows from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from facenet.options import Options, describe, option

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


def help_text(name: str, options: type[Any], doc: str, conf: Path) -> str:
    """Return what a command does, example calls, the groups of ``conf/`` it takes, and each option.

    The examples are the first comment of ``conf/<name>.yaml``.
    """
    text = (conf / f"{name}.yaml").read_text() if (conf / f"{name}.yaml").is_file() else ""
    usage = [line.removeprefix("# ") for line in text.split("defaults:")[0].splitlines() if line.startswith("#")]
    lines = [" ".join(doc.split("\n\n")[0].split()), "", *usage, "", "options (KEY=VALUE; GROUP=CHOICE):"]
    for group in (line.strip(" -").split(":")[0] for line in text.splitlines() if line.startswith("  - ")):
        if (conf / group).is_dir() and "/" not in group:
            lines.append(f"  {group}=: {', '.join(sorted(path.stem for path in (conf / group).glob('*.yaml')))}")
    shared = {
        item.name
        for base in options.__mro__[1:]
        if base.__module__ == CommandOptions.__module__
        for item in fields(base)
    }
    for row in sorted(describe(options), key=lambda row: (row.name in shared, row.default is not MISSING)):
        default = "required" if row.default is MISSING else _shown(row.default)
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        lines.append(f"  {row.name}={default}  {row.help}{choices}".rstrip())
    lines.append("Hydra's own: -m for sweeps, --cfg job to print the options, hydra.run.dir=PATH for the run folder.")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def warn_of_drawn_faces(encoder: Any, images: Iterable[Any]) -> None:
    """Say in one line that an encoder of drawn faces meets photographs, which JPEG, WebP and HEIC files are."""
    if encoder.drawn and any(str(image).lower().endswith(PHOTOGRAPHS) for image in images):
        print(
            "warning: this encoder has learned drawn faces alone and can not tell people in photographs apart; train on"
            " photographs, or take encoder=sface",
            file=sys.stderr,
        )
