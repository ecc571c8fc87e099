"""What :mod:`.assessment` measured as words and rows: the verdict in a line, the printed tables, the CSV files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verdict(passed: Mapping[str, Any], row: Mapping[str, Any], interval: Mapping[str, Any] | None, flipped: Any) -> str:
    """Put the outcome into one line: passed or not and why, the gain with its interval, the flips."""
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
    """Return header and rows of the printed table: a line for each metric, a column for each cell, gain and tax."""
    cells = list(metrics["cells"])
    header = ["metric", *(name.replace("_", "-") for name in cells), "gain", "tax", "95 % of new-old minus old-old"]
    rows = []
    for metric in metrics["yardsticks"]:
        row, sure = metrics["yardsticks"][metric], metrics["intervals"].get(metric)
        between = f"{sure['new_old']['low']:+.4f} to {sure['new_old']['high']:+.4f}" if sure else "-"
        rows.append([metric, *(row[name] for name in cells), row["gain"], row["tax"], between])
    return header, rows


def counts_rows(metrics: Mapping[str, Any]) -> list[list[Any]]:
    """Return the lines of the printed table of flips: which cell, negative and positive."""
    return [[name.replace("_", "-"), row["negative"], row["positive"]] for name, row in metrics["flips"].items()]


def baseline_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the printed table of baselines: a line for each, ours first."""
    found = {"ours": metrics["yardsticks"], **{k: v for k, v in metrics["baselines"].items() if isinstance(v, Mapping)}}
    names = list(metrics["yardsticks"])
    values = [[row[m]["new_old"] if name == "ours" else row[m] for m in names] for name, row in found.items()]
    return ["map", *names], [[name, *row] for name, row in zip(found, values, strict=True)]
