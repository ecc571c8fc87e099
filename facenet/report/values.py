"""Read values of a run's metrics so that null, NaN and text never reach arithmetic, and write them for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 60  # characters of a name in a table


def number(value: Any) -> float | None:
    """Return a finite number as a float; None for null, NaN, infinity, text, truth values and overflow.

    >>> number(3), number(float("nan")), number("3"), number(10**400)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def parse_number(text: str | None) -> float | None:
    """Read a finite number from text; None for anything else.

    >>> parse_number("1e-3"), parse_number("nan"), parse_number("x"), parse_number(None)
    (0.001, None, None, None)
    """
    try:
        return number(float(text)) if text else None
    except ValueError:
        return None


def parse_rate(text: str) -> float | None:
    """Read a false accept rate in (0, 1] from its name; None for anything else."""
    rate = parse_number(text)
    return rate if rate is not None and 1e-12 <= rate <= 1 else None


def get_value(metrics: Any, *keys: str) -> Any:
    """Return ``metrics[key][key]...``, or None if a key is missing or something on the way is no mapping.

    >>> get_value({"a": {"b": 1}}, "a", "b"), get_value({"a": None}, "a", "b")
    (1, None)
    """
    for key in keys:
        if not isinstance(metrics, Mapping) or key not in metrics:
            return None
        metrics = metrics[key]
    return metrics


def get_mapping(metrics: Any, *keys: str) -> Mapping[str, Any]:
    """Return ``metrics[key][key]...`` if it is a mapping, else an empty one."""
    found = get_value(metrics, *keys)
    return found if isinstance(found, Mapping) else {}


def get_rows(metrics: Any, *keys: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the entries of ``metrics[key][key]...`` that are mappings themselves."""
    return [(str(key), row) for key, row in get_mapping(metrics, *keys).items() if isinstance(row, Mapping)]


def percent(value: Any, digits: int = 1) -> str:
    """Write a fraction as per cent, a number outside [0, 1] as it is, and anything else as a dash.

    >>> percent(0.8904), percent(None), percent(7.5)
    ('89.0 %', '-', '7.5')
    """
    found = number(value)
    if found is None:
        return "-"
    return f"{100 * found:.{digits}f} %" if 0 <= found <= 1 else f"{found:.4g}"


def plus_minus(value: Any, error: Any, digits: int = 1) -> str:
    """Write a fraction with its standard error in per cent; an error that is no number is left out.

    >>> plus_minus(0.8904, 0.006), plus_minus(0.8904, None)
    ('89.0 % ± 0.6', '89.0 %')
    """
    sem = number(error)
    return percent(value, digits) + ("" if sem is None else f" ± {100 * sem:.{digits}f}")


def plain(value: Any) -> str:
    """Write a number with four significant digits, or with commas if it is whole; a dash if it is no number.

    >>> plain(1234567), plain(0.123456), plain(float("nan")), plain(1e300)
    ('1,234,567', '0.1235', '-', '1e+300')
    """
    found = number(value)
    if found is None:
        return "-"
    return f"{int(found):,}" if found == int(found) and abs(found) < 1e15 else f"{found:.4g}"


def short(text: Any, longest: int = LONGEST) -> str:
    """Cut the middle out of a long text.

    >>> short("abcdefghij", 5)
    'ab…ij'
    """
    text = str(text)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
