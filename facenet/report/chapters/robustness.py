"""The chapter on robustness: accuracy under degradation of the images, beside the paper's table 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facenet.data.degradations import KINDS as DEGRADATIONS
from facenet.report.page import Block, Chapter, Figure, Figures, Section, Table, Text
from facenet.report.paper import PAPER_DEGRADED, PAPER_NOTE
from facenet.report.plots import level_curves
from facenet.report.runs import Run
from facenet.report.values import get_mapping, get_value, number, parse_number, percent, plain, plus_minus, short

KINDS = {kind: DEGRADATIONS[kind].unit for kind in PAPER_DEGRADED}  # names of the two kinds in the paper


def robustness_chapter(run: Run, name: str) -> Chapter:
    """Make the chapter of a run of facenet degrade; `name` is a unique prefix of its drawings."""
    clean = number(get_value(run.metrics, "clean", "accuracy"))
    panels: list[Figure] = []
    tables: list[Table] = []
    measured: list[tuple[float, str]] = []
    for kind in run.metrics["degrade"]:
        rows = get_mapping(run.metrics, "degrade", kind)
        levels = [(level, row) for level, row in by_level(rows) if isinstance(row, Mapping)]
        if not levels:
            continue
        title = KINDS.get(kind, short(str(kind).replace("_", " "), 30))
        points = [(short(level, 10), number(row.get("accuracy")), number(row.get("sem"))) for level, row in levels]
        panels.append(level_curves(f"{name}-{len(panels)}", title, points, clean, "accuracy"))
        tables.append(_level_table(kind, title, levels))
        measured += [(value, f"{title} {level}") for level, value, _ in points if value is not None]
    verdict = "No disturbance was measured."
    if measured:
        value, worst = min(measured, key=lambda pair: pair[0])
        verdict = f"The hardest disturbance is {worst}: {percent(value)} of the pairs right, {percent(clean)} on"
        verdict += " untouched images."
    note = Text("Dashed: untouched images. Band: one standard error over the folds.")
    blocks: list[Block] = [*([Figures(panels)] if panels else []), note, *tables]
    if any(kind in PAPER_DEGRADED for kind in run.metrics["degrade"]):
        blocks.append(Text(PAPER_NOTE))
    return Chapter(f"Robustness: {short(run.name)}", verdict, [], [Section("What disturbances cost", blocks)])


def by_level(levels: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sort the levels of a disturbance by their number; levels that are no number come last, by name."""

    def place(item: tuple[str, Any]) -> tuple[bool, float, str]:
        level = parse_number(item[0])
        return level is None, level or 0.0, item[0]

    return sorted(levels.items(), key=place)


def _level_table(kind: str, title: str, levels: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    paper = {f"{level:g}": value for level, value in PAPER_DEGRADED.get(kind, ())}
    rows = []
    for level, row in levels:
        cells = (
            short(level, 20),
            plus_minus(row.get("accuracy"), row.get("sem")),
            plain(row.get("auc")),
            percent(row.get("eer")),
            percent(get_value(row, "val_at_far", "1e-3", "val")),
        )
        rows.append((*cells, percent(paper.get(level))) if paper else cells)
    header = (title, "accuracy", "AUC", "EER", "VAL at FAR 1e-3")
    return Table((*header, "the paper's VAL, other data") if paper else header, rows)
