"""What every script shares: the printed table, ``metrics.json``, one-line errors with exit codes."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facenet.errors import FacenetError
from facenet.files import write_json


def table(rows: Sequence[Sequence[Any]], *, header: Sequence[str] = (), title: str = "") -> None:
    """Print rows as one aligned table; numbers are right-aligned and floats get four digits."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title or None, show_header=bool(header), box=box.SIMPLE_HEAD, title_justify="left")
    width = max((len(row) for row in rows), default=len(header))
    for column in range(max(width, len(header))):
        cells = [row[column] for row in rows if column < len(row)]
        right = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        name = header[column] if column < len(header) else ""
        grid.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(show(cell) for cell in row))
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(grid)


def show(value: Any) -> str:
    """Format one cell: floats to four significant places, everything else with ``str``.

    >>> show(0.98765432), show(1234567), show(None)
    ('0.9877', '1234567', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"
    return str(value)


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List the leaves of nested metrics with dotted names, lists left out.

    >>> flatten({"verification": {"accuracy": 0.9, "folds": [1, 2]}, "seconds": 3})
    [('verification.accuracy', 0.9), ('seconds', 3)]
    """
    rows: list[tuple[str, Any]] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            rows.append((f"{prefix}{key}", value))
    return rows


def write_metrics(folder: str | Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``metrics.json`` in `folder`: plain numbers in nested objects; not-finite values become null."""
    path = Path(folder) / "metrics.json"
    write_json(path, plain(metrics))
    return path


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths, named tuples and mappings into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error a user can mend into one line on standard error and its exit code (2 options, 3 data)."""
    try:
        yield
    except FacenetError as error:
        text = " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for long work; the yielded function takes (done, total). Nothing is shown off a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fold_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn the metrics of one fold, scored at a threshold chosen elsewhere, into the rows a person reads first.

    >>> fold_rows({"accuracy": 0.9, "correct": 540, "pairs": 600, "auc": 0.95, "eer": 0.1, "threshold": 1.1})[0]
    ('accuracy, pairs right', '0.9000, 540 of 600')
    """
    rows = [("accuracy, pairs right", f"{metrics['accuracy']:.4f}, {metrics['correct']} of {metrics['pairs']}")]
    return [*rows, ("AUC", metrics["auc"]), ("EER", metrics["eer"]), ("threshold (sq_dist)", metrics["threshold"])]


def verification_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn the metrics of a verification into the rows a person reads first.

    >>> rows = verification_rows({"accuracy": 0.9, "sem": 0.01, "auc": 0.95, "eer": 0.1, "threshold": 1.1, "pairs": 10,
    ...                           "skipped": 0, "duplicated": 0, "val_at_far": {"1e-2": {"val": None}}})
    >>> rows[0]
    ('accuracy, mean of folds +- SEM', '0.9000 +- 0.0100')
    >>> rows[-2]
    ('VAL at FAR 1e-2', 'not resolvable: too few different pairs')
    """
    rows: list[tuple[str, Any]] = [
        ("accuracy, mean of folds +- SEM", f"{metrics['accuracy']:.4f} +- {metrics['sem']:.4f}"),
        ("AUC", metrics["auc"]),
        ("EER", metrics["eer"]),
        ("threshold, mean of folds (sq_dist)", metrics["threshold"]),
    ]
    counts = f"{metrics['pairs']}, {metrics['skipped']}, {metrics['duplicated']}"
    return [*rows, *far_rows(metrics["val_at_far"]), ("pairs, skipped, duplicated", counts)]


def far_rows(val_at_far: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn VAL at FAR into one row for each rate that the pairs resolve, and one for all the others by reason."""
    rows: list[tuple[str, Any]] = []
    missing: dict[str, list[str]] = {}
    for far, entry in val_at_far.items():
        if entry["val"] is None:
            missing.setdefault(entry.get("reason") or "too few different pairs", []).append(far)
        else:
            value = f"{entry['val']:.4f} (95 % {entry['low']:.4f} to {entry['high']:.4f})"
            rows.append((f"VAL at FAR {far}", value))
    return rows + [(f"VAL at FAR {', '.join(fars)}", f"not resolvable: {why}") for why, fars in missing.items()]


def evaluation_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn all that an evaluation reports into rows: pairs or all pairs, identification, quantised, leakage."""
    rows: list[tuple[str, Any]] = []
    if "verification" in metrics:
        found = metrics["verification"]
        rows += fold_rows(found) if "correct" in found else verification_rows(found)
    if "all_pairs" in metrics:
        found = metrics["all_pairs"]
        rows += [(name, found[name]) for name in ("faces", "identities")]
        rows += [
            ("pairs, same and different", f"{found['same']}, {found['different']}"),
            *far_rows(found["val_at_far"]),
        ]
    if "identification" in metrics:
        found = metrics["identification"]
        ranks = ", ".join(f"{share:.4f} ({k})" for k, share in found["cmc"].items())
        rows += [
            ("identification: people, probes, strangers", f"{found['people']}, {found['probes']}, {found['strangers']}")
        ]
        rows += [("identification: found at rank (k)", ranks), ("identification: mAP", found["map"])]
        for fpir, entry in found["tpir_at_fpir"].items():
            value = "too few strangers" if entry["tpir"] is None else entry["tpir"]
            rows.append((f"identification: TPIR at FPIR {fpir}", value))
    for method, found in metrics.get("quantised", {}).items():
        change = f"{found['accuracy']:.4f} ({100 * found['accuracy_difference']:+.2f} points)"
        rows.append((f"{method}, {found['bytes_per_face']} bytes a face: accuracy", change))
    return rows + ([("leakage", leakage_line(metrics["leakage"]))] if "leakage" in metrics else [])


def leakage_line(found: Mapping[str, Any]) -> str:
    """Put what an evaluation found out about leakage into one line.

    >>> leakage_line({"people": 120, "shared_people": 0, "shared_held_out": 0, "near_duplicates": 2,
    ...               "train_near_duplicates": None, "near_sq_dist": 0.01})
    '0 of 120 people trained on, 0 held out; 2 pairs of different people within sq_dist 0.01'
    """
    people = f"{found['people']} people, and the encoder does not say whom it was trained on"
    if found["shared_people"] is not None:
        people = f"{found['shared_people']} of {found['people']} people trained on, {found['shared_held_out']} held out"
    near = f"{found['near_duplicates']} pairs of different people"
    if found["train_near_duplicates"] is not None:
        near += f", {found['train_near_duplicates']} with training faces"
    return f"{people}; {near} within sq_dist {found['near_sq_dist']:g}"
