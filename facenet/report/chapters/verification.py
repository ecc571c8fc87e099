"""The chapter of a verification: curves and tables, mistakes as pictures, and the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.report import plots, sheets
from facenet.report.chapters import verification_tables as tables
from facenet.report.chapters.verdict import best_baseline, list_warnings, verdict_line
from facenet.report.page import Block, Chapter, Figures, Section, Text
from facenet.report.parts import Evaluation, read_curves, read_evaluation
from facenet.report.runs import Run
from facenet.report.values import get_mapping, get_value, number, parse_rate, percent, plain, short
from facenet.types import EmbeddingSet

MARGIN = 0.2  # of triplets, if the encoder's record has none
FAR = 1e-3  # the clusters use its threshold
Pictures = Callable[[int], list[Section]]  # makes sections with pictures of so many pixels a side


def verification_chapter(
    run: Run, name: str, encoder: dict[str, Any] | None, *, degraded: bool = False
) -> Callable[[int], Chapter]:
    """Return a function that makes the chapter for a picture's side in pixels.

    Everything except the pictures is made once, before the function is called.

    Args:
        run: A run with the metrics of a verification.
        name: Unique prefix of the drawings on the page.
        encoder: The encoder's record, if there is one.
        degraded: Whether the page has a chapter on robustness; if not, a line explains how to make one.
    """
    evaluation = read_evaluation(run)
    numbers, training = _numbers(run, name, encoder, evaluation), _training(run, name)
    left_out = []
    pictures: Pictures = _no_pictures
    if evaluation is None:
        left_out.append("curves, distances, mistakes, triplets, clusters, map: facenet verify keeps what they need")
    else:
        pictures, missing = _pictures(run, name, encoder, evaluation)
        left_out += missing
    if not training:
        left_out.append("training curves: pass the run folder of facenet train")
    if not degraded:
        left_out.append("robustness to compression, size, blur, cover: pass the run folder of facenet degrade too")
    if best_baseline(run.metrics) is None:
        left_out.append("baselines on the same pairs: facenet verify baselines=true")
    facts = Section("What it was measured with", [tables.fact_table(run, encoder, evaluation)])
    verdict, warnings = verdict_line(run), list_warnings(run, encoder)

    def make(side: int) -> Chapter:
        sections = [*numbers, *pictures(side), *training, facts]
        return Chapter(short(run.name), verdict, warnings, sections, left_out)

    return make


def _no_pictures(side: int) -> list[Section]:
    return []


def _numbers(run: Run, name: str, encoder: dict[str, Any] | None, evaluation: Evaluation | None) -> list[Section]:
    """Return the sections with curves and tables."""
    found = run.metrics["verification"]
    blocks: list[Block] = []
    if evaluation is not None:
        distances, same = evaluation.sq_dist, evaluation.same
        figures = plots.operating_curves(name, distances, same, get_mapping(found, "val_at_far"))
        figures.append(plots.distance_histogram(name, distances, same, _thresholds(run, encoder)))
        blocks.append(Figures(figures))
    table = tables.far_table(found)
    blocks += [] if table is None else [table]
    if number(found.get("auc")) is not None:
        blocks.append(Text(f"Area under the ROC {plain(found['auc'])}, equal error rate {percent(found.get('eer'))}."))
    parts: list[tuple[str, Sequence[Block | None]]] = [
        ("How often it is right", blocks),
        ("Against what needs no learning", [tables.baseline_table(run.metrics)]),
        ("Fold by fold", [tables.fold_table(found)]),
        ("One against many", [tables.identification_table(run.metrics)]),
        ("Smaller embeddings", [tables.quantised_table(run.metrics)]),
    ]
    return [Section(title, kept) for title, some in parts if (kept := [block for block in some if block is not None])]


def _thresholds(run: Run, encoder: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """Return the thresholds to draw: that of the folds, and those calibrated for a FAR."""
    found = [("best on the other folds", number(get_value(run.metrics, "verification", "threshold")))]
    found += [(f"calibrated for FAR {far:g}", value) for far, value in _calibrated(run, encoder).items()]
    return [(label, value) for label, value in found if value is not None and 0 <= value <= 4]


def _calibrated(run: Run, encoder: Mapping[str, Any] | None) -> dict[float, float]:
    table = get_mapping(run.metrics, "thresholds") or get_mapping(encoder, "thresholds")
    pairs = [(parse_rate(str(far)), number(value)) for far, value in table.items()]
    return {far: value for far, value in pairs if far is not None and value is not None}


def _training(run: Run, name: str) -> list[Section]:
    figures = plots.training_curves(name, read_curves(run))
    return [Section("How it was trained", [Figures(figures)])] if figures else []


def _pictures(
    run: Run, name: str, encoder: dict[str, Any] | None, evaluation: Evaluation
) -> tuple[Pictures, list[str]]:
    """Return a function that makes the sections with faces, and lines on what is missing for them."""
    embeddings = evaluation.embeddings
    face_map = _face_map(name, embeddings)
    if not sheets.Faces(evaluation, encoder, side=1).there:
        where = short(embeddings.root, 80)
        missing = f"pictures of mistakes, triplets and clusters: the image files under {where!r} are gone"
        return lambda side: face_map, [missing]
    threshold = number(get_value(run.metrics, "verification", "threshold"))
    if threshold is None:
        return lambda side: face_map, ["pictures of mistakes and clusters: the metrics hold no threshold"]
    margin = number(get_value(encoder, "training", "loss", "margin")) or MARGIN
    triplets = sheets.find_triplets(embeddings, margin)
    linked = _cluster_threshold(run, encoder, threshold)
    clusters = sheets.find_clusters(embeddings, linked)

    def show(side: int) -> list[Section]:
        faces = sheets.Faces(evaluation, encoder, side)
        note = Text(f"The reported faces grouped at a squared distance of {linked:.3f}.")
        grouped = sheets.cluster_sheets(faces, clusters)
        shown: list[tuple[str, list[Block]]] = [
            ("What it gets wrong", list(sheets.mistake_sheets(evaluation, faces, threshold))),
            ("Triplets", [sheets.triplet_sheet(faces, triplets, margin)] if triplets else []),
            ("Clusters", [note, *grouped] if grouped else []),
        ]
        return [*(Section(title, blocks) for title, blocks in shown if blocks), *face_map]

    return show, []


def _face_map(name: str, embeddings: EmbeddingSet) -> list[Section]:
    rows = sheets.map_rows(embeddings)
    if len(rows) < 10:
        return []
    names = [embeddings.identities[row] for row in rows]
    return [Section("Who lies where", [Figures([plots.face_map(name, embeddings.vectors[rows], names)])])]


def _cluster_threshold(run: Run, encoder: Mapping[str, Any] | None, otherwise: float) -> float:
    """Return the threshold calibrated for the rate nearest to FAR 1e-3, else `otherwise`; within [0, 4]."""
    known = _calibrated(run, encoder)
    far = min(known, key=lambda rate: abs(float(np.log(max(rate, 1e-12) / FAR))), default=None)
    return float(np.clip(otherwise if far is None else known[far], 0, 4))
