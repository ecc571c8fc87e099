"""IJB-B and IJB-C: templates of faces, verified in pairs and searched in two galleries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import progress, table
from facenet.options import RATE, option


@dataclass(frozen=True, kw_only=True)
class IjbOptions(EncoderUse, CommandOptions):
    """Options of ``ijb``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    root: str = option(help="folder of IJB-B or IJB-C: meta/ and loose_crop/")
    weigh_by_score: bool = option(True, help="weigh the faces of a template by the detector's score, as others do")
    margin: float = option(
        1.0, least=0.5, most=4, help="side of a cut face over ArcFace's template, if the encoder names none"
    )
    fars: tuple[float, ...] = option((1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), **RATE, help="false accept rates")
    batch_size: int = option(256, least=1, help="images embedded at a time")


def run(options: IjbOptions, out: Path) -> dict[str, Any]:
    import numpy as np

    from facenet.data.ijb import read_ijb, read_template_pairs
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.ijb import embed_templates, identify_templates, verify_templates

    found = read_ijb(options.root)
    listed = np.unique(found.faces.templates)
    for _ in read_template_pairs(found.pairs, listed):  # a damaged list is refused before hours of embedding
        pass
    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    how: dict[str, Any] = {"weigh_by_score": options.weigh_by_score, "margin": options.margin}
    with progress("embedding") as shown:
        templates = embed_templates(encoder, found.faces, **how, batch_size=options.batch_size, progress=shown)
    metrics: dict[str, Any] = {
        "set": found.name,
        "faces": len(found.faces.images),
        "templates": len(templates.templates),
        "weigh_by_score": options.weigh_by_score,
        "mirror": encoder.preprocess.mirror,
        "fingerprint": encoder.fingerprint,
        "sha256": found.sha256,
        "verification": verify_templates(templates, read_template_pairs(found.pairs, listed), options.fars),
    }
    if found.probes is not None:
        metrics["identification"] = identify_templates(templates, found.galleries, found.probes)
    show(metrics)
    return metrics


def show(metrics: dict[str, Any]) -> None:
    """Print TAR at each FAR in both readings, then what both galleries answer."""
    scored = metrics["verification"]
    rows: list[tuple[Any, ...]] = []
    for far, row in scored["tar_at_far"].items():
        told = ("too few pairs", "") if row["tar"] is None else (row["tar"], f"{row['low']:.4f} to {row['high']:.4f}")
        rows.append((far, *told, row["tar_at_nearest_far"]))
    title = f"{metrics['set']}: {metrics['faces']} faces, {metrics['templates']} templates, {scored['pairs']} pairs"
    table(rows, header=("FAR", "TAR", "95 %", "TAR at the nearest FAR"), title=title)
    if "identification" not in metrics:
        print("1:N: the lists of galleries and probes are not there")
        return
    rows = []
    for name, found in metrics["identification"].items():
        at = [entry["tpir"] if isinstance(entry, dict) else entry for entry in found["tpir_at_fpir"].values()]
        rows.append((name, found["probes"], *(found["cmc"][k] for k in ("1", "5", "10")), *at))
    rates = [f"TPIR at FPIR {fpir}" for fpir in metrics["identification"]["mean"]["tpir_at_fpir"]]
    table(rows, header=("gallery", "probes with a mate", "rank 1", "rank 5", "rank 10", *rates))


def main() -> None:
    launch("ijb", run)
