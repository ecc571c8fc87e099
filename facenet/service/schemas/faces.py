"""Faces of photos, and what a gallery says of them. Coordinates are pixels of the upright picture; D is the width."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from facenet.service.schemas.base import Note, Told

FINGERPRINT = "6f1ed002ab5595859014ebf0951522d9a1d5a1f1c3ab4b0e8f2e9d3b0c7a5e44"


class Quality(Told):
    """How good a face is: `side` in pixels of the photo, `sharpness`, and `frontality` from 0 (profile) to 1."""

    side: float
    sharpness: float
    frontality: float | None


class Face(Told):
    """A face of a photo. `box` is left, top, width, height; score and landmarks are null without a detector."""

    box: Annotated[list[float], Field(min_length=4, max_length=4, examples=[[212.4, 118.0, 96.2, 121.7]])]
    score: float | None
    landmarks: list[list[float]] | None
    quality: Quality
    notes: list[Note]


class Photo(Told):
    """The faces of a photo, highest score first."""

    width: int
    height: int
    faces: list[Face]
    notes: list[Note]


class EmbeddedFace(Face):
    """A face and its unit vector."""

    embedding: list[float]


class EmbeddedPhoto(Told):
    """The faces of a photo with their vectors (D,), and the fingerprint of the encoder that made them."""

    encoder: Annotated[str, Field(examples=[FINGERPRINT])]
    faces: list[EmbeddedFace]
    notes: list[Note]


class Comparison(Told):
    """Two photos, one person? `rate` is what the threshold keeps, of the kind `rate_kind`."""

    same: bool
    verdict: Literal["one person", "two people"]
    sq_dist: float
    threshold: float
    rate_kind: Literal["far", "fpir", "threshold"]
    rate: float | None
    why: str
    faces: Annotated[list[Face], Field(min_length=2, max_length=2)]


class Match(Told):
    """A face of the gallery beside a face of the photo; accepted if sq_dist <= threshold."""

    id: str
    identity: str
    sq_dist: Annotated[float, Field(examples=[0.71])]
    accepted: bool
    threshold: Annotated[float, Field(examples=[1.02])]


class SearchedFace(Face):
    """A face of the photo, the nearest faces of the gallery, and a verdict that says why."""

    matches: list[Match]
    verdict: Literal["match", "no match"]
    identity: str | None
    threshold: float
    fpir: float | None
    far: float | None
    rate_kind: Literal["fpir", "far", "threshold"]
    threshold_from: str
    expected_false_matches: float | None
    expected_strangers_accepted: float | None
    why: Annotated[str, Field(examples=["The nearest face is Ann's, at 0.71, within the threshold of 1.02."])]


class SearchAnswer(Told):
    """Who is on a photo."""

    width: int
    height: int
    faces: list[SearchedFace]
    gallery_size: int
    encoder: str
    notes: list[Note]
