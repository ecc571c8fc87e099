"""Embed a folder (or table) of images: vectors.npy, items.csv, meta.json. Ranks and jobs may share the images out."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import is_first_rank, progress, table
from facenet.errors import ConfigError
from facenet.options import option

if TYPE_CHECKING:
    from facenet.encoders.shares import Share


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(EncoderUse, CommandOptions):
    """Options of ``embed``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    images: str = option(help="folder or table of images")
    out: str = option(help="embeddings folder to write; an unfinished one is gone on with")
    batch_size: int = option(256, least=1, help="images embedded at a time")
    block: int = option(50_000, least=1, help="images of a block, which is kept once it is embedded")
    shard: int = option(0, least=0, help="with shards: which share this job embeds, from 0")
    shards: int = option(1, least=1, help="jobs that share the images out, such as the tasks of a SLURM array")


def share_of(options: EmbedOptions) -> Share:
    """Return the share of this process: its rank under torchrun or srun, and its shard among jobs.

    Raises:
        ConfigError: a shard that is not below the number of shards.
    """
    from facenet.encoders.shares import Share

    if options.shard >= options.shards:
        raise ConfigError(
            f"shard={options.shard}: expected 0 to {options.shards - 1} for shards={options.shards}; number the tasks"
            f" of an array from 0: sbatch --array=0-{options.shards - 1}"
        )
    given = os.environ
    names = ("RANK", "WORLD_SIZE") if "RANK" in given else ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    rank, world = (int(given.get(name, default)) for name, default in zip(names, (0, 1), strict=True))
    return Share(rank if world > 1 else 0, world, options.shard, options.shards)


def run(options: EmbedOptions, out: Path) -> dict[str, Any]:
    from facenet.data.records import write_skipped
    from facenet.data.sources.kinds import scan
    from facenet.encoders import lookup as encoders
    from facenet.encoders.blocks import is_begun
    from facenet.encoders.shares import embed_share
    from facenet.errors import DataError

    place, share = Path(options.out), share_of(options)
    if place.exists() and not place.is_dir():
        raise DataError(f"{place}: it is a file; give a folder as out=DIR")
    if place.is_dir() and any(place.iterdir()) and not ((place / "vectors.npy").is_file() or is_begun(place)):
        raise DataError(f"{place}: it holds files and is no embeddings folder; give another folder as out=DIR")
    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    records = scan(options.images)
    started = time.perf_counter()
    with progress("embedding", enabled=is_first_rank()) as report:
        sizes = {"batch_size": options.batch_size, "block": options.block}
        done = embed_share(encoder, records, place, share=share, **sizes, progress=report)
    seconds = time.perf_counter() - started
    if not is_first_rank():
        return {}
    metrics: dict[str, Any] = {"sealed": done.embeddings is not None, "blocks": done.blocks, "blocks_there": done.there}
    if done.embeddings is not None:
        names = {name for name in done.embeddings.identities if name}
        metrics = {"images": len(done.embeddings), "identities": len(names), "skipped": len(done.skipped), **metrics}
    metrics |= {"dim": encoder.dim, "embedded_here": done.rows, "images_per_second": done.rows / seconds}
    rows: list[tuple[str, Any]] = [*metrics.items(), ("embeddings", options.out)]
    if done.embeddings is not None:
        reasons = out / "skipped.csv"
        write_skipped(reasons, done.skipped)
        rows += [("skipped, with reasons", reasons)] if done.skipped else []
    if records.alignment is not None:
        rows.append(("what the encoder reads", encoder.preprocess.view(records.alignment)))
    table(rows, title="embed")
    if done.embeddings is None:
        print(
            f"not sealed: {done.there} of {done.blocks} blocks are there; the job that finishes last seals the set. If"
            " none runs any more, run the same command again: it embeds what is missing of its share"
        )
    return metrics


def main() -> None:
    launch("embed", run)
