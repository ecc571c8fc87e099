"""Which groups of faces lie in which batch of an epoch, computed for one batch at a time.

Letters: K faces of an identity in a batch, N images, P identities, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenet.data.permutation import derive_key, derive_keys, permute

BLOCKS = 64  # at most, of a class; each epoch puts the blocks of all classes into another order
ORDER_OF_BATCHES, ORDER_OF_BLOCKS, ORDER_OF_PEOPLE = range(3)  # what a key is for


@dataclass(frozen=True)
class Groups:
    """Groups of faces of one identity each; a group of one face is a lone negative.

    The faces of an identity stand in an order that `keys` choose. A group takes `sizes` faces of it from `first` on;
    after the last face comes the first one again.
    """

    identities: np.ndarray  # (G,)
    sizes: np.ndarray  # (G,)
    first: np.ndarray  # (G,)
    keys: np.ndarray  # (G,) uint64

    def __add__(self, other: Groups) -> Groups:
        """Return the groups of both."""
        pairs = ((vars(self)[name], vars(other)[name]) for name in vars(self))
        return Groups(*(np.concatenate(pair) for pair in pairs))

    @property
    def faces(self) -> int:
        """Return the number of faces of all groups."""
        return int(self.sizes.sum())


class Dealing:
    """Deals the groups of every identity to the batches of an epoch, evenly by size.

    All groups of an epoch stand in a line, larger ones first and those of an identity one after the other. The group at
    place p belongs to batch ``p mod steps``. An identity has no more groups than there are batches, so all of them
    lie in different batches.

    The line is not stored. Identities with the same group size and the same number of groups form a class. A class is
    cut into blocks of consecutive places. An epoch has an order of the blocks of each size, and a permutation of the
    identities of each class. So the groups of a batch follow from their places.

    Args:
        counts: Images of each identity (P,); identities with one image have no group.
        largest: Largest size of a group.
        coverage: Epochs that show every image of an identity with two or more.
        room: Rows of a batch for groups.
    """

    def __init__(self, counts: np.ndarray, *, largest: int, coverage: int, room: int) -> None:
        self._largest, self._coverage = largest, coverage
        people = np.flatnonzero(counts > 1)
        sizes, groups = self.shape(counts[people])
        code = sizes * (groups.max() + 1) + groups
        order = np.argsort(-code, kind="stable")
        self.people = people[order].astype(np.int32)  # identities with groups, class by class
        _, start, members = np.unique(-code[order], return_index=True, return_counts=True)
        self._start, self._members = start, members
        self._sizes, self._groups = sizes[order[start]], groups[order[start]]
        self.steps = self._count_batches(room)
        self._cut_into_blocks()
        self._length = int(self._places.sum())
        self._line: tuple[int, np.ndarray, np.ndarray] | None = None

    def shape(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the size of the groups of identities with `counts` images, and their number in an epoch."""
        groups = -(-counts // (self._largest * self._coverage))
        return np.minimum(self._largest, -(-counts // groups)), groups

    def _count_batches(self, room: int) -> int:
        """Return the smallest number of batches that hold the groups of an epoch within their room.

        No batch has more faces than the first one, whose groups are at the places 0, steps, 2 * steps and so on.
        """
        places = self._members * self._groups
        ends = np.concatenate([[0], np.cumsum(places)])
        least = max(-(-int((places * self._sizes).sum()) // room), int(self._groups.max()))
        for first in range(least, int(ends[-1]) + 1, 256):
            steps = np.arange(first, first + 256)
            fit = (np.diff(-(-ends // steps[:, None])) * self._sizes).sum(1) <= room  # (256,)
            if fit.any():
                return int(steps[fit.argmax()])
        raise AssertionError("a batch for each group always fits")

    def _cut_into_blocks(self) -> None:
        """Cut the identities of each class into blocks of about the same number."""
        number = np.minimum(self._members, BLOCKS)
        self._class_of = np.repeat(np.arange(len(number)), number)
        index = np.arange(len(self._class_of)) - np.repeat(np.cumsum(number) - number, number)
        ranks = np.unique(-self._sizes, return_inverse=True)[1].astype(np.uint16)  # of so few bits, numpy sorts fast
        self._rank = ranks[self._class_of]  # 0: the largest size
        members, parts = self._members[self._class_of], number[self._class_of]
        self._first = members * index // parts  # identity of the class with which a block begins
        self._places = (members * (index + 1) // parts - self._first) * self._groups[self._class_of]

    def _blocks_in_line(self, key: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of all blocks in an epoch and the place at which each begins; the last epoch's are kept."""
        if self._line is None or self._line[0] != epoch:
            draws = derive_keys(derive_key(key, ORDER_OF_BLOCKS, epoch), np.arange(len(self._class_of)))
            drawn = np.argsort(draws)  # no two draws are equal
            order = drawn[np.argsort(self._rank[drawn], kind="stable")]
            places = self._places[order]
            self._line = epoch, order, np.cumsum(places) - places
        return self._line[1:]

    def deal(self, number: int, key: int, face_key: int) -> Groups:
        """Return the groups of batch `number`, counted over all epochs, in time proportional to their number.

        Args:
            number: Number of the batch, from 0 on.
            key: Key of all orders; an object takes the same one in every call.
            face_key: Key of the order of each identity's faces, which is the same in all epochs.
        """
        epoch, turn = divmod(number, self.steps)
        batch_key = derive_keys(derive_key(key, ORDER_OF_BATCHES), np.array([epoch]))
        batch = int(permute(np.array([turn]), np.array([0]), np.array([self.steps]), batch_key)[0])
        order, starts = self._blocks_in_line(key, epoch)
        places = np.arange(batch, self._length, self.steps)  # (G,)
        found = np.searchsorted(starts, places, side="right") - 1
        block = order[found]
        kind = self._class_of[block]
        groups, sizes = self._groups[kind], self._sizes[kind]
        person, group = np.divmod(places - starts[found], groups)
        keys = derive_keys(derive_key(key, ORDER_OF_PEOPLE, epoch), kind)
        each = np.arange(len(kind))
        member = permute(self._first[block] + person, each, self._members[kind], keys)
        identities = self.people[self._start[kind] + member].astype(np.int64)
        return Groups(identities, sizes, (epoch * groups + group) * sizes, derive_keys(face_key, identities))
