"""Pictures in, vectors out: batches that wait for nobody, and one bad picture that spoils no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.service.inference import Inference
from facenet.service.options import LimitOptions
from tests.helpers.services import png, small_encoder


@pytest.fixture
def played() -> Callable[[Callable[[Inference], Coroutine[Any, Any, Any]]], tuple[Any, list[int]]]:
    """Plays a coroutine with a pool; returns its result, and the sizes of the batches."""

    def play(work: Callable[[Inference], Coroutine[Any, Any, Any]]) -> tuple[Any, list[int]]:
        encoder, sizes = small_encoder(), []
        pool = Inference(encoder, LimitOptions(), 2)
        plain = encoder.embed_batch

        def counted(images: np.ndarray) -> np.ndarray:
            sizes.append(len(images))
            return plain(images)

        encoder.embed_batch = counted  # type: ignore[method-assign, assignment]
        try:
            return asyncio.run(work(pool)), sizes
        finally:
            pool.close()

    return play


def test_pictures_that_come_together_are_embedded_together(played: Any) -> None:
    async def all_at_once(pool: Inference) -> list[Any]:
        return await asyncio.gather(*(pool.embed(png(seed)) for seed in range(8)))

    found, sizes = played(all_at_once)
    assert sum(sizes) == 8
    assert len(sizes) < 8
    alone, ones = played(lambda pool: pool.embed(png(3)))
    assert ones == [1]
    np.testing.assert_allclose(found[3].vectors, alone.vectors, atol=1e-6)


def test_a_bad_picture_spoils_no_other(played: Any) -> None:
    async def mixed(pool: Inference) -> list[Any]:
        return await asyncio.gather(*(pool.embed(data) for data in (png(1), b"x", png(2))), return_exceptions=True)

    found, _ = played(mixed)
    assert isinstance(found[1], DataError)
    assert [one.vectors.shape for one in found[::2]] == [(1, 16)] * 2


def test_the_place_of_a_request_that_was_given_up_is_free_again(played: Any) -> None:
    async def given_up(pool: Inference) -> tuple[int, Any]:
        task = asyncio.create_task(pool.embed(png(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return pool.places.taken, await pool.embed(png(2))

    (waiting, found), _ = played(given_up)
    assert waiting == 0
    assert found.vectors.shape == (1, 16)


def test_a_face_that_no_vector_comes_of_spoils_no_other(played: Any) -> None:
    """A batch that fails is embedded again, one picture after the other; only the one to blame gets the error."""

    async def mixed(pool: Inference) -> list[Any]:
        plain = pool.encoder.embed_batch

        def picky(images: np.ndarray) -> np.ndarray:
            if len(images) > 1 or (images == bad).all():
                raise DataError("not finite")
            return plain(images)

        bad = pool.encoder.preprocess.normalise(pool._see(png(2))[1])
        pool.encoder.embed_batch = picky  # type: ignore[method-assign, assignment]
        return await asyncio.gather(*(pool.embed(png(seed)) for seed in range(4)), return_exceptions=True)

    found, _ = played(mixed)
    assert [isinstance(one, DataError) for one in found] == [False, False, True, False]


def test_what_was_given_up_is_not_embedded(played: Any) -> None:
    async def given_up(pool: Inference) -> list[int]:
        begun, hold, plain, sizes = threading.Event(), threading.Event(), pool.encoder.embed_batch, list[int]()

        def slow(images: np.ndarray) -> np.ndarray:
            begun.set()
            hold.wait(5)
            sizes.append(len(images))
            return plain(images)

        pool.encoder.embed_batch = slow  # type: ignore[method-assign, assignment]
        tasks = [asyncio.create_task(pool.embed(png(0)))]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(pool.embed(png(seed))) for seed in range(1, 6)]
        while pool._crops.qsize() < 5:
            await asyncio.sleep(0.001)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.sleep(0)
        hold.set()
        await tasks[0]
        await pool.embed(png(9))
        return sizes

    sizes, _ = played(given_up)
    assert sizes == [1, 1]
