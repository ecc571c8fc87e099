"""The connection to PostgreSQL: whose address names the gallery, made again when it is lost, its errors in one line.

Passwords, certificates and time limits come from libpq's environment (``PGPASSWORD``, ``PGSSLMODE``), from
``~/.pgpass`` or from a service file. A password in the address is refused: addresses are written to logs.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from facenet.errors import Busy, ConfigError, DataError, StorageError, one_line
from facenet.foreign import install_command
from facenet.gallery.items import unholdable

SCHEMES = ("postgresql://", "postgres://")
DEFAULT = "facenet"  # the gallery's name, where the address gives none
FULL = ("53", "54", "58")  # classes of SQLSTATE: resources, limits, the system
NAME = re.compile("[a-z][a-z0-9_]{0,40}")
# Seconds, and milliseconds, after which a cut network is noticed.
ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}


class Address(NamedTuple):
    """Where a gallery is: what libpq is given, the schema of its tables, and how messages name it."""

    conninfo: str
    schema: str
    shown: str


def parse(address: str) -> Address:
    """Return the parts of ``postgresql://[user@]host[:port]/database[?gallery=NAME]``, other parameters as libpq's.

    Raises:
        ConfigError: a password in it, or a name of a gallery that is none.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    shown = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.password is not None or "password" in options:
        raise ConfigError(f"{shown}: leave the password out; libpq reads PGPASSWORD, ~/.pgpass or a service file")
    schema = options.pop("gallery", DEFAULT)
    if not NAME.fullmatch(schema):
        raise ConfigError(f"{shown}: gallery={schema!r}: expected small letters, digits and _, at most 41")
    rest = f"?{urlencode(options, quote_via=quote)}" if options else ""
    conninfo = f"postgresql://{parts.netloc}{parts.path}{rest}"
    return Address(conninfo, schema, f"{shown}?gallery={schema}")


def drivers() -> tuple[Any, Any]:
    """Return the module ``psycopg``, and the function that tells a session of vectors.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import psycopg
        from pgvector.psycopg import register_vector
    except ImportError as error:
        raise ConfigError(f"PostgreSQL needs psycopg and pgvector; {install_command('postgres')}") from error
    return psycopg, register_vector


class Connection:
    """One session of the database; the statements name tables of the gallery's own schema."""

    def __init__(self, address: str, timeout: float) -> None:
        """Connect; statements wait `timeout` seconds for locks, and so long is tried to connect.

        Raises:
            ConfigError: as :func:`parse`, or without the driver.
            StorageError: the server can not be reached, or refuses.
        """
        self.address = parse(address)
        self.timeout = timeout
        self.driver, self._tell_of_vectors = drivers()
        self._session: Any = None
        with self.one_line_errors():
            self._connect()

    def _connect(self) -> None:
        given = self.driver.conninfo.conninfo_to_dict(self.address.conninfo)
        usual = {**ALIVE, "connect_timeout": max(2, int(self.timeout)), "application_name": "facenet"}
        self._session = self.driver.connect(**{**usual, **given}, autocommit=True)
        wait = self.patience
        path = f'"{self.address.schema}", public'
        # A cached plan would not heed whether the present search is exact.
        for name, value in (("lock_timeout", wait), ("search_path", path), ("plan_cache_mode", "force_custom_plan")):
            self._session.execute("SELECT set_config(%s, %s, false)", (name, value))
        self.register()

    @property
    def patience(self) -> str:
        """How long a statement waits for locks, as PostgreSQL reads it."""
        return f"{max(1, int(1000 * self.timeout))}ms"

    def register(self) -> None:
        """Let vectors go to the server as arrays; nothing to do before the extension is there."""
        with contextlib.suppress(self.driver.ProgrammingError):  # no extension yet
            self._tell_of_vectors(self._session)

    def close(self) -> None:
        """Close the session; an open transaction is rolled back."""
        self._session.close()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return not self._session.closed and self._session.info.transaction_status != 0

    def begin(self, statement: str) -> None:
        """Begin a transaction. A lost connection is made again, for `timeout` seconds."""
        ends = time.monotonic() + self.timeout
        wait = 0.05
        while True:
            try:
                if self._session.closed:
                    self._connect()
                self._session.execute(statement)
                return
            except self.driver.OperationalError as error:
                self._session.close()
                if error.sqlstate in ("28P01", "28000", "3D000") or time.monotonic() + wait > ends:
                    raise
                time.sleep(wait)
                wait = min(2 * wait, 1.0)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Run one statement and return its cursor; answers are binary."""
        return self._session.execute(statement, values, binary=True)

    def row(self, statement: str, *values: Any) -> Any:
        """Return the first row; None if there is none."""
        return self.execute(statement, values).fetchone()

    def value(self, statement: str, *values: Any) -> Any:
        """Return the first column of the first row; None if there is none."""
        found = self.row(statement, *values)
        return found[0] if found else None

    def column(self, statement: str, *values: Any) -> list[Any]:
        """Return the first column of every row."""
        return [row[0] for row in self.execute(statement, values)]

    def stream(self, statement: str, size: int, values: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query in blocks; memory holds one of them."""
        name = f"rows_{time.monotonic_ns()}"
        self.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {statement}", values)
        while rows := self.execute(f"FETCH {size} FROM {name}").fetchall():
            yield rows
        self.execute(f"CLOSE {name}")

    @contextlib.contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turn the driver's errors into a DataError whose one line says what to do."""
        try:
            yield
        except (UnicodeEncodeError, OverflowError) as error:
            raise unholdable(self.address.shown, error) from error
        except self.driver.Error as error:
            raise self._told(error) from error

    def _told(self, error: Any) -> DataError:
        """Return the error that a user can mend."""
        errors, place = self.driver.errors, self.address.shown
        text = one_line(ValueError(str(error).partition("\n")[0]))
        if isinstance(error, errors.LockNotAvailable | errors.QueryCanceled | errors.DeadlockDetected):
            return Busy(f"{place}: others are writing ({text}; waited {self.timeout:g} s); try again")
        if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            return StorageError(f"{place}: the role may not do that ({text}); ask the gallery's owner")
        if (error.sqlstate or "")[:2] in FULL or "File too large" in text:
            return StorageError(f"{place}: writing failed ({text}), nothing was changed; free some space")
        if isinstance(error, self.driver.DataError):
            return DataError(f"{place}: a text or number that PostgreSQL can not hold ({text}); change it")
        if isinstance(error, self.driver.OperationalError | self.driver.InterfaceError):
            return StorageError(f"{place}: the server can not be reached or ended the connection ({text}); try again")
        return StorageError(f"{place}: {text}; see Gallery.check, or restore a backup")
