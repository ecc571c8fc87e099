"""Add embeddings to a gallery, remove items or people, choose its index, compact, export, show or check it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import progress, table

ACTIONS = ("add", "remove", "backfill", "kind", "factory", "recall_target", "compact", "export", "info", "check")


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError, DataError
    from facenet.gallery.gallery import Gallery

    if not any(config[key] for key in ACTIONS):
        raise ConfigError(
            "index: nothing to do; pass add=EMBEDDINGS, remove=ID_OR_IDENTITY, backfill=EMBEDDINGS, kind=KIND, "
            "compact=true, export=npy out=DIR, info=true or check=true"
        )
    if bool(config["export"]) != bool(config["out"]):
        raise ConfigError("index: export=npy, parquet or qdrant and out=PATH go together")
    if config["backfill"] and not config["encoder"]:
        raise ConfigError("index: backfill=EMBEDDINGS needs encoder=DIR, whose record says what it may replace")
    metrics: dict[str, Any] = {}
    started = time.perf_counter()
    given = read(config) if config["add"] else None  # before a gallery is made for it
    with Gallery.open(config["gallery"], create=bool(config["add"])) as gallery:
        if given is not None:
            metrics |= gallery.add(given[0], on_duplicate=config["on_duplicate"], **given[1])._asdict()
        if config["remove"]:
            metrics["removed"] = gallery.remove(config["remove"], by=config["by"])
        if config["backfill"]:
            metrics |= backfill(gallery, config)
        if any(config[name] is not None for name in ("kind", "factory", "recall_target")):
            metrics["rebuilt"] = choose_index(gallery, config)
        if config["compact"]:
            metrics |= gallery.compact()
        if config["check"]:
            problems = gallery.check()
            if problems:
                raise DataError(f"{config['gallery']}: {'; '.join(problems)}")
            metrics["problems"] = 0
        if config["export"]:
            from facenet.gallery.exchange import export

            with progress("exporting") as told:
                options = {"collection": config["collection"], "progress": told}
                metrics["exported"] = export(gallery, config["export"], config["out"], **options)
        gallery.save_cache()
        metrics |= {"seconds": time.perf_counter() - started, **gallery.info()}
    table([(key, str(v) if isinstance(v, list | dict) else v) for key, v in metrics.items()], title="index")
    return metrics


def read(config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the embeddings to add, and their ids, metadata and the encoders they may stand beside."""
    from facenet.encoders.lookup import read_record
    from facenet.gallery.exchange import read_embeddings, read_metadata

    embeddings, compatible = read_embeddings(config["add"], read_record(config["encoder"]))
    ids, metadata = read_metadata(config["metadata"], embeddings.paths) if config["metadata"] else (None, None)
    return embeddings, {"ids": ids, "metadata": metadata, "compatible_with": compatible}


def backfill(gallery: Any, config: dict[str, Any]) -> dict[str, int]:
    from facenet.encoders.lookup import read_record
    from facenet.gallery.exchange import read_embeddings

    embeddings, compatible = read_embeddings(config["backfill"], read_record(config["encoder"]))
    with progress("backfilling") as told:
        return dict(gallery.backfill(embeddings, compatible_with=compatible, progress=told)._asdict())


def choose_index(gallery: Any, config: dict[str, Any]) -> bool:
    """Change what is given of kind, factory string and recall target; a kind replaces a factory string."""
    before = gallery.recipe
    factory = config["factory"] if config["factory"] is not None else "" if config["kind"] else before.factory
    target = before.recall_target if config["recall_target"] is None else config["recall_target"]
    gallery.configure(config["kind"] or before.kind, factory=factory, recall_target=target)
    return bool(gallery.save_cache(force=gallery.recipe != before))


def main() -> None:
    launch("index", run)
