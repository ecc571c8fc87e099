"""The SQLite connection of a gallery: one file, its queries in chunks, and its errors in one line."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from facenet.errors import Busy, DataError, StorageError
from facenet.gallery.items import unholdable

TRUTH = "items.sqlite"
CHUNK = 500  # values in one SQL IN (...)


class Database:
    """A connection to ``items.sqlite`` in a folder; the tables and transactions are in the modules beside this one."""

    def __init__(self, folder: Path, timeout: float, *, create: bool) -> None:
        """Connect to the file in `folder`; `create` makes folder and file. Statements wait `timeout` seconds for locks.

        Raises:
            DataError: the file is missing, or the folder can not be made.
        """
        self.folder = folder
        self.timeout = timeout
        path = folder / TRUTH
        if create:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{folder}: can not be made ({error.strerror}); choose another folder") from error
        elif not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on a folder that may not be entered
            raise DataError(f"{folder}: no gallery there ({TRUTH} is missing); make one with facenet index")
        with self.one_line_errors():
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self._connection.close()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement and return its cursor."""
        return self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of the rows of values."""
        self._connection.executemany(statement, rows)

    def value(self, query: str, *values: Any) -> Any:
        """Return the first column of the first row."""
        return self.execute(query, values).fetchone()[0]

    def column(self, query: str, *values: Any) -> list[Any]:
        """Return the first column of every row."""
        return [row[0] for row in self.execute(query, values)]

    def among(self, query: str, values: Sequence[Any], then: str = "") -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `query` with a list of the values after it, 500 values at a time; `then` ends it."""
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            yield from self.execute(f"{query} ({marks(len(chunk))}) {then}", chunk)

    def damaged(self, why: str) -> StorageError:
        """Return the error for a truth that contradicts itself."""
        return StorageError(
            f"{self.folder / TRUTH}: damaged ({why}); see Gallery.check, restore a backup or index again"
        )

    @contextlib.contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into a DataError whose one line says what to do."""
        try:
            yield
        except (UnicodeEncodeError, OverflowError) as error:
            raise unholdable(self.folder, error) from error
        except sqlite3.Error as error:
            text, path = str(error), self.folder / TRUTH
            if "locked" in text or "busy" in text:
                raise Busy(f"{path}: another process is writing (waited {self.timeout:g} s); try again") from error
            if "readonly" in text or "unable to open" in text:
                what = f"can not be opened or written ({text}); choose a folder you may write to"
            elif "full" in text or "disk I/O" in text:
                what = f"writing failed ({text}), nothing was changed; free some space"
            elif isinstance(error, sqlite3.ProgrammingError):
                raise
            else:
                what = f"not a gallery, or damaged ({text}); restore it from a backup or index the embeddings again"
            raise StorageError(f"{path}: {what}") from error


def marks(count: int) -> str:
    """Return so many question marks for values of SQL."""
    return ",".join("?" * count)
