"""Routes of the faces of a gallery: enrol, read, list, remove."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, File, Form, Header, Query, Response, UploadFile

from facenet.encoders.photos import CutFace
from facenet.gallery.editing import depth, metadata_text
from facenet.gallery.gallery import AddResult, Gallery, Item
from facenet.service.inference import Embedded
from facenet.service.problems import Problem
from facenet.service.schemas.items import Enrolled, Find, ItemPage, Removed
from facenet.service.schemas.items import Item as ItemSchema
from facenet.service.service import Caller, Served, Service, paged
from facenet.types import EmbeddingSet

router = APIRouter(prefix="/v1", tags=["items"])
MOST_METADATA, DEEPEST = 10_000, 8  # characters and levels of an item's metadata
Number = Annotated[int, Query(ge=-(1 << 63), lt=1 << 63)]
NameField = Annotated[str, Form(max_length=512)]
NameFields = Annotated[list[Annotated[str, Form(max_length=512)]] | None, Form()]
Duplicate = Annotated[Literal["error", "skip", "replace"], Form()]


class Enrolment(NamedTuple):
    """A picture that is to come into the gallery, and what is known of it."""

    image: bytes
    id: str
    identity: str
    metadata: dict[str, Any]
    face: int | None


@router.post("/items", response_model=Enrolled, status_code=201)
async def enrol(
    service: Served,
    who: Caller,
    image: Annotated[list[UploadFile], File(min_length=1, description="a photo of each person, or several")],
    id: NameFields = None,
    identity: NameFields = None,
    metadata: Annotated[list[str] | None, Form(description="JSON for each image")] = None,
    face: Annotated[list[int] | None, Form(description="place of the meant face in the order of detect")] = None,
    on_duplicate: Duplicate = "error",
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> dict[str, Any]:
    """Add a face of each picture to the gallery: all of them, or none.

    The other fields come not at all, or once for each picture. A second request with the same Idempotency-Key adds
    nothing and gets the answer of the first.
    """
    pictures = [await one.read() for one in image]
    if len(pictures) > service.allowed.limits.pictures:
        raise Problem(422, "invalid", f"image: at most {service.allowed.limits.pictures} pictures, got {len(pictures)}")
    fields: dict[str, Sequence[Any] | None] = {"id": id, "identity": identity, "metadata": metadata, "face": face}
    for name, values in fields.items():
        if values and len(values) != len(pictures):
            raise Problem(422, "invalid", f"{name}: given {len(values)} times for {len(pictures)} pictures")
    once = f"{who.name}\n{idempotency_key}" if idempotency_key else ""
    asked = [
        Enrolment(
            picture,
            checked_name("id", id[place]) if id else new_id(once, place, picture),
            checked_name("identity", identity[place]) if identity else "",
            checked_metadata(metadata[place]) if metadata else {},
            face[place] if face else None,
        )
        for place, picture in enumerate(pictures)
    ]
    return await add(service, asked, on_duplicate, once)


@router.put("/items/{id:path}", response_model=Enrolled)
async def put(
    service: Served,
    id: str,
    image: Annotated[UploadFile, File()],
    identity: NameField = "",
    metadata: Annotated[str, Form()] = "{}",
    face: Annotated[int | None, Form()] = None,
) -> dict[str, Any]:
    """Add a face under an id, or put it in the place of the face that has this id."""
    name, more = checked_name("id", id), checked_metadata(metadata)
    one = Enrolment(await image.read(), name, checked_name("identity", identity), more, face)
    return await add(service, [one], "replace", "")


async def add(service: Service, asked: Sequence[Enrolment], on_duplicate: str, once: str) -> dict[str, Any]:
    """Embed pictures and add the meant face of each to the gallery in one transaction."""
    found = await service.inference.embed_all([one.image for one in asked])
    places = [meant_face(service, number, *pair) for number, pair in enumerate(zip(asked, found, strict=True), 1)]
    cuts = [embedded.photo.faces[place] for embedded, place in zip(found, places, strict=True)]
    told = [service.told(cut) for cut in cuts]
    refuse_poor(service, told)
    vectors = np.stack([embedded.vectors[place] for embedded, place in zip(found, places, strict=True)])
    # goes on if the time of the request is up: pictures of a write that was given up would stay
    storing = asyncio.ensure_future(store(service, asked, cuts, vectors, on_duplicate, once))
    result, identities = await asyncio.shield(storing)
    service.metrics.faces.labels("enrolled").inc(result.added + result.replaced)
    items = [
        {"id": one.id, "identity": identity, **{key: face[key] for key in ("box", "score", "quality", "notes")}}
        for one, identity, face in zip(asked, identities, told, strict=True)
    ]
    return {"items": items, **result._asdict()}


async def store(
    service: Service,
    asked: Sequence[Enrolment],
    cuts: Sequence[CutFace],
    vectors: np.ndarray,
    on_duplicate: str,
    once: str,
) -> tuple[AddResult, list[str]]:
    """Write faces and, if they are kept, first their pictures; returns also the identities that the items have now.

    The pictures are written in the threads that look for faces. Those of items that are not written go again.
    """
    encoder, thumbnails = service.encoder, service.thumbnails
    joins, root = tuple(encoder.compatible_with), service.gallery.place if thumbnails.keeps else ""
    ids, identities, metadata = ([getattr(one, name) for one in asked] for name in ("id", "identity", "metadata"))
    paths, begun = [""] * len(cuts), False

    def keep() -> None:
        for place, cut in enumerate(cuts):
            paths[place] = thumbnails.keep(cut.pixels)

    def write(gallery: Gallery) -> tuple[AddResult, list[str]]:
        nonlocal begun
        begun = True
        given = EmbeddingSet(vectors, paths, identities, encoder.fingerprint, root=root, compatible_with=joins)
        with thumbnails.following(gallery, ids, new=paths):
            result = gallery.add(given, ids=ids, metadata=metadata, on_duplicate=on_duplicate, once=once)
        stored = {item.id: item.identity for item in gallery.find(ids, by="id")} if result.skipped else {}
        return result, [stored.get(one.id, one.identity) for one in asked]

    try:
        if thumbnails.keeps:
            await service.inference.aside(keep)
        return await service.gallery.write(write)
    except Exception:
        if not begun:
            thumbnails.forget(paths)
        raise


def meant_face(service: Service, number: int, one: Enrolment, embedded: Embedded) -> int:
    """Return the place of the face of the picture of that number that is to be enrolled.

    Raises:
        Problem: no usable face, several with a gate that refuses, or no such place.
    """
    photo = embedded.photo
    if photo.meant is None:
        service.metrics.refused.labels("no_face").inc()
        raise Problem(422, "no_face", f"image {number}: {photo.problem}; give a photo that shows the face larger")
    if one.face is not None:
        if not 0 <= one.face < len(photo.faces):
            raise Problem(422, "invalid", f"face: the picture shows {len(photo.faces)} faces, counted from 0")
        return one.face
    if len(photo.faces) > 1 and service.allowed.gate.action == "refuse":
        service.metrics.refused.labels("several_faces").inc()
        raise Problem(
            422, "several_faces", f"image {number}: it shows {len(photo.faces)} faces; say which with face=PLACE"
        )
    return photo.meant


def refuse_poor(service: Service, told: Sequence[dict[str, Any]]) -> None:
    """Refuse faces that the gate finds too poor, if it is to refuse."""
    if service.allowed.gate.action != "refuse":
        return
    details = [{"image": number, **note} for number, face in enumerate(told, 1) for note in face["notes"]]
    for note in details:
        service.metrics.refused.labels(note["code"]).inc()
    if details:
        first = details[0]
        raise Problem(422, first["code"], f"image {first['image']}: {first['message']}", details=details)


# Reading


@router.get("/items", response_model=ItemPage, response_model_exclude_unset=True)
async def list_items(
    service: Served,
    who: Caller,
    cursor: Annotated[str, Query(pattern="^[0-9]{0,18}$")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    identity: Annotated[str | None, Query(max_length=512)] = None,
    number: Annotated[list[Number] | None, Query(max_length=1000)] = None,
    vector: bool = False,
) -> dict[str, Any]:
    """List faces by number, all or of a person; or those of the numbers given."""
    if vector:
        need_write(who)

    def read(gallery: Gallery) -> tuple[list[dict[str, Any]], bool]:
        if number is not None:
            return items_told(service, gallery, gallery.items(number), vector), False
        items, more = paged(gallery.page(int(cursor or 0), limit + 1, identity=identity), limit)
        return items_told(service, gallery, items, vector), more

    told, more = await service.gallery(read)
    return {"items": told, "next": str(told[-1]["number"]) if more else None}


@router.post("/find", response_model=ItemPage, response_model_exclude_unset=True)
async def find(service: Served, who: Caller, asked: Find) -> dict[str, Any]:
    """Return the faces of ids or of people, by number; `vector` adds their vectors, for a key that may write."""
    if asked.vector:
        need_write(who)

    def read(gallery: Gallery) -> list[dict[str, Any]]:
        return items_told(service, gallery, gallery.find(asked.names, by=asked.by), asked.vector)

    return {"items": await service.gallery(read)}


@router.get("/items/{id:path}", response_model=ItemSchema, response_model_exclude_unset=True)
async def read_item(service: Served, who: Caller, id: str, vector: bool = False) -> dict[str, Any]:
    """Return a face of the gallery; `vector=true` adds its vector, for a key that may write."""
    if vector:
        need_write(who)
    item, stored = await service.gallery(lambda gallery: gallery.vector(id))
    return item_told(service, item, stored.tolist() if vector else None)


@router.get("/faces/{id:path}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def thumbnail(service: Served, id: str) -> Response:
    """Return a small picture of a face of the gallery, as JPEG."""
    item, _ = await service.gallery(lambda gallery: gallery.vector(id))
    picture = await service.inference.aside(lambda: service.thumbnails.read(item))
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


# Removing


@router.delete("/items", response_model=Removed)
async def remove_person(service: Served, identity: Annotated[str, Query(min_length=1, max_length=512)]) -> Any:
    """Remove all faces of a person."""
    return {"removed": await remove(service, [identity], "identity")}


@router.delete("/items/{id:path}", response_model=Removed)
async def remove_item(service: Served, id: str) -> dict[str, int]:
    """Remove a face."""
    return {"removed": await remove(service, [id], "id")}


async def remove(service: Service, names: Sequence[str], by: str) -> int:
    """Remove items and the pictures that were kept of them."""

    def work(gallery: Gallery) -> int:
        with service.thumbnails.following(gallery, names, by):
            return gallery.remove(names, by=by)

    return await service.gallery.write(work)


# What comes in and goes out


def items_told(service: Service, gallery: Gallery, items: Sequence[Item], vector: bool) -> list[dict[str, Any]]:
    """Return items as the schema ``Item``, with their vectors if these are asked for."""
    vectors = gallery.vectors([item.number for item in items]).tolist() if vector else [None] * len(items)
    return [item_told(service, item, one) for item, one in zip(items, vectors, strict=True)]


def item_told(service: Service, item: Item, vector: list[float] | None) -> dict[str, Any]:
    """Return an item as the schema ``Item``, without the folder on this machine."""
    told = {key: value for key, value in item._asdict().items() if key != "root"}
    told["metadata"], told["thumbnail"] = tellable(item.metadata), service.thumbnails.has(item)
    return told if vector is None else {**told, "vector": vector}


def tellable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata, or {} for those of an old gallery that no answer can hold."""
    try:
        metadata_text(metadata)
    except (ValueError, RecursionError):
        return {}
    return metadata


def need_write(who: Caller) -> None:
    """Refuse vectors to a key that may only read: a vector is as good as the face."""
    if not who.may_write:
        raise Problem(403, "forbidden", "vectors are given to keys with role=write only")


def new_id(once: str, place: int, picture: bytes) -> str:
    """Return an id: by chance or, for a request that may be repeated, always the same."""
    if not once:
        return secrets.token_hex(16)
    return hashlib.sha256(f"{once}\n{place}\n".encode() + picture).hexdigest()[:32]


def checked_name(field: str, name: str) -> str:
    """Return a name that can be stored, shown and put into an address.

    Raises:
        Problem: an empty id, control characters, or an id with the parts "." or "..".
    """
    if any(not (one.isprintable() or unicodedata.category(one) == "Zs") for one in name):  # spaces of any width may be
        raise Problem(422, "invalid", f"{field}: it has characters that can not be printed")
    if field == "id" and (not name or name.strip("/") != name or {".", ".."} & set(name.split("/"))):
        raise Problem(422, "invalid", "id: give letters, with / inside at most, and no part . or ..")
    return name


def checked_metadata(text: str) -> dict[str, Any]:
    """Return the metadata that a form field holds as JSON.

    Raises:
        Problem: no JSON object, too long or too deep.
    """
    try:
        if len(text) > MOST_METADATA:
            raise ValueError(f"at most {MOST_METADATA} characters")
        found = json.loads(text)
        if not isinstance(found, dict) or depth(found) > DEEPEST:
            raise ValueError(f"an object of at most {DEEPEST} levels is expected")
    except (ValueError, RecursionError) as error:
        raise Problem(422, "invalid", f"metadata: no usable JSON ({error})") from None
    return found
