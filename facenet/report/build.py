"""Run folders to one self-contained HTML page: what was measured, what it looks like, and what to beware of.

Each run becomes a chapter, each sweep another. The page holds its drawings and pictures itself, has no scripts and asks
the network for nothing; with many pictures they are made smaller until it stays under `LIMIT` bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facenet.encoders.lookup import read_record
from facenet.errors import DataError
from facenet.files import atomic_write, read_sealed
from facenet.report import facts, plots, sheets
from facenet.report.chapters import comparisons as chapters
from facenet.report.chapters.upgrade import compatibility
from facenet.report.page import Block, Chapter, Figures, Section, Text, render
from facenet.report.runs import (
    Evaluation,
    Found,
    Run,
    dig,
    find_runs,
    number,
    read_curves,
    read_encoder,
    read_evaluation,
)
from facenet.report.sweeps import numbers, sweeps, view2
from facenet.types import Progress

LIMIT = 2_000_000  # bytes of a page
SIDES = (88, 72, 56, 40)  # pixels of a picture, largest first
FULL = 4  # runs shown in full; of further ones the numbers
MARGIN = 0.2  # of triplets, where the encoder does not say
FAR = 1e-3  # whose threshold makes the clusters
Made = Callable[[int], Chapter]  # a chapter whose pictures have so many pixels


def write_report(
    folders: Sequence[str | Path],
    page: str | Path,
    *,
    encoder: str | Path | None = None,
    title: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the page of the given run folders (or folders of sweeps); return what ``metrics.json`` holds.

    Args:
        folders: Run folders of scripts/train.py, verify.py, degrade.py, cluster.py or compat.py, or of sweeps of them.
        page: The HTML file to write.
        encoder: An encoder folder for runs without one of their own; of given runs the one with the same fingerprint
            is found without it.
        title: Heading of the page.
        progress: Called with (chapters done, chapters).

    Raises:
        DataError: nothing to show, broken files, or a page that is too large even with small pictures.
    """
    found = find_runs(folders)
    records = _records(found.runs, encoder)
    made = _chapters(found, records, progress)
    source = f"Made by facenet from {', '.join(dict.fromkeys(facts.short(folder, 80) for folder in folders))}."
    for side in SIDES:
        content = [chapter(side) for chapter in made]
        text = render(title or "Face verification", source, content).encode("utf-8", "replace")
        if len(text) <= LIMIT:
            break
    else:
        raise DataError(f"report: the page has {len(text):,} bytes, more than {LIMIT:,}; give fewer runs at a time")
    with atomic_write(page) as file:
        file.write(text)
    return {
        "page": str(page),
        "bytes": len(text),
        "picture_side": side,
        "chapters": {chapter.title: [section.title for section in chapter.sections] for chapter in content},
        "warnings": {chapter.title: list(chapter.warnings) for chapter in content if chapter.warnings},
        "sweeps": numbers(sweeps(found.runs), view2(found.runs)),
    }


def _records(runs: Sequence[Run], encoder: str | Path | None) -> dict[str, dict[str, Any]]:
    """Return the encoder record of each run by the run's name: its own, one given, or one with its fingerprint."""
    own = {run.name: read_encoder(run) for run in runs}
    given = read_record(encoder)
    by_print = {
        record["fingerprint"]: record for record in [*own.values(), given] if record and "fingerprint" in record
    }
    found = {}
    for run in runs:
        meta = run.part("evaluation/meta.json")
        name = read_sealed(meta).get("fingerprint") if meta else None
        record = own[run.name] or (by_print.get(name) if isinstance(name, str) else None) or given
        if record:
            found[run.name] = record
    return found


def _chapters(found: Found, records: Mapping[str, dict[str, Any]], progress: Progress | None) -> list[Made]:
    """Return the chapters in their order: overview, runs in full, other measurements, sweeps."""
    scored = [run for run in found.runs if run.kind == "verification" or len(found.runs) == 1]
    scored = [run for run in scored if isinstance(run.metrics.get("verification"), Mapping)]
    degraded = [run for run in found.runs if run.kind == "degrade"]
    todo: list[Callable[[], Made]] = []
    if len(scored) > 1:
        todo.append(lambda: _still(chapters.overview(scored, FULL)))
    for place, run in enumerate(scored[:FULL]):
        todo.append(partial(_run, run, f"r{place}", records.get(run.name), bool(degraded)))
    for place, run in enumerate(degraded):
        todo.append(partial(_made, chapters.degraded, run, f"d{place}"))
    upgrades = [run for run in found.runs if run.kind == "compat"]
    todo += [partial(_made, compatibility, run, f"u{place}") for place, run in enumerate(upgrades)]
    todo += [partial(_made, chapters.clustered, run) for run in found.runs if run.kind == "cluster"]
    todo += [partial(_made, chapters.sweep, sweep, found) for sweep in sweeps(found.runs)]
    if any(run.kind == "lfw_view2" for run in found.runs):
        todo.append(lambda: _still(chapters.folds(view2(found.runs), found)))
    made = []
    for done, make in enumerate(todo):
        made.append(make())
        if progress is not None:
            progress(done + 1, len(todo))
    return made


def _still(chapter: Chapter) -> Made:
    return lambda side: chapter


def _made(make: Callable[..., Chapter], *arguments: Any) -> Made:
    return _still(make(*arguments))


def _run(run: Run, name: str, encoder: dict[str, Any] | None, degraded: bool) -> Made:
    """Return the chapter of one verification: everything but its pictures is made once."""
    evaluation = read_evaluation(run)
    before, after, left_out = _numbers(run, name, encoder, evaluation), _training(run, name), []
    pictures: Callable[[int], list[Section]] = lambda side: []  # noqa: E731
    if evaluation is None:
        left_out.append("curves, distances, mistakes, triplets, clusters, map: scripts/verify.py keeps what they need")
    else:
        pictures, missing = _pictures(run, name, encoder, evaluation)
        left_out += missing
    if not after:
        left_out.append("training curves: pass the run folder of scripts/train.py")
    if not degraded:
        left_out.append("robustness to compression, size, blur, cover: pass the run folder of scripts/degrade.py too")
    if facts.floor_of(run.metrics) is None:
        left_out.append("floors on the same pairs: scripts/verify.py baselines=true")
    last = Section("What it was measured with", [facts.fact_table(run, encoder, evaluation)])
    verdict, warnings = facts.verdict(run), facts.warnings(run, encoder)
    return lambda side: Chapter(
        facts.short(run.name), verdict, warnings, [*before, *pictures(side), *after, last], left_out
    )


def _numbers(run: Run, name: str, encoder: dict[str, Any] | None, evaluation: Evaluation | None) -> list[Section]:
    """Return curves and tables of a verification."""
    found = run.metrics["verification"]
    blocks: list[Block] = []
    if evaluation is not None:
        distances, same = evaluation.sq_dist, evaluation.same
        fars = found.get("val_at_far")
        figures = plots.operating_curves(name, distances, same, fars if isinstance(fars, Mapping) else {})
        figures.append(plots.distance_histogram(name, distances, same, _thresholds(run, encoder)))
        blocks.append(Figures(figures))
    table = facts.far_table(found)
    blocks += [] if table is None else [table]
    if number(found.get("auc")) is not None:
        blocks.append(
            Text(f"Area under the ROC {facts.plain(found['auc'])}, equal error rate {facts.percent(found.get('eer'))}.")
        )
    parts: list[tuple[str, Sequence[Block | None]]] = [
        ("How often it is right", blocks),
        ("Against what needs no learning", [facts.floor_table(run.metrics)]),
        ("Fold by fold", [facts.fold_table(found)]),
        ("One against many", [facts.identification_table(run.metrics)]),
        ("Smaller embeddings", [facts.quantised_table(run.metrics)]),
    ]
    return [Section(title, kept) for title, some in parts if (kept := [block for block in some if block is not None])]


def _thresholds(run: Run, encoder: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """Return the thresholds worth a line: that of the folds, and those calibrated for a FAR."""
    found = [("best on the other folds", number(dig(run.metrics, "verification", "threshold")))]
    found += [(f"calibrated for FAR {far:g}", value) for far, value in _calibrated(run, encoder).items()]
    return [(label, value) for label, value in found if value is not None and 0 <= value <= 4]


def _calibrated(run: Run, encoder: Mapping[str, Any] | None) -> dict[float, float]:
    table = dig(run.metrics, "thresholds") or dig(encoder, "thresholds")
    pairs = (
        [(facts.rate(str(far)), number(value)) for far, value in table.items()] if isinstance(table, Mapping) else []
    )
    return {far: value for far, value in pairs if far is not None and value is not None}


def _training(run: Run, name: str) -> list[Section]:
    figures = plots.training_curves(name, read_curves(run))
    return [Section("How it was trained", [Figures(figures)])] if figures else []


def _pictures(
    run: Run, name: str, encoder: dict[str, Any] | None, evaluation: Evaluation
) -> tuple[Callable[[int], list[Section]], list[str]]:
    """Return the sections that show faces, and what is missing for them."""
    embeddings = evaluation.embeddings
    rows = sheets.map_rows(embeddings)
    still: list[Section] = []
    if len(rows) >= 10:
        names = [embeddings.identities[row] for row in rows]
        still.append(Section("Who lies where", [Figures([plots.face_map(name, embeddings.vectors[rows], names)])]))
    if not sheets.Faces(evaluation, encoder, SIDES[0]).there:
        where = facts.short(embeddings.root, 80)
        return lambda side: still, [
            f"pictures of mistakes, triplets and clusters: the image files under {where!r} are gone"
        ]
    threshold = number(dig(run.metrics, "verification", "threshold"))
    if threshold is None:
        return lambda side: still, ["pictures of mistakes and clusters: the metrics hold no threshold"]
    margin = number(dig(encoder, "training", "loss", "margin")) or MARGIN
    triplets = sheets.find_triplets(embeddings, margin)
    linked = _cluster_threshold(run, encoder, threshold)
    clusters = sheets.find_clusters(embeddings, linked)

    def show(side: int) -> list[Section]:
        faces = sheets.Faces(evaluation, encoder, side)
        note = Text(f"The reported faces grouped at a squared distance of {linked:.3f}.")
        shown: list[tuple[str, list[Block]]] = [
            ("What it gets wrong", list(sheets.mistake_sheets(evaluation, faces, threshold))),
            ("Triplets", [sheets.triplet_sheet(faces, triplets, margin)] if triplets else []),
            ("Clusters", [note, *grouped] if (grouped := sheets.cluster_sheets(faces, clusters)) else []),
        ]
        return [*(Section(title, blocks) for title, blocks in shown if blocks), *still]

    return show, []


def _cluster_threshold(run: Run, encoder: Mapping[str, Any] | None, otherwise: float) -> float:
    """Return the threshold calibrated for FAR 1e-3, or the nearest rate there is, else that of the folds; in [0, 4]."""
    known = _calibrated(run, encoder)
    far = min(known, key=lambda rate: abs(float(np.log(max(rate, 1e-12) / FAR))), default=None)
    return float(np.clip(otherwise if far is None else known[far], 0, 4))
