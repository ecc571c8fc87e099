"""Identity-balanced mini-batches of a fixed size with random negatives.

The batches are a pure function of (seed, epoch, rank, world size): a resumed or repeated run draws the same ones. The
rows of a batch cost time proportional to its size, however many images there are, and any batch can be the first.
Source: Schroff et al. 2015, section 3.2 (about 40 faces per identity, plus randomly sampled negative faces).
Letters: B batch, G groups, K faces of an identity, N images, P identities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from facenet.data.dealing import Dealing, Groups
from facenet.data.options import SamplerOptions
from facenet.data.permutation import derive_key, derive_keys, draw_below, draw_distinct, permute
from facenet.errors import ConfigError, DataError

DRAWS = 3  # changes whenever the same seed draws other batches; checkpoints record it
DEALT, FACES, FURTHER, SINGLE, ABSENT, EXTRA = range(6)  # what a key is for


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
    ``negatives + 1``, if the data has enough people. No identity has more than K rows in a batch. With ``views`` V of 2
    or more a single face fills V rows of the batch, so that V times fewer people are seen once. Augmented apart, the
    rows are each other's positives. An absent identity with several images shows V of them.

    Besides the labels, memory holds about 12 bytes an identity. If the labels are not sorted, it also holds the order
    that sorts them, 4 bytes an image.

    Args:
        labels: Identity numbers (N,), integers below 2**31; fewer than 2**32 of them.
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
        self.negatives, self.room = options.negatives, self.batch_size - options.negatives
        self.views = options.views
        self._seed_key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._order, self._starts = _sort(np.asarray(labels))
        counts = np.diff(self._starts)
        self._single = np.flatnonzero(counts == 1).astype(np.int32)  # identities with one image
        self._check(counts)
        largest = min(self.faces, self.room)
        self._dealing = Dealing(counts, largest=largest, coverage=options.coverage, room=self.room)
        self.steps = self._dealing.steps

    def _check(self, counts: np.ndarray) -> None:
        identities = len(counts)
        if counts.max() < 2:
            raise DataError(
                f"training data: none of the {identities} identities has two images, so no anchor-positive pair"
                " exists; give folders with several images of a person"
            )
        if identities < 2:
            raise DataError("training data: only one identity, so there is no negative; give images of two or more")
        room = int(np.minimum(counts, self.faces).sum())
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
        groups = self._dealing.deal(number, self._key(DEALT), self._key(FACES))
        if self.room - groups.faces >= 2:
            groups += self._further_groups(number, groups)
        if groups.faces < self.batch_size:
            groups += self._lone_negatives(number, groups)
        rows = self._rows(groups)
        if len(rows) < self.batch_size:
            rows = np.concatenate([rows, self._extra_faces(number, groups, rows)])
        chosen: list[int] = rows.tolist()
        return chosen

    def _key(self, purpose: int, number: int = 0) -> int:
        return derive_key(self._seed_key, purpose, number)

    def _counts(self, identities: np.ndarray) -> np.ndarray:
        """Return the number of images of some identities."""
        counts: np.ndarray = self._starts[identities + 1] - self._starts[identities]
        return counts

    def _rows(self, groups: Groups) -> np.ndarray:
        """Return the rows of all faces of the groups, int64."""
        group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)  # (B,) group of each face
        place = np.arange(len(group)) - (np.cumsum(groups.sizes) - groups.sizes)[group]  # in its group
        counts = self._counts(groups.identities)
        face = permute((groups.first[group] + place) % counts[group], group, counts, groups.keys)
        return self._sorted_rows(self._starts[groups.identities][group] + face)

    def _sorted_rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at some places of the images sorted by identity."""
        return places if self._order is None else self._order[places].astype(np.int64)

    def _further_groups(self, number: int, dealt: Groups) -> Groups:
        """Return groups of random identities that fill the room to the last row or to the last but one.

        Every group has two faces at least. So enough candidates are as many as are in the batch, and half the room.
        """
        people, room = self._dealing.people, self.room - dealt.faces
        count = min(len(people), len(dealt.identities) + room // 2)
        candidates = people[draw_distinct(count, len(people), self._key(FURTHER, number))].astype(np.int64)
        absent = candidates[np.isin(candidates, dealt.identities, invert=True)]
        sizes, _ = self._dealing.shape(self._counts(absent))
        left = room - (np.cumsum(sizes) - sizes)  # of the room, before each group
        chosen, sizes = absent[left >= 2], np.minimum(sizes, left)[left >= 2]
        return Groups(chosen, sizes, np.zeros_like(chosen), derive_keys(self._key(FURTHER, number), chosen))

    def _lone_negatives(self, number: int, groups: Groups) -> Groups:
        """Return `views` rows each of identities absent from the batch; fewer than wanted if too few are absent."""
        rows = self.batch_size - groups.faces
        need = -(-rows // self.views)
        chosen = self._next_singles(number, need)
        present = np.concatenate([groups.identities, chosen])
        people = len(self._starts) - 1
        if len(chosen) < need:
            candidates = draw_distinct(min(people, need + len(present)), people, self._key(ABSENT, number))
            absent = candidates[np.isin(candidates, present, invert=True)]
            chosen = np.concatenate([chosen, absent])[:need]
        keys = derive_keys(self._key(ABSENT, number), chosen)
        sizes = np.minimum(self.views, rows - self.views * np.arange(len(chosen)))
        return Groups(chosen, sizes, draw_below(self._counts(chosen), keys), keys)

    def _next_singles(self, number: int, need: int) -> np.ndarray:
        """Return identities with one image. They take turns: each is shown before any is shown again.

        Every turn has an order of its own. If two turns meet in a batch, it may hold an identity of both only once.
        """
        people = len(self._single)
        if not people:
            return np.empty(0, np.int64)
        start = number * max(1, -(-self.negatives // self.views))
        turns, places = np.divmod(np.arange(start, start + min(need, 2 * people)), people)
        keys = derive_keys(self._key(SINGLE), np.arange(turns[0], turns[-1] + 1))
        chosen = permute(places, turns - turns[0], np.full(len(keys), people), keys)
        if len(keys) > 1:
            chosen = chosen[np.sort(np.unique(chosen, return_index=True)[1])]
        return self._single[chosen].astype(np.int64)

    def _extra_faces(self, number: int, groups: Groups, rows: np.ndarray) -> np.ndarray:
        """Return more faces of the identities of a batch that holds all identities; none gets more than K."""
        held = groups.sizes
        spare = np.maximum(np.minimum(self._counts(groups.identities), self.faces) - held, 0)  # (G,)
        need, ends = self.batch_size - len(rows), np.cumsum(spare)
        key = self._key(EXTRA, number)
        chosen = np.searchsorted(ends, draw_distinct(need, int(ends[-1]), key), side="right")
        extra = np.bincount(chosen, minlength=len(held))  # (G,) faces that each identity gives
        some = extra > 0
        identities, wanted = groups.identities[some], (held + extra)[some]
        offered = self._rows(Groups(identities, wanted, np.zeros_like(wanted), derive_keys(key, identities)))
        group = np.repeat(np.arange(len(wanted)), wanted)
        new = np.isin(offered, rows, invert=True)  # of each group at least as many as it gives
        offered, group = offered[new], group[new]
        place = np.arange(len(group)) - np.searchsorted(group, group)
        return offered[place < extra[some][group]]


def _sort(labels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the rows sorted by label, None if they are sorted already, and where each label begins (P + 1,).

    A label and its row are sorted as one number of 64 bits, which is several times as fast as a stable argsort.
    """
    order = None
    if (labels[1:] < labels[:-1]).any():
        numbers = labels.astype(np.int64)
        numbers <<= 32
        numbers += np.arange(len(labels), dtype=np.uint32)
        numbers.sort()
        order = numbers.astype(np.uint32)  # the lower half
        numbers >>= 32
        labels = numbers
    starts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return order, np.concatenate([[0], starts, [len(labels)]])
