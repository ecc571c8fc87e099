"""Images shared out among ranks and jobs: each embeds its blocks, and whoever finds all of them there seals the set.

A block of rows belongs to the job (block mod shards), and in it to the rank (block div shards mod world). Blocks that
are there are kept, also for another number of ranks or jobs, so a process that was killed goes on where it stopped.
Batches begin at the first row of a block, and a block is a whole number of them. So each vector has the same bits as in
one process on the same kind of machine, and as those of :func:`~facenet.encoders.embedding.embed_records`.

Letters: N images, D embedding width.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from facenet.data.records import Records, Skipped
from facenet.encoders.blocks import SKIPPED, BlockFolder
from facenet.encoders.embedding import embed_rows, none_readable
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError, FacenetError
from facenet.files import explain_disk_errors, read_csv
from facenet.types import EmbeddingSet, Progress

BLOCK = 50_000  # rows
POLL = 0.5  # seconds between two looks at what the other ranks have finished


@dataclass(frozen=True)
class Share:
    """Which blocks a process embeds, and for which it waits.

    A job is what one launcher starts: `world` processes, of which the first waits for the others. Jobs that know
    nothing of each other, as the tasks of a SLURM array, take a shard each and wait for nobody.
    """

    rank: int = 0  # of this process in its job
    world: int = 1  # processes of the job
    shard: int = 0  # of this job
    shards: int = 1  # jobs

    def owns(self, block: int) -> bool:
        """Whether this process embeds the block."""
        return block % self.shards == self.shard and block // self.shards % self.world == self.rank

    def awaits(self, block: int) -> bool:
        """Whether this process ends only when the block is there."""
        return block % self.shards == self.shard if self.rank == 0 else self.owns(block)


ALONE = Share()


class Embedded(NamedTuple):
    """What a process knows at the end of its share."""

    embeddings: EmbeddingSet | None  # mapped; None while blocks of other jobs or ranks are missing
    skipped: Sequence[Skipped]  # images of the set that were left out; of an unsealed one those without a usable name
    rows: int  # images that this process looked at now
    blocks: int  # of the whole set
    there: int  # blocks that are finished


def embed_share(
    encoder: Encoder,
    records: Records,
    folder: str | Path,
    *,
    share: Share = ALONE,
    batch_size: int = 256,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> Embedded:
    """Embed a share of the images into an embeddings folder, and seal the set if every block is there then.

    If the folder holds the sealed set of the same images, options and encoder, nothing is embedded. A sealed set of
    others stays until the new one is complete. Memory holds one block of vectors.

    Args:
        encoder: What embeds.
        records: All N images; every process must list the same ones.
        folder: The embeddings folder to write.
        share: The blocks of this process.
        batch_size: Images that the network gets at a time.
        block: Rows of a block; it is made a whole number of batches.
        progress: Called with (done, total) images that this process embeds or waits for.

    Raises:
        DataError: an unfinished set of other images, options or another encoder is there; no image could be read;
            the folder can not be written; or as :meth:`Encoder.embed_batch`.
    """
    plan = {
        "encoder": encoder.fingerprint,
        "preprocessing": encoder.preprocess.to_dict(),
        "images": len(records),
        "list": _list_digest(records),
        "batch_size": batch_size,
        "block": -(-block // batch_size) * batch_size,
    }
    blocks = BlockFolder(Path(folder), plan, alone=share.world * share.shards == 1)
    try:
        found = _sealed(blocks)
    except DataError:  # damaged since: it is embedded again
        found = None
        (blocks.folder / "meta.json").unlink(missing_ok=True)
    if found is not None:
        return found
    with explain_disk_errors(folder):
        blocks.begin()
        try:
            rows = _embed_own(encoder, records, blocks, share, batch_size, progress)
        except FacenetError:
            if blocks.alone and len(blocks.missing()) == blocks.count:
                blocks.remove()  # no block is lost
            raise
        _wait(blocks, share, progress)
        return _finish(encoder, records, blocks, batch_size)._replace(rows=rows)


def _list_digest(records: Records) -> str:
    """Return the SHA-256 of the names, identities, sizes and times of all images."""
    digest = hashlib.sha256()
    for identity in records.identities:
        digest.update(f"{identity}\0".encode())
    records.mark(digest)
    return digest.hexdigest()


def _embed_own(
    encoder: Encoder,
    records: Records,
    blocks: BlockFolder,
    share: Share,
    batch_size: int,
    progress: Progress | None,
) -> int:
    """Embed the blocks of this process that are missing; returns how many rows they have."""
    awaited, looked_at = set(filter(share.awaits, range(blocks.count))), 0
    for block in sorted(filter(share.owns, blocks.missing())):
        done = blocks.images(awaited - blocks.missing())

        def show(rows: int, _: int, done: int = done) -> None:
            if progress:
                progress(done + rows, blocks.images(awaited))

        _embed_block(encoder, records, blocks, block, batch_size, show)
        looked_at += len(blocks.rows(block))
    return looked_at


def _embed_block(
    encoder: Encoder,
    records: Records,
    blocks: BlockFolder,
    block: int,
    batch_size: int,
    progress: Progress | None = None,
) -> None:
    vectors, bad = embed_rows(encoder, records, blocks.rows(block), batch_size=batch_size, progress=progress)
    blocks.write(block, vectors[:, 0], bad)


def _wait(blocks: BlockFolder, share: Share, progress: Progress | None) -> None:
    """Wait for the other ranks of the job, if this process is its first one."""
    awaited = set(filter(share.awaits, range(blocks.count)))
    while left := blocks.missing() & awaited:
        if progress:
            progress(blocks.images(awaited - left), blocks.images(awaited))
        time.sleep(POLL)
    if progress:
        progress(blocks.images(awaited), blocks.images(awaited))


def _finish(encoder: Encoder, records: Records, blocks: BlockFolder, batch_size: int) -> Embedded:
    """Seal the set if every block is there and nobody has sealed it; returns what is known then."""
    with blocks.locked():
        left = blocks.missing()
        if not left and blocks.sealed() is None:
            _seal(encoder, records, blocks, batch_size)
        if not left:
            blocks.remove()
    return _sealed(blocks) or Embedded(None, records.skipped, 0, blocks.count, blocks.count - len(left))


def _seal(encoder: Encoder, records: Records, blocks: BlockFolder, batch_size: int) -> None:
    """Write the set from its blocks; those that are damaged are embedded again.

    Raises:
        DataError: no image could be read.
    """
    count, bad = 0, []
    for block in range(blocks.count):
        record = blocks.read_record(block)
        if record is None:
            _embed_block(encoder, records, blocks, block, batch_size)
            record = blocks.read_record(block) or {}
        count += record["count"]
        bad += [(int(row), str(reason)) for row, reason in record["unreadable"]]
    if not count:
        blocks.remove()
        raise none_readable(records, bad)
    blocks.seal(records.without(bad), (count, encoder.dim), encoder.fingerprint)


def _sealed(blocks: BlockFolder) -> Embedded | None:
    """Return the sealed set of this plan, mapped, or None; raises DataError if it is damaged."""
    meta = blocks.sealed()
    if meta is None:
        return None
    found, rows = EmbeddingSet.load(blocks.folder, mmap=True), []
    if SKIPPED in meta["sha256"]:
        rows = read_csv(blocks.folder / SKIPPED, ("path", "reason"), remedy="embed again", whole=True)
    skipped = [Skipped(row["path"], row["reason"]) for row in rows]
    return Embedded(found, skipped, 0, blocks.count, blocks.count)
