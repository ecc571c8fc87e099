"""The service itself."""

from __future__ import annotations

from typing import Any, Literal

from facenet.service.schemas.base import Told


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
