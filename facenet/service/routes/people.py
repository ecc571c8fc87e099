"""Routes of the people of a gallery: list, rename and merge, cluster."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query

from facenet.clustering.clusters import cluster, method_for
from facenet.clustering.threshold import find_threshold
from facenet.encoders.encoder import Encoder
from facenet.gallery.gallery import Gallery
from facenet.service.problems import Problem
from facenet.service.routes.items import checked_name, remove
from facenet.service.schemas.items import Clusters, PeoplePage, Remove, Removed, Rename, Renamed
from facenet.service.service import Served, paged

router = APIRouter(prefix="/v1", tags=["people"])
MOST_CLUSTERS, MOST_IDS = 200, 1000  # that an answer lists
MOST_CLUSTERED = 100_000  # faces


@router.get("/identities", response_model=PeoplePage)
async def people(
    service: Served,
    cursor: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    prefix: Annotated[str, Query(max_length=512)] = "",
) -> dict[str, Any]:
    """List the people by name."""

    def read(gallery: Gallery) -> tuple[list[dict[str, Any]], bool]:
        found, more = paged(gallery.people(cursor, limit + 1, prefix=prefix), limit)
        items = gallery.items([person.number for person in found])
        told = [
            {**person._asdict(), "thumbnail": service.thumbnails.has(item)}
            for person, item in zip(found, items, strict=True)
        ]
        return told, more

    told, more = await service.gallery(read)
    return {"identities": told, "next": told[-1]["identity"] if more else None}


@router.post("/rename", response_model=Renamed)
async def rename(service: Served, asked: Rename) -> dict[str, int]:
    """Name faces by id, or all faces of a person; naming them as an existing person merges the two."""
    given = [
        (names, by)
        for names, by in ((asked.ids, "id"), (asked.identity, "identity"), (asked.names, asked.by))
        if names is not None
    ]
    if len(given) != 1:
        raise Problem(422, "invalid", "give ids, identity or names, one of the three")
    (names, by), to = given[0], checked_name("to", asked.to)
    return {"renamed": await service.gallery.write(lambda gallery: gallery.rename(names, to, by=by))}


@router.post("/remove", response_model=Removed)
async def remove_many(service: Served, asked: Remove) -> dict[str, int]:
    """Remove faces by id or by identity, all of them in one transaction."""
    return {"removed": await remove(service, asked.names, asked.by)}


@router.get("/clusters", response_model=Clusters)
async def clusters(service: Served, unnamed: bool = False) -> dict[str, Any]:
    """Group the faces of the gallery by person, all or those without a name."""
    name = f"clusters {unnamed}"
    return await service.gallery.once(name, lambda gallery: find_clusters(gallery, service.encoder, unnamed))


def find_clusters(gallery: Gallery, encoder: Encoder, unnamed: bool) -> dict[str, Any]:
    """Cluster the faces of a gallery by the rule of ``facenet cluster``; the largest clusters come first."""
    parts = [
        ([item for item in items if keep(item.identity)], vectors[[keep(item.identity) for item in items]])
        for keep in [lambda identity: not (unnamed and identity)]
        for items, vectors in gallery.blocks()
    ]
    items = [item for part, _ in parts for item in part]
    if len(items) > MOST_CLUSTERED:
        raise Problem(422, "invalid", f"{len(items)} faces are too many to cluster here; run facenet cluster")
    if len(items) < 2:
        return {"clusters": [], "threshold": None, "rule": "fewer than two faces"}
    vectors, method = np.concatenate([part for _, part in parts]), method_for(len(items))
    threshold, told = find_threshold(len(items), method, encoder.thresholds, None)
    labels = cluster(vectors, threshold, method=method)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    found = [
        {
            "faces": len(group),
            "identities": dict(Counter(items[row].identity for row in group)),
            "ids": [items[row].id for row in group[:MOST_IDS]],
        }
        for group in sorted(groups, key=len, reverse=True)[:MOST_CLUSTERS]
        if len(group) > 1
    ]
    return {"clusters": found, "threshold": threshold, "rule": told.get("rule", method)}
