"""Identity-balanced mini-batches of a fixed size with random negatives.

The batches are a pure function of (seed, epoch, rank, world size): a resumed or repeated run draws the same ones.
Source: Schroff et al. 2015, section 3.2 (about 40 faces per identity, plus randomly sampled negative faces).
Letters: B batch, K faces of an identity, N images.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from facenet.data.options import SamplerOptions
from facenet.errors import ConfigError, DataError


class Schedule:
    """The batches of a whole run, from number `start` on, at which a resumed run continues.

    The length also counts the batches before `start`, as Lightning does when it resumes.
    """

    def __init__(self, batch: Callable[[int], list[int]], stop: int, start: int = 0) -> None:
        self._batch, self._stop, self._start = batch, stop, start

    def __len__(self) -> int:
        """Return the number of batches of the run."""
        return self._stop

    def __iter__(self) -> Iterator[list[int]]:
        """Yield rows, batch after batch."""
        return map(self._batch, range(self._start, self._stop))


class IdentitySampler:
    """Row numbers of each mini-batch: groups of 2 to K faces of one identity, plus faces seen once.

    In an epoch every identity with two or more images has one group of up to K of its faces, in random order. An
    identity with many images has more groups, so that `coverage` epochs show all of them. Groups are packed until the
    batch holds ``B - negatives`` rows. Single faces of other identities fill the share `negative_share` of the batch:
    first identities with one image, then identities absent from the batch. No identity has more than K rows in a batch.
    The faces of an identity rotate with the epochs, so that a few epochs show every image.

    Args:
        labels: Identity numbers (N,).
        options: B over all ranks, K, share of negatives and coverage.
        seed: Seed of all random draws.
        rank: Rank of this process; its rows of a batch are those from ``rank * B / world_size`` on.
        world_size: Number of processes; must divide B.

    Raises:
        ConfigError: `world_size` does not divide the batch.
        DataError: no identity with two images, or too few images for a batch.
    """

    def __init__(
        self,
        labels: np.ndarray,
        options: SamplerOptions,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if options.batch_size % world_size:
            raise ConfigError(
                f"sampler.batch_size: expected a multiple of the {world_size} processes, got {options.batch_size}"
            )
        self.batch_size, self.faces = options.batch_size, options.faces_per_identity
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._planned = -1, np.empty((0, self.batch_size), np.int64)
        self.negatives = round(self.batch_size * options.negative_share)
        labels = np.asarray(labels)
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        rows = np.split(order, starts[1:])
        self._rows = [r[np.random.default_rng([seed, 1, i]).permutation(len(r))] for i, r in enumerate(rows)]
        self._many = [i for i, r in enumerate(rows) if len(r) > 1]
        self._single = np.array([r[0] for r in rows if len(r) == 1], np.int64)
        self._identity = np.empty(len(labels), np.int64)  # (N,) identity number of each row
        for i, r in enumerate(rows):
            self._identity[r] = i
        self._check(len(rows))
        self._groups = [math.ceil(len(self._rows[i]) / (self.faces * options.coverage)) for i in self._many]
        most = max(1, self._steps() // 2)  # a batch has one group of a person at most, and all groups must find a batch
        self._groups = [min(groups, most) for groups in self._groups]
        self.steps = self._steps()

    def _steps(self) -> int:
        """Return the number of batches that hold all groups of an epoch."""
        sizes = (len(self._rows[i]) for i in self._many)
        offered = sum(min(n, self.faces * groups) for n, groups in zip(sizes, self._groups, strict=True))
        return max(1, math.ceil(offered / (self.batch_size - self.negatives)))

    def _check(self, identities: int) -> None:
        if not self._many:
            raise DataError(
                f"training data: none of the {identities} identities has two images, so no anchor-positive pair"
                " exists; give folders with several images of a person"
            )
        if identities < 2:
            raise DataError("training data: only one identity, so there is no negative; give images of two or more")
        room = sum(min(len(r), self.faces) for r in self._rows)
        if room < self.batch_size:
            raise DataError(
                f"training data: {identities} identities with up to {self.faces} faces each fill {room} rows, fewer"
                f" than sampler.batch_size={self.batch_size}; set sampler.batch_size={room // 2} or less, or raise"
                " sampler.faces_per_identity"
            )

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same for every epoch and rank."""
        return self.steps

    @property
    def share(self) -> slice:
        """Return the slice of this rank's rows in a batch."""
        size = self.batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def batch(self, number: int) -> list[int]:
        """Return this rank's rows of batch `number`, counted from 0 over all epochs."""
        return self.whole(number)[self.share]

    def whole(self, number: int) -> list[int]:
        """Return the rows of batch `number` of all ranks."""
        epoch, place = divmod(number, self.steps)
        if self._planned[0] != epoch:
            self._planned = epoch, self.plan(epoch)
        rows: list[int] = self._planned[1][place].tolist()
        return rows

    def plan(self, epoch: int) -> np.ndarray:
        """Return the rows of all batches of an epoch, (steps, B) int64, for all ranks together."""
        rng = np.random.default_rng([self.seed, 2, epoch])
        groups = self._draw_groups(rng, epoch)
        singles = self._single_stream(epoch)
        batches = np.empty((self.steps, self.batch_size), np.int64)
        for step in range(self.steps):
            batches[step] = self._fill(groups, singles, rng, epoch)
        return batches

    def _draw_groups(self, rng: np.random.Generator, epoch: int) -> deque[np.ndarray]:
        """Draw the groups of an epoch in random order, those of one person spread over the epoch.

        The window over the faces of an identity moves with the epoch.
        """
        groups: list[np.ndarray] = []
        places: list[float] = []
        for i, count in zip(self._many, self._groups, strict=True):
            rows = self._rows[i]
            take = min(len(rows), count * self.faces)
            parts = np.array_split(rows[(np.arange(take) + epoch * take) % len(rows)], math.ceil(take / self.faces))
            groups += parts
            places += ((rng.permutation(len(parts)) + rng.random()) / len(parts)).tolist()
        return deque(groups[i] for i in np.argsort(places))

    def _single_stream(self, epoch: int) -> Iterator[int]:
        """Yield faces of identities with one image without end; consecutive epochs cycle through all of them."""
        place = epoch * self.steps * self.negatives
        while len(self._single):
            cycle, offset = divmod(place, len(self._single))
            order = np.random.default_rng([self.seed, 3, cycle]).permutation(len(self._single))
            for i in order[offset:]:
                yield int(self._single[i])
            place += len(self._single) - offset

    def _fill(
        self, groups: deque[np.ndarray], singles: Iterator[int], rng: np.random.Generator, epoch: int
    ) -> np.ndarray:
        """Draw one batch (B,)."""
        batch: list[int] = []
        present: set[int] = set()
        deferred: list[np.ndarray] = []
        room = self.batch_size - self.negatives
        while len(batch) <= room - 2:
            if not groups:  # no group of the epoch is left: fill the last batch from the next epoch
                extra = self._draw_groups(rng, epoch + 1)
                groups.extend(g for g in extra if int(self._identity[g[0]]) not in present)
                if not groups:
                    break
            group = groups.popleft()
            identity = int(self._identity[group[0]])
            if identity in present:
                deferred.append(group)
                continue
            present.add(identity)
            taken, rest = group[: room - len(batch)], group[room - len(batch) :]
            batch += taken.tolist()
            if len(rest) > 1:
                deferred.append(rest)
        groups.extendleft(reversed(deferred))
        self._add_negatives(batch, present, singles, rng)
        return np.array(batch)

    def _add_negatives(
        self, batch: list[int], present: set[int], singles: Iterator[int], rng: np.random.Generator
    ) -> None:
        """Fill the batch with one face of each absent identity, then, if these are too few, with other faces."""
        while len(batch) < self.batch_size:
            row = next(singles, -1)
            if row < 0 or int(self._identity[row]) in present:
                break  # there are none, or the next one is in the batch
            present.add(int(self._identity[row]))
            batch.append(row)
        absent = [i for i in range(len(self._rows)) if i not in present]
        chosen = rng.permutation(len(absent))[: self.batch_size - len(batch)]
        batch += [int(rng.choice(self._rows[absent[i]])) for i in chosen]
        need = self.batch_size - len(batch)
        if need:  # too few absent identities: take more faces of those with fewer than K
            batch += self._any_room(batch, need, rng)

    def _any_room(self, batch: list[int], need: int, rng: np.random.Generator) -> list[int]:
        used = np.zeros(len(self._identity), bool)
        used[batch] = True
        held = np.bincount(self._identity[batch], minlength=len(self._rows))
        chosen: list[int] = []
        for row in rng.permutation(len(used)):
            identity = self._identity[row]
            if not used[row] and held[identity] < self.faces:
                chosen.append(int(row))
                held[identity] += 1
                if len(chosen) == need:
                    break
        return chosen
