"""What the service takes and answers as JSON. Coordinates are pixels of the upright picture; D embedding width."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(gt=0, lt=1)]
SqDist = Annotated[float, Field(ge=0, le=4)]
Name = Annotated[str, Field(max_length=512)]
Fingerprint = Annotated[str, Field(max_length=64)]
Vectors = list[list[float]]
WholeNumber = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]  # what SQLite holds
Value = str | bool | WholeNumber | float | None
FieldName = Annotated[str, Field(pattern=r'^[^"\x00-\x1f]{1,100}$')]
Where = dict[FieldName, Value | Annotated[list[Value], Field(max_length=1000)]]
FINGERPRINT = "6f1ed002ab5595859014ebf0951522d9a1d5a1f1c3ab4b0e8f2e9d3b0c7a5e44"


class Asked(BaseModel):
    """JSON of a request: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Told(BaseModel):
    """JSON of an answer."""


# Errors and notes


class Note(Told):
    """Something that a person should know of a photo or a face."""

    code: Annotated[str, Field(examples=["too_blurred"])]
    message: str


class ErrorBody(Told):
    """What went wrong: `code` for programs, `message` for people, `details` on parts of the request."""

    code: Annotated[str, Field(examples=["no_face"])]
    message: Annotated[str, Field(examples=["picture: no face found; give a photo that shows the face larger"])]
    request_id: Annotated[str, Field(examples=["5f0c6d1e9a7b4c32"])]
    details: list[dict[str, Any]]


class ErrorAnswer(Told):
    """Every error of every status has this form."""

    error: ErrorBody


# Faces


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


# Items and people


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
    """A person of the gallery: how many faces, and the first of them."""

    identity: str
    faces: int
    id: str
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
    """Name faces by id, or all of a person; naming them as an existing person merges the two."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"identity": "An", "to": "Ann"}]})
    ids: list[Name] | None = None
    identity: Name | None = None
    to: Name


class Remove(Asked):
    """Remove by id, by identity, or by whichever of the two a name is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"names": ["Ann"], "by": "identity"}]})
    names: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    by: Literal["any", "id", "identity"] = "any"


class Problems(Told):
    """What is wrong with the gallery, one line each."""

    problems: list[str]


# Vectors


class GivenVectors(Asked):
    """Unit vectors of one encoder, and the encoders that its record says they go with."""

    vectors: Vectors
    fingerprint: Fingerprint
    compatible_with: list[Fingerprint] = []


class VectorSearch(GivenVectors):
    """The k nearest items, or with `max_sq_dist` all within a radius; as :class:`facenet.gallery.gallery.Gallery`."""

    k: Annotated[int, Field(ge=1)] = 5
    max_sq_dist: SqDist | None = None
    by_identity: bool = False
    identity_by: Literal["nearest", "mean"] = "nearest"
    means: bool = False
    where: Where | None = None
    without: Name = ""


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
    compatible_with: list[Fingerprint] = []
    thresholds: dict[float, SqDist] = {}
    with_older: dict[Fingerprint, dict[float, SqDist]] = {}
    fpir: Rate | None = None
    far: Rate | None = None
    threshold: SqDist | None = None
    where: Where | None = None
    identity_by: Literal["nearest", "mean"] = "nearest"


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


class VectorItems(GivenVectors):
    """Items to add; `paths` are the ids if there are none."""

    ids: list[Name] | None = None
    identities: list[Name]
    paths: list[Name]
    metadata: list[dict[str, Any]] | None = None
    on_duplicate: Literal["error", "skip", "replace"] = "error"


class VectorBackfill(GivenVectors):
    """Vectors that take the place of an older encoder's, by path."""

    identities: list[Name]
    paths: list[Name]


# The service itself


class Status(Told):
    """Whether the service lives, or may be asked."""

    status: Literal["ok", "ready"]


class CalibratedRate(Told):
    """A false accept rate of pairs and its threshold."""

    far: float
    sq_dist: float


class EncoderInfo(Told):
    """The encoder that the service embeds with."""

    name: str
    fingerprint: str
    dim: int
    compatible_with: list[str]
    rates: list[CalibratedRate]
    finds_faces: bool


class Info(Told):
    """What the service is, holds and allows."""

    version: str
    encoder: EncoderInfo
    gallery: dict[str, Any]
    limits: dict[str, Any]
    gate: dict[str, Any]
    thumbnails: Literal["none", "kept", "photos"]
    role: Literal["read", "write"]
