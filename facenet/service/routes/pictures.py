"""Routes that look at pictures: detect, embed, compare, search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import TypeAdapter, ValidationError

from facenet.encoders.photos import CutFace
from facenet.evaluation.thresholds import SearchThreshold, choose_rate, pair_threshold
from facenet.gallery.answers import Answer, ask, told_apart
from facenet.gallery.gallery import Gallery
from facenet.gallery.queries import Queries
from facenet.service.inference import Embedded
from facenet.service.problems import Problem
from facenet.service.radius import refuse_many
from facenet.service.schemas.base import Where
from facenet.service.schemas.faces import Comparison, EmbeddedPhoto, Photo, SearchAnswer
from facenet.service.service import Served, Service
from facenet.types import EmbeddingSet
from facenet.vectors import sq_dist

router = APIRouter(prefix="/v1", tags=["pictures"])
Picture = Annotated[UploadFile, File(description="a photo: JPEG, PNG, WebP, BMP, TIFF, PPM or GIF")]
RateField = Annotated[float | None, Form()]
WHERE: TypeAdapter[Any] = TypeAdapter(Where)


@router.post("/detect", response_model=Photo)
async def detect(service: Served, image: Picture) -> dict[str, Any]:
    """Find the faces of a photo, and measure how good each is."""
    photo = await service.inference.look(await image.read())
    service.metrics.faces.labels("detected").inc(len(photo.faces))
    width, height = photo.size
    faces = [service.told(cut) for cut in photo.faces]
    return {"width": width, "height": height, "faces": faces, "notes": service.notes(photo)}


@router.post("/embed", response_model=EmbeddedPhoto)
async def embed(service: Served, image: Picture) -> dict[str, Any]:
    """Turn each face of a photo into a unit vector."""
    photo, vectors = await service.inference.embed(await image.read())
    pairs = zip(photo.faces, vectors.tolist(), strict=True)
    faces = [{**service.told(cut), "embedding": vector} for cut, vector in pairs]
    return {"encoder": service.encoder.fingerprint, "faces": faces, "notes": service.notes(photo)}


@router.post("/compare", response_model=Comparison)
async def compare(
    service: Served,
    image: Annotated[list[UploadFile], File(min_length=2, max_length=2, description="two photos")],
    far: RateField = None,
    threshold: RateField = None,
    fpir: RateField = None,
) -> dict[str, Any]:
    """Tell whether two photos show one person: by a rate of pairs or, with `fpir`, as a search would."""
    at = await _pair_threshold(service, far=far, threshold=threshold, fpir=fpir)
    photos = await service.inference.embed_all([await one.read() for one in image])
    places = [_meant(embedded, number) for number, embedded in enumerate(photos, 1)]
    first, second = (embedded.vectors[place] for embedded, place in zip(photos, places, strict=True))
    distance = float(sq_dist(first[None], second[None])[0])
    same = distance <= at.sq_dist
    faces = [service.told(embedded.photo.faces[place]) for embedded, place in zip(photos, places, strict=True)]
    verdict = "one person" if same else "two people"
    apart, limit = told_apart(distance, at.sq_dist)
    side, cost = "within" if same else "beyond", f" {at.cost()}" if at.rate is not None else ""
    why = f"The faces are {apart} apart, {side} the threshold of {limit}.{cost}"
    told = {"threshold": at.sq_dist, "rate_kind": at.kind, "rate": at.rate, "why": why, "faces": faces}
    return {"same": same, "verdict": verdict, "sq_dist": distance, **told}


async def _pair_threshold(service: Service, **rates: float | None) -> SearchThreshold:
    """Return the threshold of a search in the gallery if `fpir` is given, else that of pairs."""
    if rates["fpir"] is not None:
        choose_rate(fpir=rates["fpir"], far=rates["far"], threshold=rates["threshold"])
        return await service.gallery(lambda gallery: gallery.threshold(service.encoder, fpir=rates["fpir"]))
    return pair_threshold(service.encoder.threshold, far=rates["far"], threshold=rates["threshold"])


def _meant(embedded: Embedded, number: int) -> int:
    place = embedded.photo.meant
    if place is None:
        raise Problem(422, "no_face", f"image {number}: {embedded.photo.problem}; give a photo that shows it larger")
    return place


@router.post("/search", response_model=SearchAnswer)
async def search(
    service: Served,
    image: Picture,
    k: Annotated[int, Form(ge=1, le=10_000)] = 5,
    fpir: RateField = None,
    far: RateField = None,
    threshold: RateField = None,
    within: Annotated[bool, Form()] = False,
    by_identity: Annotated[bool, Form()] = False,
    identity_by: Annotated[Literal["nearest", "mean"], Form()] = "nearest",
    where: Annotated[str | None, Form(max_length=10_000, description='JSON, as in {"camera": 2}')] = None,
) -> dict[str, Any]:
    """Tell for each face of a photo who it is, and why.

    By default 5 % of strangers find a match (`fpir`). `far` is a rate of pairs, `threshold` a squared distance; one of
    the three at most is given.
    """
    if k > service.allowed.limits.k:
        raise Problem(422, "invalid", f"k: at most {service.allowed.limits.k}, got {k}")
    among, rates = _where(where), {"fpir": fpir, "far": far, "threshold": threshold}
    asked: dict[str, Any] = {"k": k, "within": within, "by_identity": by_identity, "identity_by": identity_by}
    photo, vectors = await service.inference.embed(await image.read())
    encoder = service.encoder
    names = [""] * len(vectors)
    faces = EmbeddingSet(vectors, names, names, encoder.fingerprint, compatible_with=tuple(encoder.compatible_with))

    def judge(gallery: Gallery) -> tuple[list[Answer], int]:
        at = gallery.threshold(encoder, where=among, identity_by=identity_by, **rates)
        queries = Queries(faces, [None] * len(names))
        if names and (within or at.older):
            refuse_many(gallery, faces, at.largest, among, service.allowed.limits)
        answers = ask(gallery, queries, threshold=at, where=among, **asked) if names else []
        return answers, len(gallery)

    answers, size = await service.gallery(judge)
    service.metrics.faces.labels("searched").inc(len(answers))
    width, height = photo.size
    told = [_answer(service, cut, answer) for cut, answer in zip(photo.faces, answers, strict=True)]
    about = {"gallery_size": size, "encoder": encoder.fingerprint, "notes": service.notes(photo)}
    return {"width": width, "height": height, "faces": told, **about}


def _answer(service: Service, cut: CutFace, answer: Answer) -> dict[str, Any]:
    """Return a face and what the gallery says of it as the schema ``SearchedFace``."""
    at, match = answer.threshold, answer.match
    matches = [
        {
            "id": hit.id,
            "identity": hit.identity,
            "sq_dist": hit.sq_dist,
            "accepted": answer.accepts(hit),
            "threshold": at.of(hit.fingerprint),
        }
        for hit in answer.hits
    ]
    return {
        **service.told(cut),
        "matches": matches,
        "verdict": "match" if match else "no match",
        "identity": (match.identity or None) if match else None,
        "threshold": at.sq_dist,
        "fpir": at.rate if at.kind == "fpir" else None,
        "far": at.rate if at.kind == "far" else None,
        "rate_kind": at.kind,
        "threshold_from": at.source,
        "expected_false_matches": at.false_matches,
        "expected_strangers_accepted": at.strangers,
        "why": answer.why,
    }


def _where(text: str | None) -> Any:
    """Return the filter that a form field holds as JSON."""
    if not text:
        return None
    try:
        return WHERE.validate_json(text)
    except ValidationError as error:
        raise Problem(422, "invalid", f'where: {error.errors()[0]["msg"]}; give JSON as in {{"camera": 2}}') from None
