"""Errors that a user can mend, with their exit codes; and the look-up by name that suggests the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class FacenetError(ValueError):
    """An error that a user can mend: one line that says what, in which place, and what to do next."""

    exit_code = 1


class ConfigError(FacenetError):
    """An option is unknown, of the wrong type or out of range; a command exits with 2."""

    exit_code = 2


class DataError(FacenetError):
    """A file or folder is missing, empty, broken or does not fit another; a command exits with 3."""

    exit_code = 3


class NotThere(DataError):
    """Nothing of that name is there."""


class Taken(DataError):
    """The name is given to something else already."""


class OtherEncoder(DataError):
    """Vectors of an encoder that may not stand beside those that are there."""


class Busy(DataError):
    """Somebody else is using it; the same call may succeed later."""


class StorageError(DataError):
    """What is stored can not be read or written: a full disk, missing rights, a damaged file."""


class GateError(FacenetError):
    """A measured figure misses the limit that was asked for; a command writes `metrics` and exits with 4."""

    exit_code = 4

    def __init__(self, message: str, metrics: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.metrics = metrics


def one_line(error: BaseException, most: int = 160) -> str:
    """Return the text of a library's error as one line of at most `most` characters.

    >>> one_line(KeyError("name")), one_line(ValueError("two\\nlines"))
    ("KeyError: 'name'", 'two lines')
    """
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    plain = isinstance(error, OSError | ValueError) and text
    return (text if plain else f"{type(error).__name__}: {text}")[:most]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to `name`, or an empty string.

    >>> nearest("semihard", ["semi_hard", "random"])
    " (did you mean 'semi_hard'?)"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Return ``table[name]``; an unknown name raises :class:`ConfigError` that lists the known ones.

    >>> choose({"nn4": 1, "small": 2}, "smal", "model")
    Traceback (most recent call last):
        ...
    facenet.errors.ConfigError: model: unknown name 'smal' (did you mean 'small'?); known: nn4, small
    """
    if name in table:
        return table[name]
    raise ConfigError(f"{what}: unknown name {name!r}{nearest(name, table)}; known: {', '.join(sorted(table))}")
