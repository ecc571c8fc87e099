"""Sources of images by kind: which function lists them, what of them can be used, and how much may be unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facenet.data.index import Index, columns_of, index_folder, set_folder
from facenet.data.records import NothingUsable, Records, Skipped, summary
from facenet.data.sources.duplicates import without_duplicates
from facenet.data.sources.folder import read_alignment, scan_lfw
from facenet.data.sources.forms import FORMS, form_of
from facenet.data.sources.table import scan_csv
from facenet.errors import ConfigError, DataError, choose
from facenet.types import Progress

SOURCES: dict[str, Callable[..., Records]] = {"folder": scan_lfw, "csv": scan_csv, "lfw": scan_lfw}
MOST_UNSCANNED = 1_000_000  # images that are listed anew by every command
Listed = Callable[[Sequence[Skipped]], None]  # called with what is left out


def scan(path: str | Path) -> Records:
    """List images from a folder, an LFW tree, larger files, a CSV table or a single image file, whichever `path` is.

    Raises:
        DataError: as :func:`scan_kind`.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return scan_csv(path)
    if path.is_file() and form_of(path) is None:
        return Records.of((path.name,), ("",), str(path.parent), alignment=read_alignment(path.parent))
    return scan_kind("folder", str(path))


def scan_kind(kind: str, root: str | None, progress: Progress | None = None) -> Records:
    """List all images of a source of the given kind; `progress` is called with (done, total) people or files.

    What kind a root of `folder` is, pictures or larger files, is told from the path. The index that facenet scan made
    is used if there is one.

    Raises:
        ConfigError: an unknown kind, or no root.
        DataError: as the function of that kind; an index that is damaged or older than the set; too many images to go
            without one.
    """
    choose({**SOURCES, **FORMS}, kind, "data.kind")
    if not root:
        raise ConfigError(f"data.root: not set; data={kind} needs data.root=DIR (or FACENET_LFW in the environment)")
    if kind == "csv":
        return scan_csv(root)
    place = index_folder(root)
    if (place / "index.json").is_file():
        return read_index(place, root)
    form = kind if kind in FORMS else form_of(root) if kind == "folder" else None
    if form is None:
        return SOURCES[kind](root, progress) if progress else SOURCES[kind](root)
    index = list_packed(form, root, progress)
    if len(index.columns.labels) > MOST_UNSCANNED:
        raise DataError(
            f"{root}: {len(index.columns.labels):,} images, which are many to list in every command; run facenet scan"
            f" data.root={root} once, and this command again"
        )
    return index.records(FORMS[form].open_shard, root)


def list_packed(form: str, root: str | Path, progress: Progress | None = None) -> Index:
    """Return the images inside the larger files of a set, by the structure of these files alone.

    Raises:
        NothingUsable: there is none.
        DataError: as the form's `list_images`.
    """
    listing = FORMS[form].list_images(Path(root), progress)
    if not len(listing.names):
        raise NothingUsable(f"{root}: no image in it ({form})", listing.skipped)
    return Index(form, set_folder(root), columns_of(listing), listing.skipped)


def read_index(place: Path, root: str | Path) -> Records:
    """Return the images of a set from its index in `place`.

    Raises:
        DataError: as :meth:`Index.open`.
    """
    index = Index.open(place, set_folder(root))
    return index.records(None if index.form == "folder" else FORMS[index.form].open_shard, root)


def scan_usable(
    kind: str,
    root: str | None,
    *,
    max_bad_share: float,
    listed: Listed | None = None,
    progress: Progress | None = None,
) -> tuple[Records, Records]:
    """Return all images of a source, and those of them that have an identity and are not there twice.

    Args:
        kind: As for :func:`scan_kind`.
        root: Folder or table.
        max_bad_share: Largest share of the files that may be left out, in [0, 1].
        listed: Called with what is left out, before anything is raised for it.
        progress: Called with (done, total) people of a folder.

    Raises:
        ConfigError: an unknown kind, or no root.
        DataError: nothing can be used, or less than `max_bad_share` allows.
    """
    report = listed or (lambda skipped: None)
    try:
        records = scan_kind(kind, root, progress)
    except NothingUsable as error:
        report(error.skipped)
        raise
    unknown = np.flatnonzero(records.labels == 0) if len(records) and not records.names[0] else ()
    labelled = records.without([(int(row), "no identity: it lies in no person's folder") for row in unknown])
    if records.table.encoded is None:  # else facenet scan has looked for them, and the order is canonical
        labelled = without_duplicates(labelled).in_order()
    report(labelled.skipped)
    check_share(labelled.skipped, len(labelled), max_bad_share, records.root)
    return records, labelled


def check_share(skipped: Sequence[Skipped], used: int, most: float, where: str) -> None:
    """Refuse a data set of which too much can not be used.

    Raises:
        DataError: `skipped` is more than the share `most` of `skipped` and `used` together.
    """
    share = len(skipped) / max(1, len(skipped) + used)
    if share > most:
        raise DataError(
            f"{where}: {len(skipped)} of {len(skipped) + used} files ({share:.0%}) can not be used, more than"
            f" data.max_bad_share={most:g} ({summary(skipped)}); see skipped.csv in the run folder, mend or remove"
            " them, or allow a larger share"
        )
