"""A gallery as a plain dict, searched by numpy: what every engine has to answer like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.helpers.galleries import brute


@dataclass(frozen=True)
class Face:
    id: str
    identity: str
    metadata: Mapping[str, Any]
    vector: np.ndarray
    fingerprint: str


@dataclass
class Model:
    """The faces of a gallery by id."""

    faces: dict[str, Face] = field(default_factory=dict)

    def add(self, faces: Sequence[Face], on_duplicate: str) -> tuple[int, int, int] | None:
        """Return how many were added, replaced and skipped; None where "error" refuses."""
        known = [face for face in faces if face.id in self.faces]
        if known and on_duplicate == "error":
            return None
        kept = [face for face in faces if on_duplicate == "replace" or face.id not in self.faces]
        self.faces |= {face.id: face for face in kept}
        replaced = len(known) if on_duplicate == "replace" else 0
        return len(kept) - replaced, replaced, len(faces) - len(kept)

    def named(self, name: str, by: str) -> list[str]:
        """Return the ids of the faces of an id or identity."""
        wanted: Callable[[Face], bool] = {
            "id": lambda face: face.id == name,
            "identity": lambda face: face.identity == name,
        }[by]
        return [face.id for face in self.faces.values() if wanted(face)]

    def remove(self, ids: Sequence[str]) -> None:
        for name in ids:
            del self.faces[name]

    def rename(self, ids: Sequence[str], identity: str) -> None:
        for name in ids:
            self.faces[name] = replace(self.faces[name], identity=identity)

    def nearest(self, query: np.ndarray, where: Mapping[str, Any] | None) -> list[tuple[float, Face]]:
        """Return all faces that a filter admits, nearest first."""
        admitted = [face for face in self.faces.values() if admits(face, where or {})]
        if not admitted:
            return []
        sq_dist = brute(np.array([face.vector for face in admitted]), query[None])[0]
        return [(float(sq_dist[i]), admitted[i]) for i in np.argsort(sq_dist, kind="stable")]

    def people(self) -> dict[str, int]:
        """Return how many faces each person has, by name."""
        names = [face.identity for face in self.faces.values() if face.identity]
        return {name: names.count(name) for name in sorted(set(names))}


def admits(face: Face, where: Mapping[str, Any]) -> bool:
    """Tell whether every key equals its value, or one of a list; None means absent or null."""
    fields = {**face.metadata, "id": face.id, "identity": face.identity, "path": face.id}
    for key, value in where.items():
        choices = value if isinstance(value, list) else [value]
        found = fields.get(key)
        if not any(found is None if choice is None else found is not None and found == choice for choice in choices):
            return False
    return True
