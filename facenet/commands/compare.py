"""Are these two photos one person?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import table
from facenet.options import RATE, option


@dataclass(frozen=True, kw_only=True)
class CompareOptions(EncoderUse, CommandOptions):
    """Options of ``compare``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    a: str = option(help="a photo")
    b: str = option(help="another photo")
    far: float = option(0.001, **RATE, help="accept at the threshold calibrated for this false accept rate")
    threshold: float | None = option(None, least=0, most=4, help="accept up to this sq_dist instead")


def run(options: CompareOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.photos import compare_photos

    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    far = options.far
    threshold = encoder.threshold(far) if options.threshold is None else options.threshold
    found = compare_photos(encoder, options.a, options.b, threshold=threshold)
    found.draw(out / "compare.png")
    table(
        [
            ("a", found.a.summary()),
            ("b", found.b.summary()),
            ("sq_dist", found.sq_dist),
            ("threshold" if options.threshold is not None else f"threshold at far={far:g}", threshold),
            ("verdict", found.verdict),
            ("picture", out / "compare.png"),
        ],
        title=f"{options.a}  against  {options.b}",
    )
    photos = {"a": found.a.plain(), "b": found.b.plain()}
    return {"sq_dist": found.sq_dist, "threshold": threshold, "far": far, "same": found.same, **photos}


def main() -> None:
    launch("compare", run)
