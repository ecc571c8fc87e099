"""The tables that a benchmark prints, and cells that several of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Table(NamedTuple):
    """What a benchmark's ``tables(result)`` returns several of."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]


TIMES = ("seconds (median)", "least", "most")


def times(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the cells below :data:`TIMES` of a :func:`facenet.export.speed.summary`."""
    return entry["seconds"], entry["least"], entry["most"]


def megabytes(count: float | None) -> str:
    """Return bytes as whole megabytes; None, of a system without /proc, is a dash.

    >>> megabytes(12_345_678), megabytes(None)
    ('12 MB', '-')
    """
    return "-" if count is None else f"{count / 1e6:.0f} MB"


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and 99 % quantile of times."""
    return {"p50": float(np.quantile(seconds, 0.5)), "p99": float(np.quantile(seconds, 0.99))}
