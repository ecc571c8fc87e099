"""The drawings of :mod:`.assessment`: the ROC of the three modes in one panel, and the mixed gallery step by step.

Figures are made without pyplot: no window, no state. The painters are shared with the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

LINES = {  # cell -> label, colour, dashes; (old, new) is the same curve as (new, old), since pairs have no direction
    "new_new": ("new-new", "#1f5fa8", "-"),
    "new_old": ("new-old", "#c2571a", "--"),
    "old_old": ("old-old", "#1b1b1b", "-."),
    "reference": ("new*-new*", "#777777", ":"),
}
CURVES = {
    "accuracy": ("accuracy", "#1f5fa8", "o-"),
    "rank1": ("rank-1", "#c2571a", "s--"),
    "map": ("mAP", "#777777", "^:"),
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "facenet",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
}


def write_plot(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Write the ROC of the modes as SVG; the same metrics, the same bytes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        paint_roc(figure.add_subplot(), metrics["roc"])
        figure.savefig(path, format="svg", metadata={"Date": None})


def paint_roc(axes: Axes, roc: Mapping[str, Any]) -> None:
    """Draw VAL over FAR, logarithmic, of each mode in `roc` (see :func:`facenet.compat.roc_points`)."""
    for name, (label, colour, dashes) in LINES.items():
        if name in roc:
            axes.plot(roc["far"], roc[name], color=colour, linestyle=dashes, label=label)
    axes.set(xscale="log", xlim=(roc["far"][0], 1), ylim=(0, 1.02))
    axes.set(xlabel="false accept rate (FAR)", ylabel="same person accepted (VAL)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_percent))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower right", title="query-gallery", frameon=False)


def paint_mixed(axes: Axes, rows: Any, old: Mapping[str, Any]) -> None:
    """Draw what new queries reach over the share of the gallery that is new; `old` has (old, old) as thin lines."""
    share = [row["share"] for row in rows]
    for name, (label, colour, marks) in CURVES.items():
        values = [row[name] for row in rows]
        if None in values:
            continue
        axes.plot(share, values, marks, color=colour, markersize=3.5, label=label)
        if old.get(name) is not None:
            axes.axhline(old[name], color=colour, linewidth=0.8, linestyle=marks[1:])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_percent))
    axes.set(xlabel="gallery backfilled", ylabel="right", xlim=(-0.02, 1.02))
    axes.legend(loc="best", frameon=False)


def _percent(value: float, _: Any = None) -> str:
    return f"{100 * value:.4g} %"
