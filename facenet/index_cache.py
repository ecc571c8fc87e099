"""The FAISS side of the gallery: exact search, and ``index.faiss`` as a cache of the SQLite truth.

The truth logs its write transactions (table `writes`: generation, a random token, last item number, items then there).
A cache belongs to one of them. Later writes are replayed onto it; one that is lost, damaged or of another history (a
restored backup) is built again from the truth.

FAISS accepts NaN, fails on a wrong width without a word, pads with -1, writes files non-atomically and loads most
corrupted ones, so what goes in or comes out passes the checks in here. It is imported inside functions: where torch is
used too, torch must come first (each brings an OpenMP runtime).

Letters: N items, Q queries, D embedding width.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from facenet.errors import DataError
from facenet.files import atomic_write, read_json, write_json
from facenet.types import Neighbours

SCHEMA = 1
TRUTH, INDEX, HEADER = "items.sqlite", "index.faiss", "index.json"
BLOCK = 8192  # rows read at once
MAY_LAG = 0.02  # share of the items by which index.faiss may be behind before it is written again
UNIT_TOLERANCE = 1e-3  # how far a norm may be from 1
STALE_TEMPORARY = 3600.0  # seconds after which a temporary file can only be a dead writer's
log = logging.getLogger(__name__)


class Database(Protocol):
    """What is used of the SQLite connection, which `index` opens and owns."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement and return a cursor."""


class State(NamedTuple):
    """One write transaction of the truth, and what it left."""

    generation: int
    token: str  # random: a generation alone can not tell a restored backup
    last: int  # the highest item number given out until then; numbers are never used again
    items: int


class Snapshot(NamedTuple):
    """A FAISS index over item numbers, and the name of the write that it holds."""

    faiss: Any
    generation: int
    token: str


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, *, threads: int | None = None) -> Neighbours:
    """Exact k nearest rows of `vectors` (N, D) for `queries` (Q, D) by squared L2, nearest first.

    Returns rows (Q, k) int64 and sq_dist (Q, k) float32 >= 0; where k > N the rest is row -1 and sq_dist inf.
    `threads` limits FAISS for this call. Vectors need not be unit here.

    Raises:
        DataError: nothing in `vectors` or `queries`, NaN or infinity, another width, k < 1.
    """
    vectors = as_rows(vectors, "vectors")
    queries = as_rows(queries, "queries", dim=vectors.shape[1])
    index = new_index(vectors.shape[1])
    index.add_with_ids(vectors, np.arange(len(vectors)))
    return search(index, queries, k, threads=threads)


def as_rows(
    vectors: np.ndarray, what: str, *, dim: int | None = None, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return `vectors` as contiguous float32 (N, D); empty, non-finite or of another width raises DataError."""
    rows = np.asarray(vectors)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
        raise DataError(f"{what}: expected numbers of shape (N, D) with N, D >= 1, got {rows.dtype} {rows.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise DataError(f"{what}: expected width {dim}, got {rows.shape[1]}; embed again with the matching encoder")
    rows = np.ascontiguousarray(rows, np.float32)
    bad = ~np.isfinite(square_norms(rows))
    if bad.any():
        raise DataError(f"{what}: {_listed(bad, names)} NaN, infinite or too large; embed again or leave out")
    return rows


def unit_rows(
    vectors: np.ndarray, what: str, *, dim: int | None = None, names: Sequence[str] | None = None
) -> np.ndarray:
    """As :func:`as_rows`, and refuse zero rows and rows whose norm is not 1 within 1e-3."""
    rows = as_rows(vectors, what, dim=dim, names=names)
    norms = np.sqrt(square_norms(rows))
    zero = norms < UNIT_TOLERANCE
    if zero.any():
        raise DataError(f"{what}: {_listed(zero, names)} zero; embed again or leave out")
    long = np.abs(norms - 1) > UNIT_TOLERANCE
    if long.any():
        raise DataError(
            f"{what}: {_listed(long, names)} not of unit length (norm {norms[long][0]:.4g}); "
            "normalise them (facenet.distance.normalise)"
        )
    return rows


def square_norms(rows: np.ndarray) -> np.ndarray:
    """Squared norms of `rows` (N, D): shape (N,), without a copy of the rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("nd,nd->n", rows, rows)


def _listed(bad: np.ndarray, names: Sequence[str] | None, most: int = 3) -> str:
    rows = np.flatnonzero(bad)
    shown = ", ".join(f"row {i}" + (f" ({names[i]})" if names is not None else "") for i in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} of {len(bad)} vectors, {shown}{more}: {'is' if len(rows) == 1 else 'are'}"


def new_index(dim: int) -> Any:
    """An empty exact L2 index of width `dim` whose rows carry item numbers."""
    import faiss

    return faiss.IndexIDMap(faiss.IndexFlatL2(dim))


def search(index: Any, queries: np.ndarray, k: int, *, threads: int | None = None) -> Neighbours:
    """The k nearest item numbers of checked `queries` (Q, D), padded as :class:`Neighbours` says."""
    if k < 1:
        raise DataError(f"k: expected at least 1, got {k}")
    found = min(int(k), int(index.ntotal))
    rows = np.full((len(queries), k), -1, np.int64)
    sq_dist = np.full((len(queries), k), np.inf, np.float32)
    if found:
        with _threads(threads):
            sq_dist[:, :found], rows[:, :found] = index.search(queries, found)
    return Neighbours(rows, sq_dist)  # FAISS clamps rounding below 0


def within(index: Any, queries: np.ndarray, max_sq_dist: float) -> list[Neighbours]:
    """For each of `queries` (Q, D) all item numbers with sq_dist <= max_sq_dist, nearest first, as (m,) arrays."""
    radius = float(np.nextafter(np.float32(max_sq_dist), np.float32(np.inf)))  # FAISS takes < radius
    limits, sq_dist, rows = index.range_search(queries, radius)
    results = []
    for start, end in zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True):
        order = np.argsort(sq_dist[start:end], kind="stable") + start
        results.append(Neighbours(rows[order], sq_dist[order]))
    return results


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    import faiss

    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Cache:
    """The index of one gallery, in memory and in ``index.faiss``; calls come inside a read transaction of `db`."""

    def __init__(self, folder: Path, db: Database) -> None:
        """Nothing is read before the first search."""
        self.folder = folder
        self.db = db
        self.snapshot: Snapshot | None = None
        self.unusable = False  # the file was looked at and did not serve

    def current(self, dim: int) -> Any:
        """The FAISS index of exactly the present state; raises DataError where the truth itself is damaged."""
        now, snapshot = last_write(self.folder, self.db), self.snapshot
        if snapshot is not None and snapshot[1:] == now[:2]:
            return snapshot.faiss
        self.snapshot = None  # an error below must not leave a half-changed index in use
        if snapshot is None:
            snapshot, problem = load(self.folder)
            if problem:
                log.warning("%s: %s; built again from the items", self.folder, problem)
        base = find_write(self.db, snapshot[1:]) if snapshot else None
        if snapshot and base and (snapshot.faiss.d, snapshot.faiss.ntotal) == (dim, base.items):
            index = snapshot.faiss
            self._drop_removed(index, base)
        else:
            self.unusable = True
            index, base = new_index(dim), State(-1, "", 0, 0)
        numbers, vectors = stored_vectors(self.folder, self.db, base.last, now.items - int(index.ntotal), dim)
        if len(numbers):
            index.add_with_ids(vectors, numbers)
        self.snapshot = Snapshot(index, now.generation, now.token)
        return index

    def _drop_removed(self, index: Any, base: State) -> None:
        query = "SELECT number FROM removed WHERE generation > ? AND number <= ?"
        gone = [row[0] for row in self.db.execute(query, (base.generation, base.last))]
        if gone:
            index.remove_ids(np.array(gone, np.int64))

    def due(self, now: State) -> bool:
        """Whether the file is missing, unusable or more than 2 % of the items behind."""
        base = self.written()
        if base is None or self.unusable:
            return True
        removed = self.db.execute("SELECT count(*) FROM removed WHERE generation > ?", (base.generation,)).fetchone()[0]
        return bool(now.last - base.last + removed > MAY_LAG * now.items)

    def written(self) -> State | None:
        """The write that the file says it holds; None where there is no such file or no such write."""
        header = read_header(self.folder)
        return find_write(self.db, (header["generation"], header["token"])) if header else None

    def check(self, dim: int) -> list[str]:
        """Compare the file, brought up to date, with the truth: problems, one line each; a missing file is none."""
        snapshot, problem = load(self.folder)
        if problem:
            return [f"{problem}; the next search builds it again"]
        if snapshot is None or find_write(self.db, snapshot[1:]) is None:
            return []
        fresh = Cache(self.folder, self.db)
        fresh.snapshot = snapshot
        index = fresh.current(dim)
        numbers, vectors = stored_vectors(self.folder, self.db, 0, last_write(self.folder, self.db).items, dim)
        held, cached = numbered_vectors(index)
        if fresh.unusable or not np.array_equal(numbers, held) or not np.array_equal(vectors, cached):
            return [f"{INDEX} and the items differ; delete it, the next search builds it again"]
        return []


def last_write(folder: Path, db: Database) -> State:
    """The newest write of the truth."""
    row = db.execute("SELECT generation, token, last, items FROM writes ORDER BY generation DESC LIMIT 1").fetchone()
    if row is None:
        raise damaged(folder, "no write on record")
    return State(*row)


def find_write(db: Database, name: tuple[int, str]) -> State | None:
    """The write of the truth with that (generation, token), or None where it is not in this history."""
    query = "SELECT generation, token, last, items FROM writes WHERE generation = ? AND token = ?"
    row = db.execute(query, name).fetchone()
    return State(*row) if row else None


def stored_vectors(folder: Path, db: Database, last: int, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (count,) and vectors (count, D) of the items numbered above `last`; DataError where they are not that."""
    if not 0 <= count <= last_write(folder, db).items:
        raise damaged(folder, "the counts do not fit")
    numbers, vectors, done = np.empty(count, np.int64), np.empty((count, dim), np.float32), 0
    query = "SELECT number, coalesce(CAST(vector AS BLOB), x'') FROM items WHERE number > ? ORDER BY number"
    cursor = db.execute(query, (last,))
    while block := cursor.fetchmany(BLOCK):
        end = done + len(block)
        if end > count or any(len(vector) != 4 * dim for _, vector in block):
            raise damaged(folder, f"{end} items or more where {count} should be, or a vector not of width {dim}")
        numbers[done:end] = [number for number, _ in block]
        vectors[done:end] = np.frombuffer(b"".join(vector for _, vector in block), "<f4").reshape(-1, dim)
        done = end
    if done != count or not (np.abs(square_norms(vectors) - 1) <= 3 * UNIT_TOLERANCE).all():
        raise damaged(folder, f"{done} items where {count} should be, or a vector not of unit length")
    return numbers, vectors


def damaged(folder: Path, why: str) -> DataError:
    """The error for a truth that contradicts itself."""
    return DataError(f"{folder / TRUTH}: damaged ({why}); see Gallery.check, restore a backup or index again")


def numbered_vectors(index: Any) -> tuple[np.ndarray, np.ndarray]:
    """Item numbers (N,) and vectors (N, D) that an index of :func:`new_index` holds."""
    import faiss

    return faiss.vector_to_array(index.id_map), index.index.reconstruct_n(0, index.ntotal)


def save(folder: Path, snapshot: Snapshot) -> None:
    """Write ``index.faiss``, then ``index.json`` with its SHA-256; a crash between the two makes both unusable."""
    import faiss

    for path in folder.glob(f".{INDEX}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_TEMPORARY:
                path.unlink()
    with atomic_write(folder / INDEX) as file:
        content = faiss.serialize_index(snapshot.faiss).data
        file.write(content)
    header = {
        "schema": SCHEMA,
        "generation": snapshot.generation,
        "token": snapshot.token,
        "count": int(snapshot.faiss.ntotal),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_json(folder / HEADER, header)


def read_header(folder: Path) -> dict[str, Any]:
    """The content of ``index.json``, or an empty dict where it is missing, broken or of another schema."""
    try:
        header = read_json(folder / HEADER)
    except DataError:
        return {}
    wanted = {"generation": int, "token": str, "count": int, "sha256": str}
    fits = all(type(header.get(name)) is kind for name, kind in wanted.items())
    return header if fits and header.get("schema") == SCHEMA else {}


def load(folder: Path) -> tuple[Snapshot | None, str]:
    """Read the cache: the snapshot, or None and why there is none ("" where no cache was ever written)."""
    import faiss

    if not (folder / INDEX).exists() and not (folder / HEADER).exists():
        return None, ""
    header = read_header(folder)
    if not header:
        return None, f"{HEADER} is missing or broken"
    try:
        content = (folder / INDEX).read_bytes()
    except OSError as error:
        return None, f"{INDEX} can not be read ({error.strerror})"
    if hashlib.sha256(content).hexdigest() != header["sha256"]:
        return None, f"{INDEX} has another SHA-256 than {HEADER} says"
    try:
        index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
    except RuntimeError:
        return None, f"{INDEX} can not be read by this FAISS"
    if index.ntotal != header["count"]:
        return None, f"{INDEX} holds {index.ntotal} vectors, {HEADER} says {header['count']}"
    return Snapshot(index, header["generation"], header["token"]), ""
