"""Calibrate an encoder on one's own faces: the distances of all pairs of different people tell its thresholds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import table
from facenet.data.options import DataOptions
from facenet.options import option

FEW_PEOPLE = 100  # fewer hardly tell thresholds below a false accept rate of 1e-3
MOVED = 0.2  # of sq_dist: a threshold that moves so far was calibrated on faces of another kind


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(EncoderUse, CommandOptions):
    """Options of ``calibrate``."""

    encoder: str = option(help="encoder folder, or pretrained name")
    data: DataOptions = DataOptions(kind="folder")


def calibrate_encoder(encoder: Any, name: str, faces: Any, out: Path, world: str) -> dict[str, Any]:
    """Calibrate on faces, keep it with the encoder, and warn of what has become less certain."""
    from facenet.encoders import lookup as encoders
    from facenet.encoders import model_card
    from facenet.evaluation.calibration import calibration
    from facenet.evaluation.leakage import trained_people

    before = dict(encoder.thresholds)
    encoder.thresholds, encoder.calibration = calibration(encoder, faces)
    folder = encoders.write_calibration(encoder, name, out)
    model_card.recalibrate(folder, encoder)
    lines = warnings(before, encoder.thresholds, encoder.calibration["people"])
    if trained := trained_people(faces.names, encoder.training.get("people"), world=world):
        lines.append(
            f"{len(trained)} of the {len(faces.names)} people trained the encoder, which makes thresholds too tight;"
            " give other people (data.people=FILE names them)"
        )
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
    thresholds = {f"{far:g}": value for far, value in encoder.thresholds.items()}
    return {"encoder": str(folder), "calibration": dict(encoder.calibration), "thresholds": thresholds}


def warnings(before: dict[float, float], after: dict[float, float], people: int) -> list[str]:
    """Return what a calibration says less about than the one before, one line each."""
    lines = []
    if people < FEW_PEOPLE:
        lines.append(f"{people} people are few for a calibration; give {FEW_PEOPLE} or more")
    lost = sorted(set(before) - set(after))
    if lost:
        named = ", ".join(f"{far:g}" for far in lost)
        lines.append(f"the faces are too few to calibrate far={named}, which was calibrated before; give more people")
    for far in sorted(set(before) & set(after)):
        if abs(before[far] - after[far]) > MOVED:
            lines.append(
                f"the threshold at far={far:g} moved from {before[far]:.4f} to {after[far]:.4f}; the faces are of"
                " another kind than those it was calibrated on before"
            )
            break
    return lines


def run(options: CalibrateOptions, out: Path) -> dict[str, Any]:
    from facenet.data.sources.kinds import scan_usable
    from facenet.data.splits import listed_people
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError
    from facenet.evaluation.leakage import world_of

    if not options.data.root:
        raise ConfigError("calibrate: pass data.root=DIR, a folder with a folder of images for each person")
    encoders.check_calibration(options.encoder)
    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    data = options.data
    _, faces = scan_usable(data.kind, data.root, max_bad_share=data.max_bad_share)
    if data.people:
        faces = listed_people(faces, data.people)
    metrics = calibrate_encoder(encoder, options.encoder, faces, out, world_of(data.kind, data.seed))
    rows = [*metrics["calibration"].items()]
    rows += [(f"threshold at FAR {far}", value) for far, value in metrics["thresholds"].items()]
    table([*rows, ("calibrated encoder", metrics["encoder"])], title="calibrate")
    return metrics


def main() -> None:
    launch("calibrate", run)
