"""Write the report of run folders, one HTML page: metrics, curves, pictures and warnings.

Each run and each sweep becomes a chapter. The page embeds its drawings and pictures, has no scripts and loads nothing
from the network. If the page has more than `LIMIT` bytes, its pictures are made smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from facenet.encoders.lookup import read_record
from facenet.errors import ConfigError, DataError
from facenet.files import atomic_write, read_csv, read_sealed
from facenet.report.chapters.clusters import cluster_chapter
from facenet.report.chapters.comparisons import sweep_chapter, view2_chapter
from facenet.report.chapters.robustness import robustness_chapter
from facenet.report.chapters.search import search_chapter
from facenet.report.chapters.upgrade import upgrade_chapter
from facenet.report.chapters.verification import verification_chapter
from facenet.report.page import Chapter, Section, Table, render
from facenet.report.parts import read_encoder
from facenet.report.runs import FoundRuns, Run, find_runs
from facenet.report.sweeps import group_folds, group_sweeps, sweep_metrics
from facenet.report.values import get_value, number, percent, plain, plus_minus, short
from facenet.types import Progress

LIMIT = 2_000_000  # bytes of a page
SIDES = (88, 72, 56, 40)  # pixels of a picture, largest first
FULL = 4  # runs shown in full; further ones show numbers only
Made = Callable[[int], Chapter]  # makes a chapter with pictures of so many pixels a side


def write_report(
    folders: Sequence[str | Path],
    page: str | Path,
    *,
    encoder: str | Path | None = None,
    title: str | None = None,
    fpir: float | None = None,
    progress: Progress | None = None,
    full: int = FULL,
    limit: int = LIMIT,
) -> dict[str, Any]:
    """Write the page of the given run folders (or folders of sweeps).

    Args:
        folders: Run folders of facenet train, verify, degrade, cluster, compat or search, or of
            sweeps.
        page: The HTML file to write.
        encoder: Encoder folder for runs that have none. An encoder that lies in another of the runs is found by its
            fingerprint.
        title: Heading of the page.
        fpir: Share of strangers at which the searches are judged; None: as each was.
        progress: Called with (chapters done, chapters).
        full: Number of verifications shown in full; the overview lists the numbers of further ones.
        limit: Bytes of the page, at most.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ConfigError: `fpir` without a search, or one that a search does not list.
        DataError: no results to show, damaged files, or a page that is too large even with small pictures.
    """
    found = find_runs(folders)
    if fpir is not None and all(run.kind != "search" for run in found.runs):
        raise ConfigError("fpir: it is for runs of facenet search, and none is given; pass one, or leave fpir out")
    chapters = _chapters(found, _records(found.runs, encoder), full, fpir, progress)
    source = f"Made by facenet from {', '.join(dict.fromkeys(short(folder, 80) for folder in folders))}."
    if found.foreign:
        source += (
            f" Left out, since a report shows nothing of them: {', '.join(short(name) for name in found.foreign)}."
        )
    text, side, content = fit(title or "Face verification", source, chapters, limit)
    with atomic_write(page) as file:
        file.write(text)
    return {
        "page": str(page),
        "bytes": len(text),
        "picture_side": side,
        "left_out": found.foreign,
        "chapters": {chapter.title: [section.title for section in chapter.sections] for chapter in content},
        "warnings": {chapter.title: list(chapter.warnings) for chapter in content if chapter.warnings},
        "sweeps": sweep_metrics(group_sweeps(found.runs), group_folds(found.runs)),
    }


def fit(title: str, source: str, chapters: Sequence[Made], limit: int = LIMIT) -> tuple[bytes, int, list[Chapter]]:
    """Return the page with the largest pictures that keep it within `limit` bytes, their side, and its chapters.

    Raises:
        DataError: the page is too large even with the smallest pictures.
    """
    for side in SIDES:
        content = [chapter(side) for chapter in chapters]
        text = render(title, source, content).encode("utf-8", "replace")
        if len(text) <= limit:
            return text, side, content
    raise DataError(f"report: the page has {len(text):,} bytes, more than {limit:,}; give fewer runs at a time")


def _records(runs: Sequence[Run], encoder: str | Path | None) -> dict[str, dict[str, Any]]:
    """Return the encoder record of each run by the run's name: its own, one given, or one with its fingerprint."""
    own = {run.name: read_encoder(run) for run in runs}
    given = read_record(encoder) if encoder else None
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


def _chapters(
    found: FoundRuns, records: Mapping[str, dict[str, Any]], full: int, fpir: float | None, progress: Progress | None
) -> list[Made]:
    """Return the chapters in their order: overview, runs in full, other measurements, sweeps."""
    scored = [run for run in found.runs if run.kind == "verification" or len(found.runs) == 1]
    scored = [run for run in scored if isinstance(run.metrics.get("verification"), Mapping)]
    kinds: dict[str, list[Run]] = {}
    for run in found.runs:
        kinds.setdefault(run.kind, []).append(run)
    degraded, upgrades = kinds.get("degrade", []), kinds.get("compat", [])
    todo: list[Callable[[], Chapter | Made]] = []
    if len(scored) > 1:
        todo.append(partial(overview_chapter, scored, full))
    for place, run in enumerate(scored[:full]):
        todo.append(partial(verification_chapter, run, f"r{place}", records.get(run.name), degraded=bool(degraded)))
    todo += [partial(robustness_chapter, run, f"d{place}") for place, run in enumerate(degraded)]
    todo += [partial(upgrade_chapter, run, f"u{place}") for place, run in enumerate(upgrades)]
    todo += [partial(cluster_chapter, run) for run in kinds.get("cluster", [])]
    todo += [partial(search_chapter, run, fpir) for run in kinds.get("search", [])]
    todo += [partial(sweep_chapter, sweep, found.unfinished) for sweep in group_sweeps(found.runs)]
    if "lfw_view2" in kinds:
        todo.append(partial(view2_chapter, group_folds(found.runs), found.unfinished))
    made: list[Made] = []
    for done, make in enumerate(todo, 1):
        chapter = make()
        made.append(partial(_without_pictures, chapter) if isinstance(chapter, Chapter) else chapter)
        if progress is not None:
            progress(done, len(todo))
    return made


def _without_pictures(chapter: Chapter, side: int) -> Chapter:
    return chapter


def scored_pairs(run: Run) -> object:
    """Return what tells the pairs of one run from those of another: their names, or their counts without a file."""
    path = run.part("evaluation/pairs.csv")
    if path is None:
        return tuple(plain(run.metrics["verification"].get(name)) for name in ("pairs", "same", "different"))
    rows = read_csv(path, ("first", "second", "same"), remedy="run the verification again")
    return frozenset((row["first"], row["second"], row["same"]) for row in rows)


def overview_chapter(runs: Sequence[Run], full: int) -> Chapter:
    """Make the chapter that compares the verifications of several runs."""
    rows = []
    for run in runs:
        found = run.metrics["verification"]
        rows.append(
            (
                short(run.name),
                plus_minus(found.get("accuracy"), found.get("sem")),
                plain(found.get("auc")),
                percent(found.get("eer")),
                plain(found.get("pairs")),
                plain(get_value(run.metrics, "train", "faces_seen")),
            )
        )
    header = ("run", "accuracy ± SEM", "AUC", "EER", "pairs", "faces seen")
    further = [short(run.name) for run in runs[full:]]
    left_out = [f"in full: {', '.join(further)}; give fewer runs at a time"] if further else []
    known = [(value, run) for run in runs if (value := number(run.metrics["verification"].get("accuracy"))) is not None]
    verdict = f"{len(runs)} runs."
    if len({scored_pairs(run) for run in runs}) > 1:
        verdict = f"{len(runs)} runs, which scored different pairs: their accuracies do not rank them."
    elif known:
        value, best = max(known, key=lambda pair: pair[0])
        verdict = f"Of {len(runs)} runs {short(best.name)} has the highest accuracy, {percent(value)}."
    note = "Accuracies are comparable only if the runs scored the same pairs."
    return Chapter("Overview", verdict, [], [Section("Runs", [Table(header, rows, note)])], left_out)
