"""Vectors that were made elsewhere. D is the embedding width."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from facenet.service.schemas.base import (
    MOST,
    Asked,
    Far,
    Fingerprint,
    Name,
    Names,
    Rate,
    SqDist,
    Told,
    Where,
    WholeNumber,
)

Vector = Annotated[list[float], Field(max_length=65_536, fail_fast=True)]


class GivenVectors(Asked):
    """Unit vectors of one encoder, and the encoders that its record says they go with."""

    vectors: Annotated[list[Vector], Field(max_length=MOST, fail_fast=True)]
    fingerprint: Fingerprint
    compatible_with: Annotated[tuple[Fingerprint, ...], Field(max_length=1000)] = ()


class VectorSearch(GivenVectors):
    """The k nearest items, or with `max_sq_dist` all within a radius; as :class:`facenet.gallery.gallery.Gallery`."""

    k: int = 5
    max_sq_dist: float | None = None
    by_identity: bool = False
    identity_by: Literal["nearest", "mean"] = "nearest"
    means: bool = False
    where: Where | None = None
    without: Name = ""

    @model_validator(mode="after")
    def _refuse_unread(self) -> Self:
        if self.max_sq_dist is not None and (self.by_identity or self.identity_by != "nearest"):
            raise ValueError("by_identity and identity_by go with k, not with max_sq_dist; leave one out")
        if self.max_sq_dist is None and self.means:
            raise ValueError("means goes with max_sq_dist; give that, or leave means out")
        return self


class Hit(Told):
    """An item that a search found."""

    number: int
    id: str
    identity: str
    path: str
    sq_dist: float
    metadata: dict[str, Any]
    fingerprint: str


class Hits(Told):
    """For each vector what was found, nearest first."""

    hits: list[list[Hit]]


class ThresholdAsked(Asked):
    """What an encoder's record says, and the rate that a search should keep."""

    fingerprint: Fingerprint | None = None
    compatible_with: Annotated[tuple[Fingerprint, ...], Field(max_length=1000)] = ()
    thresholds: dict[Far, SqDist] = Field(default_factory=dict, max_length=100)
    with_older: dict[Fingerprint, dict[Far, SqDist]] = Field(default_factory=dict, max_length=100)
    fpir: Rate | None = None
    far: Rate | None = None
    threshold: SqDist | None = None
    where: Where | None = None
    identity_by: Literal["nearest", "mean"] = "nearest"

    @model_validator(mode="after")
    def _refuse_unread(self) -> Self:
        if not self.fingerprint and (self.compatible_with or self.thresholds or self.with_older):
            raise ValueError("thresholds, with_older and compatible_with are an encoder's; give its fingerprint")
        return self


class ThresholdTold(Told):
    """The fields of :class:`facenet.evaluation.thresholds.SearchThreshold`."""

    sq_dist: float
    older: dict[str, float]
    kind: str
    rate: float | None
    faces: int
    source: str
    strangers: float | None
    right: float | None
    basis: dict[str, Any] | None


class VectorItems(GivenVectors):
    """Items to add; `paths` are the ids if there are none."""

    ids: Names | None = None
    identities: Names
    paths: Names
    metadata: Annotated[list[dict[str, Any]], Field(max_length=MOST, fail_fast=True)] | None = None
    on_duplicate: Literal["error", "skip", "replace"] = "error"
    once: Name = ""


class VectorBackfill(GivenVectors):
    """Vectors that take the place of an older encoder's, by path: in all items, or in those of some `numbers`."""

    identities: Names
    paths: Names
    root: Annotated[str, Field(max_length=4096)] = ""
    numbers: Annotated[list[WholeNumber], Field(max_length=10_000)] | None = None
