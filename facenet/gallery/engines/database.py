"""What the engines of databases have in common: settings that are read with care."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.tuning import NEVER, Tuned
from facenet.gallery.items import Recipe

T = TypeVar("T")


class Database(Engine):
    """An engine whose settings are texts by key."""

    def dim(self) -> int | None:
        """Return the width D of the vectors; None before it is known."""
        found = self.setting("dim")
        if found is not None and not re.fullmatch("[1-9][0-9]{0,5}", found):
            raise self.damaged("its width")
        return None if found is None else int(found)

    def recipe(self) -> Recipe:
        """Return what the gallery was told, or the default."""
        return self._read("index", lambda values: Recipe(*values), Recipe())

    def tuned(self, key: str = "tuned") -> Tuned:
        """Return what was measured of an index; `NEVER` before."""
        return self._read(key, lambda values: Tuned(*values), NEVER)

    def remembered(self, name: str) -> dict[str, Any] | None:
        """Return what was stored by :meth:`remember`."""
        return self._read(f"answers:{name}", dict, None)

    def _read(self, key: str, make: Callable[[Any], T], default: T) -> T:
        text = self.setting(key)
        try:
            return default if text is None else make(json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise self.damaged(f"the setting {key}") from error

    def put_plain(self, key: str, values: Any) -> None:
        """Store plain values inside a write."""
        self.put_setting(key, json.dumps(values))
