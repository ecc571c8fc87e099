"""Add embeddings to a gallery, remove items or people, show or check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError, DataError
    from facenet.files import read_json
    from facenet.index import Gallery
    from facenet.types import EmbeddingSet

    if not any(config[key] for key in ("add", "remove", "info", "check")):
        raise ConfigError("index: nothing to do; pass add=EMBEDDINGS, remove=ID_OR_IDENTITY, info=true or check=true")
    compatible: list[str] = []
    if config["encoder"]:
        record = read_json(Path(config["encoder"]) / "encoder.json")
        compatible = [str(item) for item in record.get("compatible_with", [])]
    metrics: dict[str, Any] = {}
    with Gallery.open(config["gallery"], create=bool(config["add"])) as gallery:
        if config["add"]:
            embeddings = EmbeddingSet.load(config["add"])
            if config["encoder"] and embeddings.fingerprint != record.get("fingerprint"):
                raise DataError(f"{config['add']}: embedded by another encoder than {config['encoder']}; embed again")
            result = gallery.add(embeddings, on_duplicate=config["on_duplicate"], compatible_with=compatible)
            metrics |= result._asdict()
        if config["remove"]:
            metrics["removed"] = gallery.remove(config["remove"])
        if config["check"]:
            problems = gallery.check()
            if problems:
                raise DataError(f"{config['gallery']}: {'; '.join(problems)}")
            metrics["problems"] = 0
        metrics |= gallery.info()
    table(
        [(key, str(value) if isinstance(value, list | dict) else value) for key, value in metrics.items()],
        title="index",
    )
    return metrics


if __name__ == "__main__":
    launch("index", run)
