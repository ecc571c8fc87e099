"""Sources of images by kind: which function lists them, what of them can be used, and how much may be unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from facenet.data.records import NothingUsable, Records, Skipped, summary
from facenet.data.sources.duplicates import without_duplicates
from facenet.data.sources.folder import read_alignment, scan_folder, scan_lfw
from facenet.data.sources.table import scan_csv
from facenet.errors import ConfigError, DataError, choose
from facenet.types import Progress

SOURCES: dict[str, Callable[..., Records]] = {"folder": scan_lfw, "csv": scan_csv, "lfw": scan_lfw}
Listed = Callable[[Sequence[Skipped]], None]  # called with what is left out


def scan(path: str | Path) -> Records:
    """List images from a folder, an LFW tree, a CSV table or a single image file, whichever `path` is."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return scan_csv(path)
    if path.is_file():
        return Records.of((path.name,), ("",), str(path.parent), alignment=read_alignment(path.parent))
    return scan_lfw(path) if (path / "images").is_dir() else scan_folder(path)


def scan_kind(kind: str, root: str | None, progress: Progress | None = None) -> Records:
    """List all images of a source of the given kind; `progress` is called with (done, total) people of a folder.

    Raises:
        ConfigError: an unknown kind, or no root.
        DataError: as the function of that kind.
    """
    list_images = choose(SOURCES, kind, "data.kind")
    if not root:
        raise ConfigError(f"data.root: not set; data={kind} needs data.root=DIR (or FACENET_LFW in the environment)")
    return list_images(root, progress) if progress and kind != "csv" else list_images(root)


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
        kind: A key of `SOURCES`.
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
    nameless = [
        (row, "no identity: it lies in no person's folder") for row, name in enumerate(records.identities) if not name
    ]
    labelled = without_duplicates(records.without(nameless))
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
