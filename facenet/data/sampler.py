"""Identity-balanced mini-batches of a fixed size with random negatives.

The batches are a pure function of (seed, epoch, rank, world size): a resumed or repeated run draws the same ones.
Source: Schroff et al. 2015, section 3.2 (about 40 faces per identity, plus randomly sampled negative faces).
Letters: B batch, K faces of an identity, N images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from facenet.data.options import SamplerOptions
from facenet.errors import ConfigError, DataError

DRAWS = 2  # changes whenever the same seed draws other batches; checkpoints record it


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

    A batch has ``negatives = B * negative_share`` rows for single faces and ``room = B - negatives`` rows for groups.
    In an epoch an identity of n >= 2 images has ``g = ceil(n / (K * coverage))`` groups of
    ``min(K, ceil(n / g))`` faces, all in different batches. The faces rotate with the epochs: `coverage` epochs in a
    row show every image of every such identity.

    Further groups of random identities fill what is left of the room. Single faces follow: first of identities with one
    image, by turns, then of identities absent from the batch. So their number lies between ``negatives`` and
    ``negatives + 1``, if the data has enough people. No identity has more than K rows in a batch.

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
        self.negatives, self.room = options.negatives, self.batch_size - options.negatives
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
        largest = min(self.faces, self.room)
        counts = np.array([len(self._rows[i]) for i in self._many])
        self._groups = -(-counts // (largest * options.coverage))  # of each identity in an epoch
        self._sizes = np.minimum(largest, -(-counts // self._groups))
        self.steps = self._steps()

    def _steps(self) -> int:
        """Return the smallest number of batches over which :meth:`_deal` keeps the groups of an epoch within the room.

        Sizes are dealt in descending order, so the first batch gets most.
        """
        sizes = np.sort(np.repeat(self._sizes, self._groups))[::-1]
        steps = max(-(-int(sizes.sum()) // self.room), int(self._groups.max()))
        while sizes[::steps].sum() > self.room:
            steps += 1
        return steps

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
        batches = self._deal(rng, epoch)
        singles, others = self._single_stream(epoch), itertools.cycle(rng.permutation(len(self._many)).tolist())
        return np.array([self._fill(batches[i], others, singles, rng) for i in rng.permutation(self.steps)])

    def _deal(self, rng: np.random.Generator, epoch: int) -> list[list[int]]:
        """Deal the groups of an epoch to its batches in turn, larger ones first, those of a person after each other.

        A person has no more groups than there are batches, so all of them lie in different batches.
        """
        order = rng.permutation(len(self._many))
        batches: list[list[int]] = [[] for _ in range(self.steps)]
        place = 0
        for i in order[np.argsort(-self._sizes[order], kind="stable")]:
            rows, size, groups = self._rows[self._many[i]], int(self._sizes[i]), int(self._groups[i])
            window = rows[(np.arange(size * groups) + epoch * size * groups) % len(rows)]
            for group in window.reshape(groups, size).tolist():
                batches[place % self.steps] += group
                place += 1
        return batches

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
        self, batch: list[int], others: Iterator[int], singles: Iterator[int], rng: np.random.Generator
    ) -> list[int]:
        """Fill a batch up to B rows: with groups of `others`, numbers of identities, then with negatives."""
        present = set(self._identity[batch].tolist())
        for _ in self._many:
            space = self.room - len(batch)
            if space < 2:
                break
            i = next(others)
            if self._many[i] not in present:
                present.add(self._many[i])
                batch += rng.choice(self._rows[self._many[i]], min(self._sizes[i], space), replace=False).tolist()
        self._add_negatives(batch, present, singles, rng)
        return batch

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
