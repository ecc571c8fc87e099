"""Tables of named entries that other packages can add to: nets, objectives, miners."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from facenet.errors import ConfigError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to entries that only grows.

    It is read when it is asked: an entry that a plugin registers is then a choice, and a hint for a misspelt name.
    :func:`facenet.errors.choose` is its loud look-up.
    """

    def __init__(self, what: str, entries: Mapping[str, T]) -> None:
        """Start with the built-in entries; `what` names the kind of entry in messages ("net")."""
        self.what = what
        self._entries = dict(entries)

    def register(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ConfigError: a name that is empty or taken.
        """
        if not name or not isinstance(name, str):
            raise ConfigError(f"{self.what}: expected a name to register, got {name!r}")
        if name in self._entries:
            raise ConfigError(f"{self.what}: the name {name!r} is taken; register under another name")
        self._entries[name] = entry

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Forget at the end of a block what was registered in it, as tests do."""
        before = dict(self._entries)
        try:
            yield
        finally:
            self._entries = before

    def __getitem__(self, name: str) -> T:
        """Return an entry; KeyError for an unknown name."""
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, built-in ones first."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)


def named_by(build: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the `options` that `build` names as arguments; all if it takes ``**keywords``.

    >>> named_by(lambda *, seed: seed, {"seed": 1, "margin": 0.2})
    {'seed': 1}
    """
    parameters = inspect.signature(build).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    return {name: value for name, value in options.items() if name in parameters}
