"""How a face is found in a photo and cut out of it."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class AlignOptions(Options):
    """Detection and alignment; :class:`facenet.faces.alignment.Alignment` does it."""

    detector: str = option("none", choices=("none", "yunet"), help="yunet finds faces in photos; none: faces already")
    template: str = option("arcface", choices=("arcface", "box"), help="landmarks turned upright, or the box as it is")
    margin: float = option(2.0, least=0.5, most=4, help="side of the result over the template's")
    size: int = option(224, least=16, most=2048, help="pixels of the result's side")
    pick: str = option("prominent", choices=("prominent", "largest", "center"), help="which face of several is meant")
    score: float = option(0.6, least=0.3, most=1, help="detection score that a face must reach")
    min_face: int = option(20, least=1, help="pixels that the shorter side of a face's box must have")
