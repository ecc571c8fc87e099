"""Which engine holds the gallery that a user names: a folder, or the address of a database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from facenet.errors import ConfigError
from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.milvus.connection import SCHEME
from facenet.gallery.engines.postgres.connection import SCHEMES
from facenet.gallery.faiss.kinds import LIMITS, Limits


def is_address(place: str | Path) -> bool:
    """Tell whether a place is a database, not a folder."""
    return str(place).startswith((*SCHEMES, SCHEME))


def open_engine(
    place: str | Path,
    timeout: float,
    create: bool,
    encoder: tuple[str | None, Sequence[str], int | None] = (None, (), None),
    limits: Limits = LIMITS,
) -> Engine:
    """Open the engine of a place, and claim it for an encoder; see :meth:`facenet.gallery.gallery.Gallery.open`."""
    engine = _opened(place, timeout, create, limits)
    try:
        engine.claim(*encoder)
    except BaseException:
        engine.close(write_index=False)
        raise
    return engine


def _opened(place: str | Path, timeout: float, create: bool, limits: Limits) -> Engine:
    address = str(place)
    if address.startswith(("http://", "https://")):
        raise ConfigError(f"{address}: the address of a service, not a folder; use facenet.connect(url)")
    if address.startswith(SCHEMES):
        from facenet.gallery.engines.postgres.engine import Postgres

        return Postgres(address, timeout, create=create)
    if address.startswith(SCHEME):
        from facenet.gallery.engines.milvus.engine import Milvus

        return Milvus(address, timeout, create=create)
    from facenet.gallery.engines.folder import Folder

    return Folder(Path(place), timeout, create=create, limits=limits)
