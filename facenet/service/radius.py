"""A bound for searches within a radius, which may find every face of a gallery for each query."""

from __future__ import annotations

from dataclasses import replace

from facenet.gallery.gallery import Gallery
from facenet.gallery.items import Where
from facenet.service.options import LimitOptions
from facenet.service.problems import Problem
from facenet.service.waiting import check_deadline
from facenet.types import EmbeddingSet

AT_ONCE = 16  # queries


def refuse_many(
    gallery: Gallery, queries: EmbeddingSet, max_sq_dist: float, where: Where, limits: LimitOptions
) -> None:
    """Count the faces within a radius, a few queries at a time, before any is named.

    Raises:
        Problem: more than ``limits.hits``, or the time of the request is up.
    """
    count = 0
    for start in range(0, len(queries), AT_ONCE):
        check_deadline(limits.seconds)
        rows = slice(start, start + AT_ONCE)
        part = replace(
            queries, vectors=queries.vectors[rows], paths=queries.paths[rows], identities=queries.identities[rows]
        )
        count += gallery.count_within(part, max_sq_dist, where=where, most=limits.hits + 1 - count)
        if count > limits.hits:
            raise Problem(
                422,
                "invalid",
                f"more than {limits.hits} faces are that near; ask for a smaller radius, or for k of them",
            )
