"""What a source says of its images: who is on them, what they are called, and where their bytes lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from facenet.data.records import Skipped
from facenet.types import Progress


class Listing(NamedTuple):
    """N images inside larger files (shards), in any order.

    Names are distinct. Numbers stand for texts that are padded with zeros to one width, so that both sort alike.
    """

    names: Sequence[str] | np.ndarray  # N texts, or numbers (N,) int64 of at least 0
    identities: Sequence[str] | np.ndarray  # N texts ("": unknown), or labels (N,) int64 (-1: unknown)
    shards: tuple[str, ...]  # POSIX paths, relative to the root if that is a folder, else to its folder
    shard: np.ndarray  # (N,) uint16, places in `shards`
    offset: np.ndarray  # (N,) int64; what it means is the form's own, most often bytes from the start of the file
    length: np.ndarray  # (N,) int64, bytes of what the offset points to
    skipped: tuple[Skipped, ...] = ()


class Shard(Protocol):
    """A file that holds many images, open for reading from any thread."""

    def read(self, offset: int, length: int) -> bytes:
        """Return the encoded image at a place of the listing.

        Raises:
            Unreadable: there is none, or not as the listing says.
        """

    def close(self) -> None:
        """Give the file back."""


class Form(NamedTuple):
    """How one form of face set is listed and read."""

    list_images: Callable[[Path, Progress | None], Listing]
    open_shard: Callable[[Path], Shard]
