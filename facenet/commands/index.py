"""Add to a gallery, remove or rename, choose its index, compact, copy, export, show or check it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.galleries import GALLERY, open_gallery
from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, refuse_unread
from facenet.console import progress, table
from facenet.gallery.engines.places import is_address
from facenet.options import INSIDE, RATE, option

ACTIONS = (
    "add",
    "remove",
    "rename",
    "backfill",
    "kind",
    "factory",
    "recall_target",
    "compact",
    "copy",
    "export",
    "info",
    "check",
)


@dataclass(frozen=True, kw_only=True)
class IndexOptions(CommandOptions):
    """Options of ``index``."""

    gallery: str = option(help=GALLERY)
    add: str | None = option(None, help="embeddings to add")
    encoder: str | None = option(None, help="encoder that made them; its record says what they may stand beside")
    fpir: float = option(0.05, **INSIDE, help="with info: the threshold that lets in this share of strangers")
    metadata: str | None = option(None, help="JSON lines or CSV table of metadata, by path")
    on_duplicate: str = option("error", choices=("error", "skip", "replace"), help="for an id that is there already")
    remove: str | None = option(None, help="id or identity to remove")
    rename: str | None = option(None, help="id or identity whose faces get the name to=")
    to: str | None = option(None, help="with rename: a person's name, new or known; '' for unknown")
    backfill: str | None = option(None, help="embeddings of the gallery's images by a compatible encoder")
    by: str = option("any", choices=("any", "id", "identity"), help="what remove= and rename= name")
    kind: str | None = option(
        None,
        choices=("auto", "flat", "hnsw", "ivf_sq8", "ivf_pq", "ivf", "diskann"),
        help="of the index; a folder knows flat, hnsw, ivf_sq8 (about D bytes a face) and ivf_pq (D / 4), "
        "PostgreSQL flat and hnsw, Milvus flat, hnsw, ivf and diskann",
    )
    factory: str | None = option(None, help="a FAISS factory string instead of a kind")
    recall_target: float | None = option(
        None, **RATE, help="share of nearest faces that an approximate index must find; null: 0.99"
    )
    compact: bool = option(False, help="forget removed items and build the index anew")
    copy: str | None = option(None, help="gallery that gets all items: a folder or an address; made if need be")
    export: str | None = option(None, choices=("npy", "parquet", "qdrant"), help="form in which to write all items")
    out: str | None = option(None, help="folder or address of the export")
    collection: str = option("faces", help="name of the collection in Qdrant")
    info: bool = option(False, help="show what the gallery holds")
    check: bool = option(False, help="read everything and say what is wrong")


def check(options: IndexOptions) -> None:
    """Raise ConfigError for options that do not go together."""
    from facenet.errors import ConfigError

    if not any(getattr(options, key) for key in ACTIONS):
        raise ConfigError(
            "index: nothing to do; pass add=EMBEDDINGS, remove=ID_OR_IDENTITY, rename=ID_OR_IDENTITY to=NAME, "
            "backfill=EMBEDDINGS, kind=KIND, compact=true, copy=GALLERY, export=npy out=DIR, info=true or check=true"
        )
    if bool(options.export) != bool(options.out):
        raise ConfigError("index: export=npy, parquet or qdrant and out=PATH go together")
    if (options.rename is None) != (options.to is None):
        raise ConfigError("index: rename=ID_OR_IDENTITY and to=NAME go together")
    if options.backfill and not options.encoder:
        raise ConfigError("index: backfill=EMBEDDINGS needs encoder=DIR, whose record says what it may replace")
    for name, place in (("gallery", options.gallery), ("copy", options.copy or "")):
        if options.copy and place.startswith(("http://", "https://")):
            raise ConfigError(f"index: {name}={place} is a service; copy= moves folders and databases")
    if options.kind and options.factory:
        raise ConfigError("index: kind and factory each choose the index; pass one of them")
    reads_encoder = options.add or options.backfill or options.info
    refuse_unread(
        ("metadata", options.metadata is not None, options.add, "add=EMBEDDINGS"),
        ("on_duplicate", options.on_duplicate != "error", options.add, "add=EMBEDDINGS"),
        ("by", options.by != "any", options.remove or options.rename, "remove= and rename="),
        ("collection", options.collection != "faces", options.export == "qdrant", "export=qdrant"),
        ("encoder", options.encoder is not None, reads_encoder, "add=, backfill= and info=true"),
    )


def run(options: IndexOptions, out: Path) -> dict[str, Any]:
    from facenet.errors import DataError
    from facenet.gallery.batches import add_in_batches

    check(options)
    metrics: dict[str, Any] = {}
    started = time.perf_counter()
    given = read(options.add, options) if options.add else None  # before a gallery is made for it
    with open_gallery(options.gallery, create=bool(options.add)) as gallery:
        if given is not None:
            embeddings, ids, metadata = given
            how = {"ids": ids, "metadata": metadata, "on_duplicate": options.on_duplicate}
            with progress("adding") as report:
                added = add_in_batches(gallery, embeddings, **how, progress=report)
            metrics |= added._asdict()
        if options.remove:
            metrics["removed"] = gallery.remove(options.remove, by=options.by)
        if options.rename and options.to is not None:
            metrics["renamed"] = gallery.rename(options.rename, options.to, by=options.by)
        if options.backfill:
            metrics |= backfill(gallery, options.backfill, options)
        if any(value is not None for value in (options.kind, options.factory, options.recall_target)):
            metrics["rebuilt"] = choose_index(gallery, options)
        if options.compact:
            metrics |= gallery.compact()
        if options.copy:
            metrics |= copy(gallery, options.copy)
        if options.check:
            problems = gallery.check()
            if problems:
                raise DataError(f"{options.gallery}: {'; '.join(problems)}")
            metrics["problems"] = 0
        if options.export and options.out:
            from facenet.gallery.exchange import write_items

            with progress("exporting") as report:
                metrics["exported"] = write_items(
                    gallery, options.export, options.out, collection=options.collection, progress=report
                )
        gallery.save_cache()
        metrics |= {"seconds": time.perf_counter() - started, **gallery.info()}
        if options.info:
            metrics |= search_threshold(gallery, options)
    table([(key, str(v) if isinstance(v, list | dict) else v) for key, v in metrics.items()], title="index")
    return metrics


def search_threshold(gallery: Any, options: IndexOptions) -> dict[str, Any]:
    """Return the threshold of a search in this gallery and its costs; None for the threshold if nothing tells it."""
    from facenet.encoders import lookup as encoders
    from facenet.errors import DataError

    encoder = encoders.load(options.encoder, device="cpu") if options.encoder else None
    try:
        found = gallery.threshold(encoder, fpir=options.fpir)
    except DataError:
        return {"threshold": None}
    return dict(found.plain())


def read(folder: str, options: IndexOptions) -> tuple[Any, Any, Any]:
    """Return the embeddings to add, and their ids and metadata (None without a table)."""
    from facenet.encoders.lookup import read_record
    from facenet.gallery.exchange import read_embeddings, read_metadata

    embeddings = read_embeddings(folder, read_record(options.encoder))
    if not options.metadata:
        return embeddings, None, None
    return embeddings, *read_metadata(options.metadata, embeddings.paths)


def backfill(gallery: Any, folder: str, options: IndexOptions) -> dict[str, int]:
    from facenet.encoders.lookup import read_record
    from facenet.gallery.exchange import read_embeddings

    embeddings = read_embeddings(folder, read_record(options.encoder))
    with progress("backfilling") as report:
        return dict(gallery.backfill(embeddings, progress=report)._asdict())


def copy(gallery: Any, place: str) -> dict[str, Any]:
    from facenet.gallery.copying import copy_items

    with open_gallery(place, create=True) as target, progress("copying") as report:
        found = copy_items(gallery, target, progress=report)._asdict()
        target.save_cache()
    return found


def choose_index(gallery: Any, options: IndexOptions) -> bool:
    """Change what is given of kind, factory string and recall target; a kind replaces a factory string."""
    before = gallery.recipe
    factory = options.factory if options.factory is not None else "" if options.kind else before.factory
    target = before.recall_target if options.recall_target is None else options.recall_target
    kind = options.kind or ("auto" if options.factory else before.kind)
    gallery.configure(kind, factory=factory, recall_target=target)
    return bool(gallery.save_cache(force=gallery.recipe != before or is_address(options.gallery)))


def main() -> None:
    launch("index", run)
