"""Chapters that put several runs side by side: an overview, the paper's tables, LFW View 2, robustness, clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from facenet.data.degradations import KINDS as DEGRADATIONS
from facenet.report.facts import percent, plain, plus_minus, short
from facenet.report.page import Block, Chapter, Figure, Figures, Section, Table, Text
from facenet.report.plots import comparison, level_curves
from facenet.report.runs import Found, Run, dig, number, read_clusters
from facenet.report.sweeps import (
    LFW_NEIGHBOURS,
    LFW_NOTE,
    PAPER,
    PAPER_DEGRADED,
    PAPER_NOTE,
    Folds,
    Setting,
    Spread,
    Sweep,
    by_level,
)

LARGEST = 10  # clusters in a table
KINDS = {kind: DEGRADATIONS[kind].unit for kind in PAPER_DEGRADED}  # the two the paper has, and how they are named


def overview(runs: Sequence[Run], full: int) -> Chapter:
    """Set the verifications of several runs side by side."""
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
                plain(dig(run.metrics, "train", "faces_seen")),
            )
        )
    header = ("run", "accuracy ± SEM", "AUC", "EER", "pairs", "faces seen")
    more = [f"{len(runs) - full} further runs in full: give fewer at a time"] if len(runs) > full else []
    known = [(value, run) for run in runs if (value := number(run.metrics["verification"].get("accuracy"))) is not None]
    verdict = f"{len(runs)} runs."
    if known:
        value, best = max(known, key=lambda pair: pair[0])
        verdict = f"Of {len(runs)} runs {short(best.name)} has the highest accuracy, {percent(value)}."
    note = "Accuracies are comparable only where the runs scored the same pairs."
    return Chapter("Overview", verdict, [], [Section("Runs", [Table(header, rows, note)])], more)


def sweep(found: Sweep, runs: Found) -> Chapter:
    """Set one of the paper's tables beside our runs."""
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
        [(plain_or(row[0]), percent(row[1]), percent(row[2])) for row in paper.rows],
        "The paper's, on its private hold-out set.",
    )
    panels = [
        comparison(
            f"{found.table}-{found.scale}-ours",
            f"Ours, scale {short(found.scale, 20)}",
            [(plain_or(row.setting), row.measures["accuracy"].mean, row.measures["accuracy"].std) for row in ran],
            label="accuracy",
        ),
        comparison(
            f"{found.table}-{found.scale}-paper",
            "The paper's, other data",
            [(plain_or(row[0]), row[1], row[2]) for row in paper.rows],
            label="VAL at FAR 1e-3",
        ),
    ]
    known = [row for row in ran if row.measures["accuracy"].mean is not None]
    best = max(known, key=lambda row: row.measures["accuracy"].mean or 0, default=None)
    verdict = f"{len(ran)} of {len(paper.rows)} settings of the paper's table were run."
    if best is not None:
        verdict += f" Highest accuracy: {paper.label} {plain_or(best.setting)}, {_spread(best.measures['accuracy'])}."
    sections = [Section("Ours and the paper's", [Text(PAPER_NOTE), Figures(panels), ours, theirs])]
    return Chapter(f"{paper.title}, scale {found.scale}", verdict, _about_jobs(found.repeated, runs, ran), sections)


def folds(found: Sequence[Folds], runs: Found) -> Chapter:
    """Put the ten folds of LFW View 2 together beside the benchmark page's neighbours."""
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
        warnings += _about_jobs(one.repeated, Found([], [], []), [])
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
    warnings += _about_jobs([], runs, [])
    sections = [Section("Folds", blocks), Section("Beside its neighbours", [Text(LFW_NOTE), neighbours])]
    return Chapter("Labeled Faces in the Wild, View 2", verdict, warnings, sections)


def degraded(run: Run, name: str) -> Chapter:
    """Show what disturbances of the images cost, beside the paper's table 4 for JPEG quality and size."""
    clean = number(dig(run.metrics, "clean", "accuracy"))
    panels: list[Figure] = []
    tables: list[Table] = []
    worst: tuple[float, str] | None = None
    for kind, table in run.metrics["degrade"].items():
        levels = (
            [(level, row) for level, row in by_level(table) if isinstance(row, Mapping)]
            if isinstance(table, Mapping)
            else []
        )
        if not levels:
            continue
        title = KINDS.get(kind, short(str(kind).replace("_", " "), 30))
        points = [(short(level, 10), number(row.get("accuracy")), number(row.get("sem"))) for level, row in levels]
        panels.append(level_curves(f"{name}-{len(panels)}", title, points, clean, "accuracy"))
        tables.append(_level_table(kind, title, levels))
        for level, value, _ in points:
            if value is not None and (worst is None or value < worst[0]):
                worst = value, f"{title} {level}"
    verdict = (
        "No disturbance was measured."
        if worst is None
        else f"The hardest disturbance is {worst[1]}: {percent(worst[0])}"
    )
    verdict += f" of the pairs right, {percent(clean)} on untouched images." if worst else ""
    blocks: list[Block] = [Figures(panels)] if panels else []
    blocks.append(Text("Dashed: untouched images. Band: one standard error over the folds."))
    blocks += tables
    if any(kind in PAPER_DEGRADED for kind in run.metrics["degrade"]):
        blocks.append(Text(PAPER_NOTE))
    return Chapter(f"Robustness: {short(run.name)}", verdict, [], [Section("What disturbances cost", blocks)])


def clustered(run: Run) -> Chapter:
    """Show the scores of a clustering and its largest clusters."""
    metrics = run.metrics
    verdict = f"{plain(metrics.get('faces'))} faces fell into {plain(metrics.get('clusters'))} clusters"
    verdict += f" at a squared distance of {plain(metrics.get('threshold'))}."
    names = {
        "identities": "people",
        "pairwise_f1": "pairwise F1",
        "pairwise_precision": "pairwise precision",
        "pairwise_recall": "pairwise recall",
        "bcubed_f1": "BCubed F1",
        "bcubed_precision": "BCubed precision",
        "bcubed_recall": "BCubed recall",
        "nmi": "normalised mutual information",
    }
    rows = [(text, plain(metrics[key])) for key, text in names.items() if number(metrics.get(key)) is not None]
    sections = [Section("Scores", [Table((), rows, facts=True)])] if rows else []
    found = read_clusters(run)
    if found:
        sizes: dict[str, Counter[str]] = {}
        for label, identity in found:
            sizes.setdefault(label, Counter())[identity] += 1
        largest = sorted(sizes.items(), key=lambda item: -item[1].total())[:LARGEST]
        table = [
            (short(label), str(people.total()), str(len(people)), short(people.most_common(1)[0][0] or "unknown"))
            for label, people in largest
        ]
        sections.append(Section("The largest clusters", [Table(("cluster", "faces", "people", "mostly"), table)]))
    return Chapter(f"Clusters: {short(run.name)}", verdict, [], sections)


def plain_or(value: Any) -> str:
    """Write a setting: a number plainly, a name as it is, cut where it is long."""
    return short(value, 30) if isinstance(value, str) else plain(value)


def _setting(row: Setting) -> tuple[str, ...]:
    found = row.measures
    seen = found["faces_seen"].mean
    return (
        plain_or(row.setting),
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


def _about_jobs(repeated: Sequence[str], runs: Found, ran: Sequence[Setting]) -> list[str]:
    said = []
    if repeated:
        said.append(
            f"{len(repeated)} runs repeat a setting and a seed; the last of each counts ({short(repeated[0])}, ...)."
        )
    if runs.unfinished:
        said.append(f"{len(runs.unfinished)} jobs have not finished: {short(', '.join(runs.unfinished), 100)}.")
    if any(len(row.seeds) == 1 for row in ran):
        said.append("Some settings have a single seed: how much of a difference is luck is not known.")
    return said


def _level_table(kind: str, title: str, levels: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    paper = {f"{level:g}": value for level, value in PAPER_DEGRADED.get(kind, ())}
    rows = []
    for level, row in levels:
        cells = (
            short(level, 20),
            plus_minus(row.get("accuracy"), row.get("sem")),
            plain(row.get("auc")),
            percent(row.get("eer")),
        )
        rows.append(
            (*cells, percent(dig(row, "val_at_far", "1e-3", "val")), *([percent(paper.get(level))] if paper else []))
        )
    header = (title, "accuracy", "AUC", "EER", "VAL at FAR 1e-3")
    return Table((*header, "the paper's VAL, other data") if paper else header, rows)
