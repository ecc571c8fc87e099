"""The chapter of an upgrade: four cells, ROC, gain and cost, the mixed gallery, and people who get worse."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from facenet.compat.display import CURVES, LINES, paint_mixed, paint_roc
from facenet.report.chapters.upgrade_tables import (
    METRICS,
    baseline_table,
    cell_table,
    fact_table,
    flip_table,
    gain_table,
    mixed_table,
    steps,
    worse_table,
)
from facenet.report.page import Block, Chapter, Figure, Figures, Section, Text
from facenet.report.runs import Run
from facenet.report.svg import draw
from facenet.report.values import get_mapping, get_value, number, plain, short

CELL_NOTE = (
    "Query first, gallery second. A pair of images has no direction: in a mixed cell it is scored both ways, so that"
    " new-old and old-new are the same there; only a query among a gallery's faces (rank-1, mAP) has a direction."
    " new* is the same recipe without a compatibility term."
)


def upgrade_chapter(run: Run, name: str) -> Chapter:
    """Make the chapter of a run of facenet compat; `name` is a unique prefix of its drawings."""
    metrics = run.metrics
    parts: list[tuple[str, list[Block | None]]] = [
        ("Old and new in four cells", [_roc(metrics, name), cell_table(metrics), Text(CELL_NOTE)]),
        ("What the upgrade gains and costs", [gain_table(metrics), flip_table(metrics)]),
        ("While the gallery is backfilled", [_mixed(metrics, name), mixed_table(metrics)]),
        ("Who gets worse", [worse_table(metrics)]),
        ("Maps fitted afterwards", [baseline_table(metrics)]),
        ("What was compared", [fact_table(run)]),
    ]
    sections = [Section(title, kept) for title, some in parts if (kept := [block for block in some if block])]
    left_out = []
    if "reference" not in get_mapping(metrics, "cells"):
        left_out.append("tax, and the gain against new*: facenet compat reference=EMBEDDINGS")
    if not get_mapping(metrics, "baselines"):
        left_out.append("maps fitted afterwards: facenet compat fit_old=EMBEDDINGS fit_new=EMBEDDINGS")
    verdict = short(metrics.get("verdict") or "The verdict is missing", 600)
    return Chapter(
        f"Upgrade: {short(run.name)}", f"{verdict[:1].upper()}{verdict[1:]}.", _warnings(metrics), sections, left_out
    )


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    if get_value(metrics, "gate", "passed") is not True:
        lines.append("The gate did not pass: the new encoder is not listed as compatible by this run.")
    metric = get_value(metrics, "gate", "metric")
    low = number(get_value(metrics, "intervals", str(metric), "new_old", "low"))
    if low is not None and low <= 0:
        named = METRICS.get(str(metric), short(metric, 20))
        lines.append(f"The 95 % interval of new-old minus old-old ({named}) holds 0: the gain may be luck.")
    for key, text in (("only_old", "old"), ("only_new", "new"), ("only_reference", "new*")):
        count = number(get_value(metrics, "images", key))
        if count:
            lines.append(f"{plain(count)} images of {text} are not in all embeddings and were left out.")
    skipped = number(get_value(metrics, "cells", "old_old", "verification", "skipped"))
    if skipped:
        lines.append(f"{plain(skipped)} pairs were left out because an image was missing.")
    if metrics.get("identification_left_out"):
        lines.append(f"No rank-1 and mAP: {short(metrics['identification_left_out'], 200)}.")
    both = number(get_value(metrics, "baselines", "scored_too"))
    if both:
        lines.append(f"{plain(both)} of the faces that the maps were fitted on are scored too: they look too good.")
    return lines


def _roc(metrics: Mapping[str, Any], name: str) -> Figures | None:
    found = {key: _numbers(get_value(metrics, "roc", key)) for key in ("far", *LINES)}
    far = found["far"]
    lines = {key: values for key, values in found.items() if len(values) == len(far)}
    if not far or not lines.keys() & LINES.keys() or not all(0 < a < b for a, b in itertools.pairwise(far)):
        return None
    caption = "ROC of the modes, query first. The order to hope for: new-new above new-old above old-old."
    alt = f"ROC curves of {', '.join(LINES[key][0] for key in lines if key in LINES)}"
    return Figures([draw(f"{name}-modes", alt, lambda axes: paint_roc(axes, lines), caption=caption)])


def _mixed(metrics: Mapping[str, Any], name: str) -> Figures | None:
    rows = steps(metrics)
    if not any(all(row[key] is not None for row in rows) for key in CURVES) or not rows:
        return None
    old = {key: number(get_value(metrics, "yardsticks", key, "old_old")) for key in CURVES}
    caption = "New queries while the gallery goes over to new vectors. Lines without marks: old queries, old gallery."
    alt = f"What new queries reach in {len(rows)} steps from an old to a new gallery"
    figure: Figure = draw(f"{name}-mixed", alt, lambda axes: paint_mixed(axes, rows, old), caption=caption)
    return Figures([figure])


def _numbers(values: Any) -> list[float]:
    """Return the numbers of a list; an empty list if one of its items is no number."""
    found = [number(value) for value in values] if isinstance(values, list) else []
    return [] if None in found else [value for value in found if value is not None]
