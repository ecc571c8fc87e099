"""How a face is found in a photo and cut out of it, and how good it must be to be enrolled."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import SHARE, Options, option

DETECTORS = {"yunet": "YuNet 2023mar, weights rounded to 8 bits", "none": "pictures are faces already"}
TEMPLATES = {
    "arcface": "a similarity transform of the five landmarks to ArcFace's template",
    "box": "a square around the box, nothing turned",
}
PICKS = {
    "prominent": "of faces that score nearly best: longer side, times nearness to the centre, is largest",
    "largest": "the largest face",
    "center": "the face nearest to the picture's centre",
}
ACTIONS = {
    "off": "nothing is judged",
    "warn": "a face that fails is enrolled, and the answer says why it fails",
    "refuse": "a face that fails is not enrolled",
}
ALL = "all"  # every face of a photo; only a folder of faces can have been cut so
LEAST_SCORE = 0.3  # a detection with a lower score is no face


@dataclass(frozen=True, kw_only=True)
class AlignOptions(Options):
    """Detection and alignment of faces; :class:`facenet.faces.alignment.Alignment` does both."""

    detector: str = option("none", choices=DETECTORS, help="yunet finds faces in photos; none: faces already")
    template: str = option("arcface", choices=TEMPLATES, help="landmarks turned upright, or the box as it is")
    margin: float = option(2.0, least=0.5, most=4, help="side of the result over the template's")
    size: int = option(224, least=16, most=2048, help="pixels of the result's side")
    pick: str = option("prominent", choices=PICKS, help="which face of several is meant")
    score: float = option(0.6, least=LEAST_SCORE, most=1, help="detection score that a face must reach")
    min_face: int = option(20, least=1, help="pixels that the shorter side of a face's box must have")


@dataclass(frozen=True, kw_only=True)
class Gate(Options):
    """What a face must reach to be enrolled; 0 is no limit. See :func:`facenet.faces.quality.shortcomings`."""

    action: str = option("warn", choices=ACTIONS, help="of a face that fails: off, warn, refuse")
    min_side: float = option(24.0, least=0, help="pixels of the shorter side of a face's box")
    min_sharpness: float = option(0.06, least=0, help="detail over coarse structure: 0.05 is blurred, 0.22 in focus")
    min_frontality: float = option(0.1, **SHARE, help="1 looks into the camera; 0: the nose is below an eye")
    min_score: float = option(0.88, **SHARE, help="score of the detection")
