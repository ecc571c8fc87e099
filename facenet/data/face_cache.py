"""Training faces that are decoded when a batch first asks for them, and kept in RAM if they fit.

Nothing is decoded before the first step. A face that can not be read is found by the batch that meets it, and another
face of the same person takes its place. Letters: N images, B batch, S S' stored height and width.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from facenet.data.pictures import why
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records, Skipped
from facenet.errors import DataError
from facenet.interrupts import thread_pool

UNKNOWN, READABLE, UNREADABLE = 0, 1, 2
TRIES = 1000  # faces that are looked at to replace one that can not be read
ENOUGH = 1000  # draws from which the share of unreadable ones is judged
PARTS = (
    4  # of a batch for each thread: a thread takes many faces at once, since handing out one takes as long as reading
)
PROCESSES = 1024  # that count their draws apart


class FaceCache:
    """Stored faces (N, 3, S, S') uint8 by row. Loader processes that are forked share what is kept and found."""

    def __init__(self, records: Records, preprocess: Preprocess, margin: float, *, keep: bool) -> None:
        """Take the records, how they are cut (see ``Preprocess.read``), and whether decoded faces are kept."""
        self.records, self.margin = records, margin
        self.preprocess = preprocess.of(records.alignment, records.root)
        self.shape = (3, *self.preprocess.stored_size(margin))
        self.state = _shared((len(records),))  # (N,) uint8, one of the three above
        self.kept = _shared((len(records), *self.shape)) if keep else None
        self._drawn = _shared((PROCESSES, 2, 8)).view(np.int64)[..., 0]  # draws and replaced ones of each process
        labels = records.labels
        self._order = None if (labels[1:] >= labels[:-1]).all() else np.argsort(labels, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(records.counts)])  # of each person's rows, in that order

    def __len__(self) -> int:
        """Return N."""
        return len(self.records)

    def batch(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return faces (B, 3, S, S') uint8 and the rows (B,) int64 that they are of.

        A row that can not be read is replaced by the next one of the same person that can, else by the next at all. The
        batch is empty if there is none among a thousand: the data are not there any more. Images that lie near each
        other in a larger file are read one after the other, wherever they stand in the batch.
        """
        wanted, worker = np.asarray(rows, np.int64), self._worker()
        if self.kept is not None and (self.state[wanted] == READABLE).all():
            self._drawn[worker % PROCESSES, 0] += len(wanted)
            return self.kept[wanted], wanted
        images = np.empty((len(wanted), *self.shape), np.uint8)

        found = np.empty(len(wanted), np.int64)

        def fill(places: np.ndarray) -> None:
            for place in places.tolist():
                found[place] = self._read_or_replace(int(wanted[place]), images[place])

        places = self.records.as_they_lie(wanted)
        threads = min(32, torch.get_num_threads())  # 1 in a loader process
        if threads == 1:
            fill(places)
        else:
            with thread_pool(threads) as pool:
                list(pool.map(fill, np.array_split(places, PARTS * threads)))
        self._drawn[worker % PROCESSES] += (len(wanted), np.count_nonzero(found != wanted))
        return (images, found) if (found >= 0).all() else (images[:0], found[:0])

    def check_share(self, most: float) -> None:
        """Refuse a set of which more than the share `most` of what was drawn so far can not be read.

        Raises:
            DataError: it is more, of at least a thousand draws.
        """
        drawn, replaced = (int(count) for count in self._drawn.sum(0))
        if drawn >= ENOUGH and replaced > most * drawn:
            raise DataError(
                f"{self.records.root}: {replaced} of the {drawn} images drawn so far ({replaced / drawn:.0%}) can not"
                f" be read, more than data.max_bad_share={most:g}; see skipped.csv in the run folder, mend or remove"
                " them, or allow a larger share"
            )

    def unreadable(self, most: int | None = None) -> list[Skipped]:
        """Return faces that could not be read, at most so many; they are read again for the reason."""
        found = []
        for row in np.flatnonzero(self.state == UNREADABLE)[:most].tolist():
            source: Any = None
            try:
                source = self.records.source(row)
                self.preprocess.read(source, self.margin)
                reason = "not readable for a while"
            except DataError as error:
                reason = why(error, source)
            found.append(Skipped(self.records.paths[row], reason))
        return found

    def _worker(self) -> int:
        """Return the number of this loader process, from 1; 0 in the process that trains."""
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        return 0 if info is None else info.id + 1

    def _read_or_replace(self, row: int, into: np.ndarray) -> int:
        if self._read(row, into):
            return row
        return next((other for other in self._others(row) if self._read(other, into)), -1)

    def _others(self, row: int) -> Iterator[int]:
        """Yield the rows behind `row` of the same person, in a circle, then rows of the people behind."""
        label = int(self.records.labels[row])
        start, end = int(self._starts[label]), int(self._starts[label + 1])
        place = row if self._order is None else start + int(np.flatnonzero(self._order[start:end] == row)[0])
        same = [start + (place - start + step) % (end - start) for step in range(1, end - start)]
        behind = [(end + step) % len(self) for step in range(min(TRIES, len(self)))]
        for one in [*same, *behind][:TRIES]:
            yield one if self._order is None else int(self._order[one])

    def _read(self, row: int, into: np.ndarray) -> bool:
        """Put the face of a row `into` (3, S, S'); False if it can not be read."""
        if self.state[row] == UNREADABLE:
            return False
        if self.kept is not None and self.state[row] == READABLE:
            into[:] = self.kept[row]
            return True
        try:
            into[:] = self.preprocess.read(self.records.source(row), self.margin).transpose(2, 0, 1)
        except DataError:
            self.state[row] = UNREADABLE
            return False
        if self.kept is not None:
            self.kept[row] = into
        self.state[row] = READABLE  # last: another process that sees it finds the pixels
        return True


def _shared(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros (uint8) in memory that forked processes share; pages that nobody writes to take none."""
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8, size).reshape(shape)
