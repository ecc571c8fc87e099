"""One bounded pool from pictures to vectors: threads find faces, and one thread embeds them in batches.

A batch waits at most 5 ms, and only while other pictures are being looked at. Letters: F faces, D embedding width.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from facenet.data.pictures import read_picture
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import SeenPhoto, network_input, see_photo, shrink
from facenet.service.options import LimitOptions
from facenet.service.waiting import Places, run_in

BATCH_SECONDS = 0.005
BATCH_FACES = 16
AT_ONCE = 4  # pictures of one request
T = TypeVar("T")


class Embedded(NamedTuple):
    """A photo, its usable faces, and their vectors (F, D)."""

    photo: SeenPhoto
    vectors: np.ndarray


def open_networks(encoder: Encoder) -> None:
    """Open detector and network by a grey picture and face: the first request would wait for them."""
    see_photo(encoder, Image.new("RGB", (64, 64), "grey"))
    encoder.embed_batch(encoder.preprocess.normalise(np.zeros((1, 3, *encoder.preprocess.size), np.uint8)))


class Inference:
    """The encoder of a service and the threads that use it. Its coroutines belong to one event loop."""

    def __init__(self, encoder: Encoder, limits: LimitOptions, workers: int) -> None:
        """Start the threads; `workers` of them look for faces."""
        self.encoder, self.limits = encoder, limits
        self.places = Places(limits.waiting, "{count} pictures are in work")
        self._looking = 0  # of these, pictures whose faces are not found yet
        self._lookers = ThreadPoolExecutor(workers, "look")
        self._crops: queue.SimpleQueue[tuple[np.ndarray, Future[np.ndarray]] | None] = queue.SimpleQueue()
        self._embedder = threading.Thread(target=self._embed, name="embed", daemon=True)
        self._embedder.start()

    def warm(self) -> None:
        """Let the embedder begin with a full batch.

        onnxruntime keeps the memory of the largest batch that it has seen, which so does not grow later.
        """
        self._crops.put((np.zeros((BATCH_FACES, 3, *self.encoder.preprocess.size), np.uint8), Future()))

    def close(self) -> None:
        """End the threads after the work that they have taken."""
        self._lookers.shutdown()
        self._crops.put(None)
        self._embedder.join()

    async def look(self, data: bytes) -> SeenPhoto:
        """Decode a picture and find its faces.

        Raises:
            Problem: too many pictures in work, or the time of the request is up.
            DataError: not a picture, or too large a one.
        """
        with self.places.one():
            return (await self._look(data))[0]

    async def embed(self, data: bytes) -> Embedded:
        """Decode a picture, find its faces and embed them; raises as :meth:`look`, and as ``Encoder.embed_batch``."""
        with self.places.one():
            photo, inputs = await self._look(data)
            if not len(inputs):
                return Embedded(photo, np.zeros((0, self.encoder.dim), np.float32))
            found: Future[np.ndarray] = Future()
            self._crops.put((inputs, found))
            return Embedded(photo, await asyncio.wrap_future(found))

    async def embed_all(self, pictures: Sequence[bytes]) -> list[Embedded]:
        """Embed several pictures, a few at a time; raises as :meth:`embed`."""
        found: list[Embedded] = []
        step = min(AT_ONCE, self.limits.waiting)
        for start in range(0, len(pictures), step):
            found += await asyncio.gather(*map(self.embed, pictures[start : start + step]))
        return found

    async def aside(self, work: Callable[[], T]) -> T:
        """Run other work with pictures in the threads that look for faces."""
        with self.places.one():
            return await run_in(self._lookers, work, seconds=self.limits.seconds)

    async def _look(self, data: bytes) -> tuple[SeenPhoto, np.ndarray]:
        self._looking += 1
        try:
            return await run_in(self._lookers, self._see, data, seconds=self.limits.seconds)
        finally:
            self._looking -= 1

    def _see(self, data: bytes) -> tuple[SeenPhoto, np.ndarray]:
        picture = read_picture(data, most_pixels=self.limits.pixels)
        photo = see_photo(self.encoder, picture, most=self.limits.faces)
        inputs = network_input(self.encoder, photo.faces)
        return shrink(photo), inputs

    def _embed(self) -> None:
        """Embed batches until the queue ends."""
        while (first := self._crops.get()) is not None:
            batch, ended = self._batch(first)
            wanted = [part for part in batch if part[1].set_running_or_notify_cancel()]  # others have been given up
            if wanted and not self._settle(wanted):
                for part in wanted:  # one of them spoils the batch, and only that one is to blame
                    self._settle([part])
            if ended:
                return

    def _settle(self, batch: Sequence[tuple[np.ndarray, Future[np.ndarray]]]) -> bool:
        """Embed crops and hand their vectors over; False if that fails for several. One alone gets the error."""
        try:
            inputs = np.concatenate([crops for crops, _ in batch])
            vectors = self.encoder.embed_batch(self.encoder.preprocess.normalise(inputs))
        except BaseException as error:
            if len(batch) > 1:
                return False
            batch[0][1].set_exception(error)
        else:
            ends = np.cumsum([len(crops) for crops, _ in batch])[:-1]
            for (_, found), part in zip(batch, np.split(vectors, ends), strict=True):
                found.set_result(part)
        return True

    def _batch(self, first: tuple[np.ndarray, Future[np.ndarray]]) -> tuple[list[Any], bool]:
        """Return `first` and what joins it, and whether the queue has ended."""
        batch, faces, end = [first], len(first[0]), time.monotonic() + BATCH_SECONDS
        while faces < BATCH_FACES:
            left = end - time.monotonic() if self._looking else 0
            try:
                crops = self._crops.get(timeout=left) if left > 0 else self._crops.get_nowait()
            except queue.Empty:
                break
            if crops is None:
                return batch, True
            batch.append(crops)
            faces += len(crops[0])
        return batch, False
