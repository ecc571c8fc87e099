"""Faces and people of a gallery. D is the embedding width."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from facenet.service.schemas.base import Asked, Name, Names, Note, Told
from facenet.service.schemas.faces import Quality


class Item(Told):
    """A face of the gallery. `vector` (D,) only if it was asked for."""

    id: str
    identity: str
    metadata: dict[str, Any]
    path: str
    fingerprint: str
    number: int
    thumbnail: bool
    vector: list[float] | None = None


class ItemPage(Told):
    """Some items, and the cursor of the next ones; null at the end."""

    items: list[Item]
    next: str | None = None


class EnrolledFace(Told):
    """A face that came into the gallery."""

    id: str
    identity: str
    box: list[float]
    score: float | None
    quality: Quality
    notes: list[Note]


class Enrolled(Told):
    """What a write did, in items."""

    items: list[EnrolledFace]
    added: int
    replaced: int
    skipped: int


class Added(Told):
    """What an addition of vectors did, in items."""

    added: int
    replaced: int
    skipped: int


class Backfilled(Told):
    """What a backfill did, in items."""

    model_config = ConfigDict(extra="allow")


class Removed(Told):
    """How many items went."""

    removed: int


class Renamed(Told):
    """How many items have another identity now."""

    renamed: int


class Person(Told):
    """A person of the gallery: how many faces, and id and number of the first of them."""

    identity: str
    faces: int
    id: str
    number: int
    thumbnail: bool


class PeoplePage(Told):
    """Some people by name, and the cursor of the next ones; null at the end."""

    identities: list[Person]
    next: str | None = None


class Cluster(Told):
    """Faces that are probably one person's; `ids` are at most the first thousand."""

    faces: int
    identities: dict[str, int]
    ids: list[str]


class Clusters(Told):
    """The clusters of the gallery, largest first, and the threshold that made them."""

    clusters: list[Cluster]
    threshold: float | None
    rule: str


class Rename(Asked):
    """Name faces by id, all of a person, or `names` that are `by` what they are; a known person is merged."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"identity": "An", "to": "Ann"}]})
    ids: Names | None = None
    identity: Name | None = None
    names: Names | None = None
    by: Literal["any", "id", "identity"] = "any"
    to: Name


class Remove(Asked):
    """Remove by id, by identity, or by whichever of the two a name is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"names": ["Ann"], "by": "identity"}]})
    names: Names
    by: Literal["any", "id", "identity"] = "any"


class Find(Asked):
    """Find items by id, by identity, or by whichever of the two a name is; names that are neither find nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"names": ["Ann"], "by": "identity"}]})
    names: Names
    by: Literal["any", "id", "identity"] = "any"
    vector: bool = False


class Problems(Told):
    """What is wrong with the gallery, one line each."""

    problems: list[str]
