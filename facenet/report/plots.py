"""The drawings of a report, one panel each: a page sets panels side by side or one below the other.

The colours can be distinguished without colour vision (Okabe and Ito). Lines also differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.evaluation.roc import roc, wilson
from facenet.report.page import Figure
from facenet.report.svg import INK, SOFT, draw
from facenet.report.values import get_rows, parse_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#007a5a", "#a0508c"
POINTS = 250  # of a curve
Curve = tuple[np.ndarray, np.ndarray]


def operating_curves(name: str, sq_dist: np.ndarray, same: np.ndarray, val_at_far: Mapping[str, Any]) -> list[Figure]:
    """Draw ROC and DET of P pairs over a logarithmic FAR, each with its pointwise 95 % Wilson band.

    The band is the interval of VAL (of 1 - VAL) at a fixed threshold, over the |P_same| same pairs. The FAR axis starts
    at half a pair: 1 / (2 |P_different|).
    """
    curve = roc(sq_dist, same)
    positives, negatives = int(same.sum()), int((~same).sum())
    far = np.geomspace(0.5 / negatives, 1, POINTS)
    val = curve.val[np.searchsorted(curve.far, far, side="right") - 1]
    hits = np.rint(val * positives).astype(int).tolist()
    bounds = {count: wilson(count, positives) for count in set(hits)}
    low, high = (np.asarray([bounds[count][side] for count in hits], np.float64) for side in (1, 2))
    marks = [(parse_number(key), row.get("val")) for key, row in get_rows(val_at_far)]
    shown = [(rate, val) for rate, val in marks if rate is not None and isinstance(val, float)]
    least = 0.5 / positives

    def paint_roc(axes: Axes) -> None:
        _far_axis(axes, far[0])
        axes.fill_between(far, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(far, val, color=BLUE)
        axes.plot([rate for rate, _ in shown], [val for _, val in shown], "o", color=INK, markersize=4)
        axes.set_ylim(0, 1.02)
        _in_percent(axes.yaxis)
        axes.set_ylabel("same person accepted (VAL)")

    def paint_det(axes: Axes) -> None:
        _far_axis(axes, far[0])
        axes.set_yscale("log")
        axes.fill_between(far, np.maximum(1 - high, least), np.maximum(1 - low, least), color=BLUE, alpha=0.18, lw=0)
        axes.plot(far, np.maximum(1 - val, least), color=BLUE)
        axes.plot([max(far[0], least), 1], [max(far[0], least), 1], ":", color=SOFT, linewidth=1)
        axes.set_ylim(least, 1.1)
        _in_percent(axes.yaxis, log=True)
        axes.set_ylabel("same person refused (1 - VAL)")

    band = "Band: pointwise 95 % Wilson interval."
    return [
        draw(
            f"{name}-roc",
            f"ROC curve: share of same pairs accepted against the false accept rate, for {positives} same and"
            f" {negatives} different pairs",
            paint_roc,
            caption=f"ROC. {band} Dots: the rates of the table below.",
        ),
        draw(
            f"{name}-det",
            "DET curve: share of same pairs refused against the false accept rate, both logarithmic",
            paint_det,
            caption=f"DET. {band} The dotted diagonal crosses it at the equal error rate.",
        ),
    ]


def distance_histogram(
    name: str, sq_dist: np.ndarray, same: np.ndarray, thresholds: Sequence[tuple[str, float]]
) -> Figure:
    """Draw the squared distances of same and of different pairs, with thresholds (label, sq_dist) as vertical lines."""
    edges = np.linspace(0, max(float(sq_dist.max()), *(value for _, value in thresholds), 1e-6) * 1.02, 49)
    shown = sorted(thresholds, key=lambda item: item[1])

    def paint(axes: Axes) -> None:
        axes.hist(sq_dist[same], edges.tolist(), color=BLUE, alpha=0.55, label="same person")
        axes.hist(
            sq_dist[~same], edges.tolist(), histtype="step", color=ORANGE, linewidth=1.6, label="different people"
        )
        for place, (_, value) in enumerate(shown):
            axes.axvline(value, color=INK, linewidth=1, linestyle=("-", "--", "-.", ":")[place % 4])
        axes.set_xlabel("squared distance")
        axes.set_ylabel("pairs")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
        axes.grid(visible=False, axis="x")

    labels = ", ".join(f"{label} {value:.3f}" for label, value in shown)
    alt = f"Histogram of squared distances of {int(same.sum())} same and {int((~same).sum())} different pairs"
    return draw(f"{name}-distances", alt, paint, caption=f"Vertical lines, left to right: {labels}." if shown else "")


def training_curves(name: str, curves: Mapping[str, Curve]) -> list[Figure]:
    """Draw the logs of a training run: loss, mining, held-out people. Missing columns are left out."""
    panels = (
        ("loss", "loss of the batch", {"loss": "loss"}, None),
        ("mining", "share of pairs", {"active": "with a semi-hard negative", "hard": "with a hard negative"}, 1.02),
        ("held-out", "held-out people", {"val_accuracy": "accuracy", "val_auc": "area under the ROC"}, 1.02),
    )
    figures = []
    for key, label, lines, top in panels:
        present = {column: text for column, text in lines.items() if column in curves}
        if present:
            figures.append(_training_panel(f"{name}-{key}", label, {t: curves[c] for c, t in present.items()}, top))
    return figures


def level_curves(name: str, title: str, levels: Sequence[tuple[str, Any, Any]], clean: Any, what: str) -> Figure:
    """Draw `what` (a fraction) by level of a disturbance: (level, value, SEM or None), with the clean value dashed."""

    def paint(axes: Axes) -> None:
        places = np.arange(len(levels))
        values = np.asarray([_number(value) for _, value, _ in levels])
        errors = np.asarray([0.0 if sem is None else sem for _, _, sem in levels])
        axes.fill_between(places, values - errors, values + errors, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(places, values, "o-", color=BLUE, markersize=4)
        if clean is not None:
            axes.axhline(clean, color=INK, linewidth=1, linestyle="--")
        axes.set_xticks(places, [level for level, _, _ in levels])
        axes.set_ylim(min(0.5, *(np.nan_to_num(values - errors, nan=0.5))), 1.01)
        _in_percent(axes.yaxis)
        axes.set_xlabel(title)
        axes.set_ylabel(what)

    return draw(f"{name}-{title}", f"{what} by {title}, in {len(levels)} levels", paint, size=(4.0, 2.9))


def comparison(name: str, title: str, rows: Sequence[tuple[str, Any, Any]], *, label: str) -> Figure:
    """Draw one panel of a sweep: settings (text, value, spread or None) from top to bottom; values are fractions."""

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        places = np.arange(len(rows))[::-1]
        values = np.asarray([_number(value) for _, value, _ in rows])
        errors = np.asarray([0.0 if spread is None else spread for _, _, spread in rows])
        axes.errorbar(values, places, xerr=errors, fmt="o", color=BLUE, markersize=5, capsize=3, linewidth=1.2)
        axes.set_yticks(places, [text for text, _, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(5))  # labels such as 94.25 % would run into each other
        _in_percent(axes.xaxis)
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=10, loc="left", color=INK)

    alt = f"{title}: {label} for " + ", ".join(text for text, _, _ in rows)
    return draw(name, alt, paint, size=(4.6, 1.1 + 0.32 * len(rows)))


def face_map(name: str, vectors: np.ndarray, identities: Sequence[str]) -> Figure:
    """Draw N faces (N, D) in the plane by t-SNE of their squared distances, one colour and mark for each person.

    The map is deterministic. Names are not drawn; marks show which faces lie together.
    """
    from sklearn.manifold import TSNE

    people = list(dict.fromkeys(identities))
    names = np.asarray(identities)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors.astype(np.float64))

    def paint(axes: Axes) -> None:
        colours = (BLUE, ORANGE, GREEN, PURPLE, "#e69f00", "#56b4e9", INK)
        for place, person in enumerate(people):
            x, y = points[names == person].T
            mark = "osD^vP*"[place // len(colours) % 7]
            axes.plot(x, y, mark, color=colours[place % len(colours)], markersize=5, markeredgecolor="white", mew=0.4)
        axes.set_axis_off()
        axes.set_aspect("equal", "datalim")

    alt = f"Map of {len(vectors)} faces of {len(people)} people in the plane"
    caption = (
        f"{len(vectors)} faces of {len(people)} people by t-SNE; each person has a colour and a mark. What lies"
        " together is alike; the distances between groups mean little."
    )
    return draw(f"{name}-map", alt, paint, caption=caption, size=(6.4, 4.6))


def _training_panel(name: str, label: str, lines: Mapping[str, Curve], top: float | None) -> Figure:
    def paint(axes: Axes) -> None:
        for place, (text, (steps, values)) in enumerate(lines.items()):
            at = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
            colour, dashes = ((BLUE, "-"), (ORANGE, "--"))[place % 2]
            few = "o" if len(at) < 30 else ""
            axes.plot(steps[at], values[at], color=colour, linestyle=dashes, label=text, lw=1.4, marker=few, ms=3)
        axes.set_ylim(0 if top is None or min(v.min() for _, v in lines.values()) < 0.5 else 0.5, top)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        if len(lines) > 1:
            axes.legend(loc="best")

    last = ", ".join(f"{text} {values[-1]:.4g}" for text, (_, values) in lines.items())
    return draw(name, f"{label} by step; at the end: {last}", paint, size=(4.2, 2.9), caption=f"At the end: {last}.")


def _far_axis(axes: Axes, left: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    _in_percent(axes.xaxis, log=True)
    axes.set_xlabel("false accept rate (FAR)")


def _in_percent(axis: Any, *, log: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    if log:
        axis.set_minor_formatter(NullFormatter())


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
