"""A CSV table of paths and identities, listed as records."""

from __future__ import annotations

import os
from pathlib import Path

from facenet.data.records import NothingUsable, Records, Skipped
from facenet.data.sources.folder import folder, read_alignment, same_name
from facenet.data.sources.walk import why_not
from facenet.errors import DataError
from facenet.files import is_inside, read_csv


def scan_csv(file: str | Path, root: str | Path | None = None) -> Records:
    """Read a table with the columns ``path`` and ``identity``; paths are relative to `root` or to the table.

    Raises:
        DataError: no such table, a missing column, no usable row, or a path that leaves the root folder.
    """
    file = Path(file)
    table = read_csv(file, ("path", "identity"), remedy="give a CSV file with the columns path, identity")
    rows = [(row["path"].strip(), row["identity"].strip()) for row in table]
    root = folder(root if root is not None else file.parent)
    inside = root.resolve()
    found, skipped = [], []
    for path, identity in rows:
        path = os.path.relpath(path, root) if os.path.isabs(path) else path  # noqa: PTH117 - texts, not files
        if not is_inside(path):
            raise DataError(f"{file}: the path {path[:80]!r} is empty or leads outside {root}; use paths below it")
        try:
            leaves = not (root / path).resolve().is_relative_to(inside)
        except (OSError, RuntimeError):  # a name too long, or a circle of links
            leaves = False
        if leaves:
            raise DataError(f"{file}: the path {path[:80]!r} is a link that leads outside {root}; use paths below it")
        reason = why_not(root / path)
        if reason:
            skipped.append(Skipped(path, reason))
        else:
            found.append((Path(path).as_posix(), same_name(identity)))
    if not found:
        raise NothingUsable(f"{file}: none of its {len(rows)} rows names a usable image under {root}", skipped)
    paths, identities = tuple(p for p, _ in found), tuple(i for _, i in found)
    return Records.of(paths, identities, str(root), None, tuple(skipped), read_alignment(root))
