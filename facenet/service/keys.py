"""Who may ask: keys with a role, of which a file holds the SHA-256 alone.

A key is 256 random bits. Nobody can try them out, so a fast hash is as good as a slow one.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import logging
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from facenet.errors import DataError, FacenetError, Taken
from facenet.files import read_json, write_json

READ, WRITE = "read", "write"
ROLES = (READ, WRITE)
log = logging.getLogger(__name__)


class Who(NamedTuple):
    """A caller: the name of the key, or the address if there are no keys, and the role."""

    name: str
    role: str

    @property
    def may_write(self) -> bool:
        """Whether the caller may change the gallery and read vectors out of it."""
        return self.role == WRITE


class Keys:
    """The keys of a file. A file that changes is read again, so that a key is revoked without a restart.

    While the file is damaged or gone, no key is known.
    """

    def __init__(self, file: str | Path) -> None:
        """Read the file.

        Raises:
            DataError: no such file, or not one of keys.
        """
        self.file = Path(file)
        self._changed, self._known = self._read()

    def find(self, key: str) -> Who | None:
        """Return whose key this is, None if nobody's. Every key is compared, in constant time."""
        self._refresh()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for stored, who in self._known:
            if hmac.compare_digest(stored, digest):
                found = who
        return found

    def _refresh(self) -> None:
        try:
            if self.file.stat().st_mtime_ns != self._changed:
                self._changed, self._known = self._read()
        except (OSError, FacenetError):
            log.error("the file of keys can not be read: no key is known until it can")
            self._changed, self._known = -1, []

    def _read(self) -> tuple[int, list[tuple[bytes, Who]]]:
        try:
            changed = self.file.stat().st_mtime_ns
            rows = read_json(self.file)["keys"]
            known = [(bytes.fromhex(row["sha256"]), Who(str(row["name"]), row["role"])) for row in rows]
            if any(who.role not in ROLES or len(digest) != 32 for digest, who in known):
                raise ValueError("a role or a hash that is none")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.file}: no file of keys ({error}); make one with facenet serve keys=FILE new_key=NAME role=read"
            ) from error
        return changed, known


def add_key(file: str | Path, name: str, role: str) -> str:
    """Add a key to a file, which is made if there is none; returns the key, which is stored nowhere.

    Raises:
        Taken: a key of that name.
        DataError: a file that is not one of keys, or can not be written.
    """
    path = Path(file)
    rows: list[dict[str, Any]] = []
    if path.exists():
        Keys(path)  # checks it
        rows = read_json(path)["keys"]
    if any(row["name"] == name for row in rows):
        raise Taken(f"{path}: a key {name!r} is there; choose another name, or delete its line to revoke it")
    key = f"fn_{secrets.token_urlsafe(32)}"
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rows.append({"name": name, "role": role, "sha256": hashlib.sha256(key.encode()).hexdigest(), "made": made})
    write_json(path, {"keys": rows})
    path.chmod(0o600)
    return key
