"""The tables of an upgrade; a missing value is a dash, and a table without rows is None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facenet.compat.display import CURVES
from facenet.report.page import Table
from facenet.report.runs import Run
from facenet.report.values import get_mapping, get_rows, get_value, number, percent, plain, short

CELLS = {
    "old_old": "old-old",
    "new_old": "new-old",
    "old_new": "old-new",
    "new_new": "new-new",
    "reference": "new*-new*",
}
METRICS = {
    "accuracy": "accuracy",
    "auc": "area under the ROC",
    "val_1e-1": "VAL at FAR 1e-1",
    "val_1e-2": "VAL at FAR 1e-2",
    "val_1e-3": "VAL at FAR 1e-3",
    "rank1": "rank-1",
    "map": "mAP",
}
FLIPS = {
    "new_old": "new-old",
    "new_old_at_old_threshold": "new-old, threshold of old-old kept",
    "new_new": "new-new",
    "new_new_at_old_threshold": "new-new, threshold of old-old kept",
}
BASELINES = {"none": "as it is", "procrustes": "orthogonal map (Procrustes)", "linear": "linear map"}


def cell_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return each metric in each cell."""
    cells = [name for name in CELLS if name in get_mapping(metrics, "cells")]
    rows = []
    for metric, text in METRICS.items():
        row = get_value(metrics, "yardsticks", metric)
        if isinstance(row, Mapping):
            rows.append((text, *(_value(metrics, metric, name, row) for name in cells)))
    rows.append(
        ("equal error rate", *(percent(get_value(metrics, "cells", n, "verification", "eer"), 2) for n in cells))
    )
    pairs = plain(get_value(metrics, "cells", "old_old", "verification", "pairs"))
    caption = f"{pairs} pairs; accuracy ± standard error over the folds. -: too few pairs, or nobody to enrol."
    return Table(("", *(CELLS[name] for name in cells)), rows, caption) if cells else None


def _value(metrics: Mapping[str, Any], metric: str, cell: str, row: Mapping[str, Any]) -> str:
    sem = number(get_value(metrics, "cells", cell, "verification", "sem")) if metric == "accuracy" else None
    return percent(row.get(cell)) + ("" if sem is None else f" ± {100 * sem:.1f}")


def gain_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return criterion, differences with their intervals, update gain and tax of each metric."""
    rows = []
    for metric, text in METRICS.items():
        row = get_value(metrics, "yardsticks", metric)
        if not isinstance(row, Mapping) or number(row.get("old_old")) is None:
            continue
        shown = [_points(get_value(metrics, "intervals", metric, name)) for name in ("new_old", "new_new")]
        gain = "-" if number(row.get("gain")) is None else f"{row['gain']:.2f}"
        tax = "-" if number(row.get("tax")) is None else f"{100 * row['tax']:+.1f}"
        above = {"True": "yes", "False": "no"}.get(str(row.get("criterion")), "-")
        rows.append((text, above, *shown, gain, tax))
    header = ("", "new-old above old-old", "new-old minus old-old", "new-new minus old-old", "update gain", "tax")
    best = (
        "new*" if "reference" in get_mapping(metrics, "cells") else "new, for there is no new*: the gain looks larger"
    )
    caption = (
        "Differences and tax in points, with the 95 % interval of a paired bootstrap over pairs (rank-1 and mAP: over"
        f" people). Update gain: the share of what {best} gains that new queries reach on the old gallery."
    )
    return Table(header, rows, caption) if rows else None


def _points(row: Any) -> str:
    values = [number(get_value(row, key)) for key in ("difference", "low", "high")]
    if any(value is None for value in values):
        return "-"
    difference, low, high = (100 * (value or 0) for value in values)
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def flip_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return negative and positive flips against old-old."""
    flips = dict(get_rows(metrics, "flips"))
    rows = [
        (text, percent(flips[key].get("negative")), percent(flips[key].get("positive")))
        for key, text in FLIPS.items()
        if key in flips
    ]
    caption = "Negative: right under old-old and wrong now; positive: the other way round."
    return Table(("", "negative flips", "positive flips"), rows, caption) if rows else None


def mixed_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return what new queries reach at each step of the backfill."""
    rows = [(percent(row["share"], 0), *(percent(row[key]) for key in CURVES)) for row in steps(metrics)]
    return Table(("backfilled", *(text for text, _, _ in CURVES.values())), rows) if rows else None


def worse_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return the people who are found less often or lie farther from their own faces."""
    worst = get_value(metrics, "regressions", "worst")
    rows = [
        (
            short(row.get("person"), 40),
            plain(row.get("probes")),
            *(percent(row.get(f"rank1_{key}"), 0) for key in ("old_old", "new_old", "new_new")),
            *(plain(row.get(f"sq_dist_{key}")) for key in ("old_old", "new_old", "new_new")),
        )
        for row in (worst if isinstance(worst, list) else ())
        if isinstance(row, Mapping)
    ]
    counts = [plain(get_value(metrics, "regressions", key)) for key in ("rank1_worse", "farther", "people")]
    caption = (
        f"The worst of them. {counts[0]} of {counts[2]} people are found less often, {counts[1]} lie farther from their"
        " own faces (by the threshold of the cell). rank-1 and mean squared distance to the own enrolled faces."
    )
    header = ("person", "queries", "old-old", "new-old", "new-new", "distance old-old", "new-old", "new-new")
    return Table(header, rows, caption) if rows else None


def baseline_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return new-old beside the independent new net, as it is and mapped."""
    found = get_mapping(metrics, "baselines")
    rows = [("this encoder", *(percent(get_value(metrics, "yardsticks", metric, "new_old")) for metric in METRICS))]
    of = "new*" if found.get("of") == "reference" else "new"
    for key, text in BASELINES.items():
        if isinstance(found.get(key), Mapping):
            rows.append((f"{of}, {text}", *(percent(found[key].get(metric)) for metric in METRICS)))
    caption = (
        f"new-old; maps from the new space to the old one, fitted on {plain(found.get('fitted_on'))} training faces."
    )
    return Table(("", *METRICS.values()), rows, caption) if len(rows) > 1 else None


def fact_table(run: Run) -> Table:
    """Return what was compared, and the gate."""
    metrics = run.metrics
    gate = {key: get_value(metrics, "gate", key) for key in ("metric", "min_gain", "max_negative_flips", "max_fall")}
    fall = f", a fall of {plain(gate['max_fall'])} at most if there is nothing to gain" if gate["max_fall"] else ""
    rows = [
        ("run folder", short(run.folder, 120)),
        ("images in all embeddings", plain(get_value(metrics, "images", "shared"))),
        *((f"encoder, {key}", short(text, 16)) for key, text in get_mapping(metrics, "encoders").items()),
        ("gate", f"{short(gate['metric'], 20)}: gain {plain(gate['min_gain'])} or more,"
         f" negative flips {plain(gate['max_negative_flips'])} or fewer{fall}"),
    ]  # fmt: skip
    return Table((), rows, facts=True)


def steps(metrics: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """Return the steps of the mixed gallery whose share is a number."""
    rows = metrics.get("mixed")
    rows = rows if isinstance(rows, list) else []
    found = [{key: number(get_value(row, key)) for key in ("share", *CURVES)} for row in rows]
    return [row for row in found if row["share"] is not None]
