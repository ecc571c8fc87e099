"""Blocks of vectors on disk, from which processes that know nothing of each other make one embeddings folder.

The embeddings folder holds ``embedding-parts/`` until its set is sealed: ``plan.json`` says what is embedded and how,
``block-NNNNNN.npy`` holds the vectors of a block, ``block-NNNNNN.json`` its rows and the SHA-256 of the vectors. The
record of a block is written last, so a block is there as a whole or not at all. A lock lets one process at a time begin
or seal the set. The system takes the lock from a process that ends, however it ends.

Letters: N images, n readable ones of a block, D embedding width.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from facenet.data.records import Records, write_skipped
from facenet.errors import DataError
from facenet.files import (
    atomic_write,
    digest_of,
    read_array,
    read_sealed,
    remove_abandoned,
    sha256_file,
    write_sealed,
)
from facenet.types import save_embeddings

if sys.platform != "win32":
    import fcntl

PARTS, LOCK, PLAN = "embedding-parts", "lock", "plan.json"
SKIPPED = "skipped.csv"  # beside the vectors, if an image was left out
TOLD = {"list": "the list of images, or their sizes or times", "preprocessing": "the preprocessing"}


class BlockFolder:
    """The blocks of one plan in an embeddings folder.

    `plan` is what must be equal in every process: plain values, among them `images` (N) and `block` (its rows).
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], *, alone: bool) -> None:
        """Nothing is read or written yet; `alone` says that no other process takes part."""
        self.folder, self.parts, self.plan, self.alone = folder, folder / PARTS, dict(plan), alone
        self.digest = digest_of(self.plan)
        self.count = -(-self.plan["images"] // self.plan["block"])  # of blocks

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        size = self.plan["block"]
        return range(block * size, min((block + 1) * size, self.plan["images"]))

    def images(self, blocks: set[int]) -> int:
        """Return how many rows some blocks have."""
        return sum(len(self.rows(block)) for block in blocks)

    def begin(self) -> None:
        """Write the plan, or go on with it; temporary files of killed processes are removed.

        Raises:
            DataError: another plan is there and unfinished.
        """
        with self.locked():
            file = self.parts / PLAN
            if file.is_file() and not (self.alone and not any(self.parts.glob("block-*.json"))):
                self._check(read_sealed(file))
            elif self.sealed() is None:
                write_sealed(file, self.plan)
        remove_abandoned(self.parts, self.folder)

    def _check(self, there: Mapping[str, Any]) -> None:
        changed = [key for key in self.plan if there.get(key) != self.plan[key]]
        if changed:
            pairs = {key: (str(there.get(key))[:12], str(self.plan[key])[:12]) for key in changed}
            what = ", ".join(TOLD.get(key) or f"{key} (was {old}, is {new})" for key, (old, new) in pairs.items())
            raise DataError(
                f"{self.folder}: an unfinished embedding is there, and this is another; changed: {what}; go on with"
                f" what it was begun with, give another folder, or delete {self.parts} to begin anew"
            )

    def missing(self) -> set[int]:
        """Return the blocks that are not there; none if the set is sealed."""
        there = {int(file.stem[-6:]) for file in self.parts.glob("block-??????.json")}
        missing = set(range(self.count)) - there
        return set() if missing and self.sealed() is not None else missing

    def write(self, block: int, vectors: np.ndarray, unreadable: Sequence[tuple[int, str]]) -> None:
        """Keep the vectors (n, D) of a block, and (row, reason) of each other row."""
        file = self._file(block)
        with atomic_write(file) as stream:
            np.save(stream, np.ascontiguousarray(vectors))
        record = {"plan": self.digest, "count": len(vectors), "unreadable": list(unreadable)}
        write_sealed(file.with_suffix(".json"), {**record, "sha256": sha256_file(file)})

    def read_record(self, block: int) -> dict[str, Any] | None:
        """Return the record of a block whose vectors are as they were written; None if anything is missing or damaged.

        What is damaged is removed.
        """
        file = self._file(block)
        with contextlib.suppress(DataError, OSError):
            record = read_sealed(file.with_suffix(".json"))
            if record.get("plan") == self.digest and record.get("sha256") == sha256_file(file):
                return record
        file.with_suffix(".json").unlink(missing_ok=True)
        return None

    def _file(self, block: int) -> Path:
        return self.parts / f"block-{block:06d}.npy"

    def sealed(self) -> dict[str, Any] | None:
        """Return ``meta.json`` of the folder if its set was made by this plan, or None."""
        try:
            meta = read_sealed(self.folder / "meta.json")
        except DataError:
            return None
        return meta if meta.get("plan") == self.digest else None

    def seal(self, kept: Records, shape: tuple[int, int], fingerprint: str) -> None:
        """Write the set of the `kept` images from all blocks, its ``meta.json`` last; inside :meth:`locked`.

        Memory holds one block. An older set in the folder is gone from now on. The blocks stay.

        Args:
            kept: The images that have a vector, and in `skipped` the others.
            shape: Of the vectors, (number of `kept`, D).
            fingerprint: Of the encoder.
        """
        (self.folder / "meta.json").unlink(missing_ok=True)
        skipped = self.folder / SKIPPED
        skipped.unlink(missing_ok=True)
        if kept.skipped:
            write_skipped(skipped, kept.skipped)
        blocks = (read_array(self._file(block)) for block in range(self.count))
        extra = {"root": kept.root, "plan": self.digest}
        beside = (SKIPPED,) if kept.skipped else ()
        texts = kept.paths, kept.identities
        save_embeddings(self.folder, blocks, shape, *texts, fingerprint, extra=extra, beside=beside)

    def remove(self) -> None:
        """Remove the blocks, the plan and the lock, and the folder if nothing else is in it."""
        shutil.rmtree(self.parts, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time enter.

        Raises:
            DataError: the file system has no locks, and several processes take part.
        """
        file = self._lock()
        try:
            yield
        finally:
            file.close()

    def _lock(self) -> IO[bytes]:
        while True:
            self.parts.mkdir(parents=True, exist_ok=True)
            try:
                file = (self.parts / LOCK).open("ab")
            except FileNotFoundError:  # another process has just sealed the set
                continue
            self._wait_for(file.fileno())
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # its last holder has removed it

    def _wait_for(self, handle: int) -> None:
        try:
            if sys.platform != "win32":
                fcntl.flock(handle, fcntl.LOCK_EX)
                return
        except OSError:  # a file system without locks
            pass
        if not self.alone:
            raise DataError(
                f"{self.folder}: its file system has no locks, which several processes need; give another folder, or"
                " run the command in one process, which goes on with the blocks that are there"
            )


def is_begun(folder: str | Path) -> bool:
    """Whether an embedding was begun in a folder and is not sealed yet."""
    return (Path(folder) / PARTS).is_dir()
