"""Forms of face sets that lie in large files, by name; which form a path is of.

LMDB is not among them. Its values differ from writer to writer: some are pickles. Its library maps pages and trusts
them, so that a damaged file ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from facenet.data.sources import parquet, recordio, tars, zips
from facenet.data.sources.listing import Form

FORMS: dict[str, Form] = {"recordio": recordio.FORM, "tar": tars.FORM, "zip": zips.FORM, "parquet": parquet.FORM}
_IS: dict[str, Callable[[Path], bool]] = {
    "recordio": recordio.is_recordio,
    "tar": tars.is_tar,
    "zip": zips.is_zip,
    "parquet": parquet.is_parquet,
}


def form_of(path: str | Path) -> str | None:
    """Return the name of the form of a file or folder; None: it is of none of them, a folder of pictures perhaps.

    Nothing is opened. A folder of .rec files is RecordIO whatever else is in it. For the other forms it may hold no
    folders but ``data``: archives beside folders of pictures are what these were unpacked from.
    """
    return next((name for name, is_form in _IS.items() if is_form(Path(path))), None)
