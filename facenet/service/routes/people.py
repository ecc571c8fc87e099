"""Routes of the people of a gallery: list, rename and merge, cluster."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query

from facenet.clustering.galleries import cluster_gallery
from facenet.encoders.encoder import Encoder
from facenet.gallery.gallery import Gallery
from facenet.service.problems import Problem
from facenet.service.routes.items import checked_name, remove
from facenet.service.schemas.items import Clusters, PeoplePage, Remove, Removed, Rename, Renamed
from facenet.service.service import Served, paged

router = APIRouter(prefix="/v1", tags=["people"])
MOST_CLUSTERS, MOST_IDS = 200, 1000  # that an answer lists


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
    """Return the clusters of a gallery as the schema ``Clusters``."""
    groups, threshold, rule = cluster_gallery(gallery, encoder, unnamed=unnamed)
    told = [
        {
            "faces": len(group),
            "identities": dict(Counter(item.identity for item in group)),
            "ids": [item.id for item in group[:MOST_IDS]],
        }
        for group in groups[:MOST_CLUSTERS]
    ]
    return {"clusters": told, "threshold": threshold, "rule": rule}
