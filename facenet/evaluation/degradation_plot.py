"""The robustness curves of :mod:`.degradation` as one picture: a panel for each kind, scores over levels.

Figures are made without pyplot: no window, no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.data.degradations import KINDS
from facenet.evaluation.degradation import FAR, level_name, val_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAN, COLUMNS = "as it is", 3
OURS, OTHER, PAPER = "#1f5fa8", "#c2571a", "#777777"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "facenet",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_plot(metrics: Mapping[str, Any], path: str | Path, far: float = FAR) -> None:
    """Write the curves as SVG; the same metrics, the same bytes."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        curves(metrics, far).savefig(path, format="svg", metadata={"Date": None})


def curves(metrics: Mapping[str, Any], far: float = FAR) -> Figure:
    """Draw what :func:`.degradation.degrade` returned: accuracy, VAL with its 95 % interval, and the paper's VAL.

    VAL is at the smallest resolvable FAR from `far` on.
    """
    from matplotlib.figure import Figure

    kinds = list(metrics["degrade"])
    columns = min(COLUMNS, len(kinds))
    lines = -(-len(kinds) // columns)
    figure = Figure(figsize=(3.4 * columns + 0.4, 2.9 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for place, kind in enumerate(kinds):
        _panel(panels[place], kind, order(metrics["degrade"][kind], metrics["clean"]), far)
    for panel in panels[len(kinds) :]:
        panel.remove()
    found: dict[str, Any] = {}
    for panel in panels[: len(kinds)]:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=len(found), frameon=False)
    return figure


def order(rows: Mapping[str, Any], clean: Mapping[str, Any]) -> dict[str, Any]:
    """Put the untouched images among the levels of a kind: first, or at 0 where levels have both signs."""
    named = {**rows, CLEAN: clean}
    if not any(float(name) < 0 for name in rows):
        return {CLEAN: clean, **rows}
    return {name: named[name] for name in sorted(named, key=lambda name: 0.0 if name == CLEAN else float(name))}


def _panel(panel: Axes, kind: str, rows: Mapping[str, Any], far: float) -> None:
    """Draw one kind; levels stand at equal steps, and one that left every image as it was gets no point of ours."""
    names, paper = list(rows), {level_name(level): value for level, value in KINDS[kind].paper.items()}
    ours = [(place, rows[name]) for place, name in enumerate(names) if rows[name].get("unchanged", 0) < 1]
    accuracy = [row["accuracy"] for _, row in ours]
    panel.plot([place for place, _ in ours], accuracy, "o-", color=OTHER, ms=3.5, label="accuracy")
    shown = [(place, *found) for place, row in ours if (found := val_shown(row, far))]
    if shown:
        at, fars, entries = zip(*shown, strict=True)
        values, low, high = ([entry[key] for entry in entries] for key in ("val", "low", "high"))
        panel.fill_between(at, low, high, color=OURS, alpha=0.15, lw=0)
        panel.plot(at, values, "o-", color=OURS, ms=3.5, label=f"VAL at FAR {fars[0]}, 95 % interval")
    known = [(place, paper[name]) for place, name in enumerate(names) if name in paper]
    if known:
        label = "the paper's VAL at FAR 1e-3 (NN1, other data)"
        panel.plot(*zip(*known, strict=True), "s--", color=PAPER, ms=3, lw=1, label=label)
    panel.set_xticks(range(len(names)), [_tick(name) for name in names], rotation=30, ha="right")
    panel.set(title=kind, xlabel=KINDS[kind].unit, ylim=(-0.02, 1.02))
    panel.grid(axis="y", lw=0.4, alpha=0.5)


def _tick(name: str) -> str:
    return name if name == CLEAN else f"{float(name):,.10g}"
