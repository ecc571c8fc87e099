"""The gallery of a service: one thread asks and changes it, a second one does what takes long on a copy of its own.

So a request never waits for a lock that another request holds. A write is answered when it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.gallery.engines.places import is_address
from facenet.gallery.faiss.layers import use_threads
from facenet.gallery.gallery import Gallery
from facenet.gallery.sql.database import TRUTH
from facenet.service.options import LimitOptions
from facenet.service.problems import too_busy
from facenet.service.waiting import Places, run_in
from facenet.types import EmbeddingSet

LOCKED = 2.0  # seconds to wait for another process that writes; then the answer is 503
MOST_APART = 4  # requests that wait for long work
WRITES = 500  # after so many it is looked whether index.faiss is due
T = TypeVar("T")
log = logging.getLogger(__name__)


class GalleryThread:
    """A gallery in a thread of its own. Its coroutines belong to one event loop."""

    def __init__(self, place: str, encoder: Encoder, limits: LimitOptions, *, threads: int | None = None) -> None:
        """Open the gallery, or make it, and bring its index into memory.

        Raises:
            DataError: as :meth:`Gallery.open`; or the encoder may not ask this gallery.
        """
        self.folder = None if is_address(place) else Path(place).resolve()
        self.place, self.encoder, self.limits = str(self.folder or place), encoder, limits
        self.places = Places(limits.waiting, "{count} requests wait for the gallery")
        self._places_apart = Places(MOST_APART, "other long work is being done")
        self._writes = 0
        self._ping: asyncio.Future[int] | None = None
        self._found: dict[str, tuple[int, Future[Any]]] = {}  # the state and result of long work
        self._joins = tuple(encoder.compatible_with)
        self._thread = ThreadPoolExecutor(1, "gallery")
        self._apart = ThreadPoolExecutor(1, "gallery-apart")
        self._gallery = self._thread.submit(self._open, threads).result()

    def _open(self, threads: int | None) -> Gallery:
        if threads is not None:
            use_threads(threads)
        folder = self.folder
        new = folder is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        return Gallery.open(
            self.place,
            create=new,
            fingerprint=self.encoder.fingerprint,
            dim=self.encoder.dim,
            compatible_with=self.encoder.compatible_with,
            timeout=LOCKED,
        )

    @property
    def names(self) -> list[str]:
        """How messages may name the gallery's place, the longest first."""
        folder = [f"{self.folder / TRUTH}"] if self.folder else []
        return [*folder, str(self._gallery.folder), self.place]

    def warm(self) -> Future[tuple[int, str]]:
        """Begin to bring index and thresholds into memory.

        The result is the number of faces, and why a search can choose no threshold or "".
        """
        vector = np.eye(1, self.encoder.dim, dtype=np.float32)
        query = EmbeddingSet(vector, [""], [""], self.encoder.fingerprint, compatible_with=self._joins)

        def ask(gallery: Gallery) -> tuple[int, str]:
            gallery.hits(query, 1)
            try:
                gallery.threshold(self.encoder)
            except DataError as error:
                return len(gallery), str(error)
            return len(gallery), ""

        return self._thread.submit(ask, self._gallery)

    def later(self, work: Callable[[Gallery], None]) -> None:
        """Run `work` apart, when there is time; nobody waits for it, and what fails is logged."""

        def run() -> None:
            try:
                self._reopened(work)
            except (DataError, OSError) as error:
                log.warning("work beside the requests failed (%s)", type(error).__name__)

        self._apart.submit(run)

    def close(self) -> None:
        """Do what was taken, write ``index.faiss`` if that is due, and close the gallery."""
        self._apart.shutdown(cancel_futures=True)
        self._thread.submit(self._gallery.close).result()
        self._thread.shutdown()

    async def __call__(self, work: Callable[[Gallery], T]) -> T:
        """Run `work` with the gallery.

        Raises:
            Problem: too many requests wait for the gallery, or the time of the request is up.
        """
        with self.places.one():
            return await run_in(self._thread, work, self._gallery, seconds=self.limits.seconds)

    async def write(self, work: Callable[[Gallery], T]) -> T:
        """Run `work`, which changes the gallery."""
        found = await self(work)
        self._writes += 1
        if self._writes % WRITES == 0:
            self.later(save_index)
        return found

    async def apart(self, work: Callable[[Gallery], T]) -> T:
        """Run `work`, which takes long, with another opening of the gallery."""
        with self._places_apart.one():
            return await run_in(self._apart, self._reopened, work, seconds=self.limits.seconds)

    async def once(self, name: str, work: Callable[[Gallery], T]) -> T:
        """Return the result of long work on the present state: what was found before, or what is being done.

        Work goes on if the time of the request is up. So somebody who comes again finds it done.
        """
        state = await self(lambda gallery: int(gallery.info()["generation"]))
        known = self._found.get(name)
        if known is not None and known[0] != state and not known[1].done():
            raise too_busy("the faces of a moment ago are still being looked through")
        if known is None or known[0] != state or (known[1].done() and known[1].exception() is not None):
            known = self._found[name] = state, self._apart.submit(self._reopened, work)
        return await asyncio.shield(asyncio.wrap_future(known[1]))

    async def ping(self) -> None:
        """Wait until the gallery answers; all who ask at once share one question."""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.ensure_future(self(len))
        await asyncio.shield(self._ping)

    def _reopened(self, work: Callable[[Gallery], T]) -> T:
        with Gallery.open(self.place) as gallery:
            return work(gallery)


def save_index(gallery: Gallery) -> None:
    """Write ``index.faiss`` if that is due, so that the next start has little to read."""
    gallery.save_cache()
