"""An encoder to the Hugging Face Hub, with its card; from there it is ``encoder=hf:ORG/NAME@COMMIT``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import table
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class PushOptions(CommandOptions):
    """Options of ``push``."""

    encoder: str = option(help="encoder folder, with its README.md")
    repo: str = option(help="repository: ORG/NAME; it is made if there is none")
    private: bool = option(True, help="whether a repository that is made is private")
    message: str = option("Update the encoder", help="of the commit")
    license: str | None = option(None, help="of the weights, as the hub names it (mit, cc-by-nc-4.0, other)")
    license_name: str | None = option(None, help="of license=other")
    license_link: str | None = option(None, help="where the licence stands")
    base_model: str | None = option(None, help="repository of the model that it started from")


def run(options: PushOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders.hub import push_to_hub

    card = {key: getattr(options, key) for key in ("license", "license_name", "license_link", "base_model")}
    address = push_to_hub(
        options.encoder,
        options.repo,
        private=options.private,
        message=options.message,
        card={key: value for key, value in card.items() if value is not None},
    )
    table([("encoder", options.encoder), ("pushed to", address)], title="push")
    return {"repo": options.repo, "address": address}


def main() -> None:
    launch("push", run)
