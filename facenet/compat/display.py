"""An assessment as people read it: the verdict in a line, the rows of tables, CSV files, and two drawings.

The report shares the painters. Figures are made without pyplot, so no window opens and no state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.compat.mixed_gallery import Regression
from facenet.files import write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {  # cell -> label, colour, dashes; pairs have no direction, so (old, new) is the curve of (new, old)
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


def verdict(passed: Mapping[str, Any], row: Mapping[str, Any], interval: Mapping[str, Any] | None, flipped: Any) -> str:
    """Say the outcome in one line: passed or not and why, the gain with its interval, the negative flips.

    `passed` is the gate's answer, `row` and `interval` those of the gate's metric; see
    :func:`facenet.compat.assessment.assess_upgrade`.
    """
    text = "compatible" if passed["passed"] else f"not compatible ({'; '.join(passed['failed'])})"
    if row["old_old"] is None or row["new_old"] is None:
        return f"{text}: {passed['metric']} can not be measured on these pairs"
    text += f": new queries on the old gallery reach {passed['metric']} {row['new_old']:.4f} (old {row['old_old']:.4f}"
    if interval is not None:
        text += f", {100 * interval['difference']:+.1f} points"
        text += f", 95 % {100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}"
    gain = "not defined" if row["gain"] is None else f"{row['gain']:.2f}"
    against = "" if row["against"] == "reference" else " against new"
    text += f"), update gain {gain}{against}, negative flips {100 * flipped['new_old']['negative']:.1f} %"
    if row["tax"] is not None:
        text += f", tax {100 * row['tax']:+.1f} points"
    return text


def table_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the printed table: a row for each metric, a column for each cell, gain and tax."""
    cells = list(metrics["cells"])
    header = ["metric", *(name.replace("_", "-") for name in cells), "gain", "tax", "95 % of new-old minus old-old"]
    rows = []
    for metric in metrics["yardsticks"]:
        row, interval = metrics["yardsticks"][metric], metrics["intervals"].get(metric)
        between = f"{interval['new_old']['low']:+.4f} to {interval['new_old']['high']:+.4f}" if interval else "-"
        rows.append([metric, *(row[name] for name in cells), row["gain"], row["tax"], between])
    return header, rows


def flip_rows(metrics: Mapping[str, Any]) -> list[list[Any]]:
    """Return the rows of the printed table of flips: cell, negative share, positive share."""
    return [[name.replace("_", "-"), row["negative"], row["positive"]] for name, row in metrics["flips"].items()]


def baseline_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the printed table of fitted maps: a row for each, after that of the encoder itself."""
    found = {"ours": metrics["yardsticks"], **{k: v for k, v in metrics["baselines"].items() if isinstance(v, Mapping)}}
    names = list(metrics["yardsticks"])
    values = [[row[m]["new_old"] if name == "ours" else row[m] for m in names] for name, row in found.items()]
    return ["map", *names], [[name, *row] for name, row in zip(found, values, strict=True)]


def write_tables(metrics: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``regressions.csv`` (the people with the largest losses) and ``mixed.csv`` (the steps of the backfill)."""
    worst, steps = ([row.values() for row in rows] for rows in (metrics["regressions"]["worst"], metrics["mixed"]))
    write_csv(Path(folder) / "regressions.csv", Regression._fields, worst, errors="replace")
    write_csv(Path(folder) / "mixed.csv", list(metrics["mixed"][0]), steps)


def write_plot(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Write the ROC of the cells as SVG; the same metrics give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        paint_roc(figure.add_subplot(), metrics["roc"])
        figure.savefig(path, format="svg", metadata={"Date": None})


def paint_roc(axes: Axes, roc: Mapping[str, Any]) -> None:
    """Draw VAL over FAR, logarithmic, for each cell in `roc` (see :func:`facenet.compat.assessment.roc_points`)."""
    from matplotlib.ticker import NullFormatter

    for name, (label, colour, dashes) in LINES.items():
        if name in roc:
            axes.plot(roc["far"], roc[name], color=colour, linestyle=dashes, label=label)
    axes.set(xscale="log", xlim=(roc["far"][0], 1), ylim=(0, 1.02))
    axes.set(xlabel="false accept rate (FAR)", ylabel="same person accepted (VAL)")
    _in_percent(axes)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower right", title="query-gallery", frameon=False)


def paint_mixed(axes: Axes, rows: Any, old: Mapping[str, Any]) -> None:
    """Draw what new queries reach over the share of the gallery that is new.

    `rows` are those of :func:`facenet.compat.mixed_gallery.mixed_curve`. `old` holds the measures of (old, old), which
    are drawn as thin lines.
    """
    share = [row["share"] for row in rows]
    for name, (label, colour, marks) in CURVES.items():
        values = [row[name] for row in rows]
        if None in values:
            continue
        axes.plot(share, values, marks, color=colour, markersize=3.5, label=label)
        if old.get(name) is not None:
            axes.axhline(old[name], color=colour, linewidth=0.8, linestyle=marks[1:])
    _in_percent(axes)
    axes.set(xlabel="gallery backfilled", ylabel="right", xlim=(-0.02, 1.02))
    axes.legend(loc="best", frameon=False)


def _in_percent(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
