"""What the routes share: the encoder, the gallery, and what a service allows."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from facenet import __version__
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import CutFace, SeenPhoto
from facenet.errors import ConfigError
from facenet.faces.options import Gate
from facenet.faces.quality import shortcomings
from facenet.gallery.engines.places import is_address
from facenet.gallery.gallery import Gallery
from facenet.service.galleries import GalleryThread
from facenet.service.inference import Inference
from facenet.service.keys import Keys, Who
from facenet.service.metrics import Metrics
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.thumbnails import KEPT, Thumbnails


@dataclass(frozen=True)
class Allowed:
    """What a service allows to whom."""

    limits: LimitOptions = LimitOptions()
    rate: RateOptions = RateOptions()
    gate: Gate = Gate()
    thumbnails: str = "none"
    keys: Keys | None = None


class Service:
    """The encoder and the gallery of a running service."""

    def __init__(self, place: str, encoder: Encoder, allowed: Allowed, *, threads: int | None = None) -> None:
        """Open the gallery and make both ready to be asked.

        Raises:
            DataError: as ``Gallery.open``.
            ConfigError: thumbnails of a gallery that is no folder.
        """
        limits = allowed.limits
        if allowed.thumbnails == KEPT and is_address(place):
            raise ConfigError(
                f"thumbnails=kept: they lie in a gallery's folder, and {place} is none; use thumbnails=none"
            )
        self.encoder, self.allowed = encoder, allowed
        self.gallery = GalleryThread(place, encoder, limits, threads=threads)
        self.inference = Inference(encoder, limits, threads or os.cpu_count() or 1)
        self.thumbnails = Thumbnails(self.gallery.folder, allowed.thumbnails, encoder)
        self.metrics = Metrics()
        self.metrics.watch("pictures_in_work", "Pictures in work.", lambda: self.inference.places.taken)
        self.metrics.watch("gallery_waiting", "Requests that wait for the gallery.", lambda: self.gallery.places.taken)
        warming = self.gallery.warm()
        self.inference.warm()
        self.size, self.warning = warming.result()
        started = time.time()
        self.gallery.later(lambda gallery: self.thumbnails.sweep(gallery, started))

    def close(self) -> None:
        """Do what was taken, and close."""
        self.inference.close()
        self.gallery.close()

    def info(self, gallery: Gallery, who: Who) -> dict[str, Any]:
        """Return what ``/v1/info`` says."""
        encoder, align = self.encoder, self.encoder.preprocess.align
        about = {
            "name": encoder.name,
            "fingerprint": encoder.fingerprint,
            "dim": encoder.dim,
            "compatible_with": encoder.compatible_with,
            "rates": [{"far": far, "sq_dist": sq_dist} for far, sq_dist in sorted(encoder.thresholds.items())],
            "finds_faces": align is not None and align.detector != "none",
        }
        allowed = self.allowed
        return {
            "version": __version__,
            "encoder": about,
            "gallery": gallery.info(),
            "limits": asdict(allowed.limits),
            "gate": asdict(allowed.gate),
            "thumbnails": allowed.thumbnails,
            "role": who.role,
        }

    # How faces are told

    def told(self, cut: CutFace) -> dict[str, Any]:
        """Return a face as the schema ``Face``."""
        face, quality = cut.face, cut.quality
        return {
            "box": [float(value) for value in cut.box],
            "score": face.score if face else None,
            "landmarks": face.landmarks.tolist() if face else None,
            "quality": {"side": quality.side, "sharpness": quality.sharpness, "frontality": quality.frontality},
            "notes": [reason._asdict() for reason in shortcomings(quality, self.allowed.gate)],
        }

    def notes(self, photo: SeenPhoto) -> list[dict[str, str]]:
        """Return the notes of a photo as a whole."""
        if photo.meant is None:
            return [{"code": "no_face", "message": f"{photo.problem}; give a photo that shows the face larger"}]
        count = len(photo.faces) + photo.left_out
        if count == 1:
            return []
        left = f", of which the {len(photo.faces)} clearest are looked at" if photo.left_out else ""
        return [{"code": "several_faces", "message": f"the photo shows {count} faces{left}"}]


def served(request: Request) -> Service:
    """Return the service that a request is for."""
    return request.app.state.service


def caller(request: Request) -> Who:
    """Return who asks."""
    return request.state.who


Served = Annotated[Service, Depends(served)]
Caller = Annotated[Who, Depends(caller)]


def paged(found: Sequence[Any], limit: int) -> tuple[Sequence[Any], bool]:
    """Split what was asked for with one more than `limit` into a page, and whether another follows."""
    return found[:limit], len(found) > limit
