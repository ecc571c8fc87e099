"""Routes for vectors that were made elsewhere: what :func:`facenet.connect` uses. A picture never comes in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from fastapi import APIRouter

from facenet.encoders.encoder import Encoder
from facenet.gallery.gallery import AddResult, Gallery, Hit
from facenet.service.problems import Problem
from facenet.service.radius import refuse_many
from facenet.service.routes.items import checked_name, tellable
from facenet.service.schemas.items import Added, Backfilled, Problems
from facenet.service.schemas.vectors import (
    GivenVectors,
    Hits,
    ThresholdAsked,
    ThresholdTold,
    VectorBackfill,
    VectorItems,
    VectorSearch,
)
from facenet.service.service import Caller, Served, Service
from facenet.service.thumbnails import KEPT_NAME
from facenet.types import EmbeddingSet

router = APIRouter(prefix="/v1", tags=["vectors"])


@router.post("/vectors/search", response_model=Hits)
async def search(service: Served, asked: VectorSearch) -> dict[str, Any]:
    """Return the nearest items of each vector, or all within a radius."""
    limits = service.allowed.limits
    if asked.k > limits.k:
        raise Problem(422, "invalid", f"k: at most {limits.k}, got {asked.k}")
    queries = given(service, asked, [""] * len(asked.vectors))

    def ask(gallery: Gallery) -> list[list[dict[str, Any]]]:
        rest: dict[str, Any] = {"where": asked.where, "without": asked.without}
        if asked.max_sq_dist is None:
            people: dict[str, Any] = {"by_identity": asked.by_identity, "identity_by": asked.identity_by}
            found = gallery.hits(queries, asked.k, **people, **rest)
        else:
            refuse_many(gallery, queries, asked.max_sq_dist, asked.where, limits)
            found = gallery.hits_within(queries, asked.max_sq_dist, means=asked.means, **rest)
        return [[hit_told(hit) for hit in hits] for hits in found]

    return {"hits": await service.gallery(ask)}


@router.post("/vectors/threshold", response_model=ThresholdTold)
async def threshold(service: Served, asked: ThresholdAsked) -> dict[str, Any]:
    """Return up to which sq_dist a face is a match, for the encoder whose record is given."""
    record = calibrated(asked) if asked.fingerprint else None
    rates = {"fpir": asked.fpir, "far": asked.far, "threshold": asked.threshold}
    found = await service.gallery(
        lambda gallery: gallery.threshold(record, where=asked.where, identity_by=asked.identity_by, **rates)
    )
    told = {name: getattr(found, name) for name in ThresholdTold.model_fields}
    return {**told, "older": dict(found.older), "basis": found.basis and found.basis.plain()}


@router.post("/vectors/items", response_model=Added, status_code=201)
async def add(service: Served, who: Caller, asked: VectorItems) -> dict[str, int]:
    """Add vectors, all of them or none; a second request of the same name `once` adds nothing."""
    items = given(service, asked, asked.paths, asked.identities)
    if any(KEPT_NAME.fullmatch(path) for path in asked.paths):
        raise Problem(422, "invalid", "paths: those of kept pictures are given by the service; choose others")
    once = f"{who.name}\n{asked.once}" if asked.once else ""
    names = [checked_name("id", name) for name in (asked.paths if asked.ids is None else asked.ids)]
    for identity in asked.identities:
        checked_name("identity", identity)
    how: dict[str, Any] = {"ids": names, "metadata": asked.metadata, "on_duplicate": asked.on_duplicate}

    def write(gallery: Gallery) -> AddResult:
        with service.thumbnails.following(gallery, names if asked.on_duplicate == "replace" else []):
            return gallery.add(items, **how, once=once)

    return (await service.gallery.write(write))._asdict()


@router.post("/vectors/backfill", response_model=Backfilled)
async def backfill(service: Served, asked: VectorBackfill) -> dict[str, int]:
    """Put vectors of a new encoder in the place of an older encoder's."""
    items = replace(given(service, asked, asked.paths, asked.identities), root=asked.root)
    done = await service.gallery.write(lambda gallery: gallery.backfill(items, numbers=asked.numbers))
    return done._asdict()


@router.get("/check", response_model=Problems)
async def check(service: Served) -> dict[str, list[str]]:
    """Read the whole gallery, and tell what is wrong with it."""
    return {"problems": await service.gallery.apart(lambda gallery: gallery.check())}


def given(service: Service, asked: GivenVectors, paths: Sequence[str], names: Sequence[str] = ()) -> EmbeddingSet:
    """Return the vectors of a request."""
    rows, most = asked.vectors, service.allowed.limits.vectors
    if len(rows) > most:
        raise Problem(422, "invalid", f"vectors: at most {most} in a request, got {len(rows)}")
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise Problem(422, "invalid", "vectors: give at least one, and all of one width")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which the gallery refuses
        vectors = np.array(rows, np.float64).astype(np.float32)
    joins = tuple(asked.compatible_with)
    return EmbeddingSet(
        vectors, list(paths), list(names or [""] * len(paths)), asked.fingerprint, compatible_with=joins
    )


def hit_told(hit: Hit) -> dict[str, Any]:
    """Return a hit as JSON, without the folder on this machine."""
    return {name: value for name, value in hit._asdict().items() if name not in ("rank", "root")} | {
        "metadata": tellable(hit.metadata)
    }


def calibrated(asked: ThresholdAsked) -> Encoder:
    """Return what the record of an encoder says of its thresholds; it has no net, and none is asked."""
    record = SimpleNamespace(
        fingerprint=asked.fingerprint,
        compatible_with=asked.compatible_with,
        thresholds=asked.thresholds,
        with_older=asked.with_older,
    )
    record.threshold = lambda far: Encoder.threshold(cast(Encoder, record), far)
    return cast(Encoder, record)
