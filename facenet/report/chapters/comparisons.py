"""Chapters that compare runs with published figures: the paper's tables, and LFW View 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facenet.report.page import Block, Chapter, Figures, Section, Table, Text
from facenet.report.paper import LFW_NEIGHBOURS, LFW_NOTE, PAPER, PAPER_NOTE
from facenet.report.plots import comparison
from facenet.report.sweeps import Folds, Setting, Spread, Sweep
from facenet.report.values import percent, plain, plus_minus, short


def sweep_chapter(found: Sweep, unfinished: Sequence[str]) -> Chapter:
    """Make the chapter that compares our runs with one of the paper's tables."""
    paper = PAPER[found.table]
    ran = [row for row in found.settings if row.seeds]
    header = (paper.label, "seeds", "accuracy", "AUC", "VAL at FAR 1e-2", "VAL at FAR 1e-3", "faces seen")
    ours = Table(
        header,
        [_setting(row) for row in found.settings],
        f"Ours, scale {found.scale}: mean ± standard deviation over seeds. -: not run, or not resolvable.",
    )
    theirs = Table(
        (paper.label, "VAL at FAR 1e-3", "standard error"),
        [(_setting_name(row[0]), percent(row[1]), percent(row[2])) for row in paper.rows],
        "The paper's, on its private hold-out set.",
    )
    panels = [
        comparison(
            f"{found.table}-{found.scale}-ours",
            f"Ours, scale {short(found.scale, 20)}",
            [(_setting_name(row.setting), row.measures["accuracy"].mean, row.measures["accuracy"].std) for row in ran],
            label="accuracy",
        ),
        comparison(
            f"{found.table}-{found.scale}-paper",
            "The paper's, other data",
            [(_setting_name(row[0]), row[1], row[2]) for row in paper.rows],
            label="VAL at FAR 1e-3",
        ),
    ]
    known = [row for row in ran if row.measures["accuracy"].mean is not None]
    best = max(known, key=lambda row: row.measures["accuracy"].mean or 0, default=None)
    verdict = f"{len(ran)} of {len(paper.rows)} settings of the paper's table were run."
    if best is not None:
        verdict += (
            f" Highest accuracy: {paper.label} {_setting_name(best.setting)}, {_spread(best.measures['accuracy'])}."
        )
    sections = [Section("Ours and the paper's", [Text(PAPER_NOTE), Figures(panels), ours, theirs])]
    return Chapter(
        f"{paper.title}, scale {found.scale}", verdict, _about_jobs(found.repeated, unfinished, ran), sections
    )


def view2_chapter(found: Sequence[Folds], unfinished: Sequence[str]) -> Chapter:
    """Make the chapter of the ten folds of LFW View 2, with neighbours from the benchmark's page."""
    blocks: list[Block] = []
    warnings = []
    for one in found:
        label = f"{one.model}, seed {one.seed}"
        rows = [(str(fold), percent(value, 2)) for fold, value in one.accuracies.items()]
        rows.append(("mean ± standard error", plus_minus(one.spread.mean, one.spread.sem)))
        blocks.append(Table(("fold", "accuracy"), rows, f"{short(label)}: {one.pairs:,} pairs, each scored once."))
        if one.missing:
            warnings.append(
                f"{short(label)}: folds {', '.join(map(str, one.missing))} are missing; this is no View 2 score yet."
            )
        warnings += _about_jobs(one.repeated)
    ours = [
        (
            "Unrestricted, No Outside Data",
            f"this project, {short(one.model)}, {_folds(one)}",
            one.spread.mean,
            one.spread.sem,
        )
        for one in found
    ]
    neighbours = Table(
        ("category", "method", "accuracy", "standard error"),
        [(a, b, percent(c, 2), "-" if d is None else f"{100 * d:.2f} %") for a, b, c, d in (*ours, *LFW_NEIGHBOURS)],
        left=2,
    )
    best = max(found, key=lambda one: one.spread.mean or 0)
    score = plus_minus(best.spread.mean, best.spread.sem)
    verdict = f"LFW View 2, {_folds(best)}: accuracy {score} (standard error over the folds)."
    warnings += _about_jobs([], unfinished)
    sections = [Section("Folds", blocks), Section("Beside its neighbours", [Text(LFW_NOTE), neighbours])]
    return Chapter("Labeled Faces in the Wild, View 2", verdict, warnings, sections)


def _setting_name(value: Any) -> str:
    """Write a setting: a number plainly, a name as it is, a long one cut."""
    return short(value, 30) if isinstance(value, str) else plain(value)


def _setting(row: Setting) -> tuple[str, ...]:
    found = row.measures
    seen = found["faces_seen"].mean
    return (
        _setting_name(row.setting),
        str(len(row.seeds)) if row.seeds else "-",
        _spread(found["accuracy"]),
        plain(found["auc"].mean),
        _spread(found["val_1e-2"]),
        _spread(found["val_1e-3"]),
        plain(None if seen is None else round(seen)),
    )


def _spread(value: Spread) -> str:
    return plus_minus(value.mean, value.std)


def _folds(one: Folds) -> str:
    count = len(one.accuracies)
    return "ten folds" if not one.missing else f"{count} of ten folds"


def _about_jobs(repeated: Sequence[str], unfinished: Sequence[str] = (), ran: Sequence[Setting] = ()) -> list[str]:
    lines = []
    if repeated:
        lines.append(
            f"{len(repeated)} runs repeat a setting and a seed; the last of each counts ({short(repeated[0])}, ...)."
        )
    if unfinished:
        lines.append(f"{len(unfinished)} jobs have not finished: {short(', '.join(unfinished), 100)}.")
    if any(len(row.seeds) == 1 for row in ran):
        lines.append("Some settings have a single seed: how much of a difference is luck is not known.")
    return lines
