"""Files of verification pairs, and the faces that they name: pairs to report on, or to choose the checkpoint by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from facenet.data.options import DataOptions, PairColumns
from facenet.data.pairs import pair_rows, read_pairs
from facenet.data.records import Records
from facenet.data.sources.bin_pairs import SUFFIX, TABLE, Source, source_of, unpacked
from facenet.data.sources.kinds import scan_kind
from facenet.errors import ConfigError, DataError
from facenet.files import sha256_file
from facenet.types import Pairs, Progress, image_key


class Validation(NamedTuple):
    """Pairs that choose the checkpoint and the thresholds, in place of pairs of held-out people."""

    faces: Records
    pairs: Pairs
    source: Source  # the file that was given
    people: frozenset[str]  # whom the faces show; a .bin set names nobody


def unpack_pairs(options: DataOptions, *, option: str = "pairs", progress: Progress | None = None) -> DataOptions:
    """Return options that name the folder of a ``.bin`` set if `pairs` is such a file, else the options as they are.

    The set is unpacked below the cache folder at the first call. `option` is the one that names the file, for a
    message; `progress` is called with (done, total) images.

    Raises:
        ConfigError: a root beside a ``.bin`` set, which brings its own images.
        DataError: as :func:`~facenet.data.sources.bin_pairs.convert_bin`.
    """
    if not options.pairs or not _is_bin(options.pairs):
        return options
    if options.root:
        root = "data.validation_root" if option == "data.validation" else "data.root"
        raise ConfigError(f"{option}={options.pairs}: a .bin set brings its own images; leave {root} out")
    folder = unpacked(options.pairs, options.cache_dir, progress=progress)
    table = str(folder / TABLE)
    return replace(options, kind="folder", root=str(folder), pairs=table, pair_columns=PairColumns(), fold=None)


def source_of_pairs(options: DataOptions) -> Source | None:
    """Return which ``.bin`` file the reported pairs and the images under the root were made of; None for others.

    Raises:
        DataError: they are not those that were unpacked.
    """
    if not options.pairs or not options.root or Path(options.root).resolve() != Path(options.pairs).resolve().parent:
        return None
    return source_of(options.pairs)


def read_validation(options: DataOptions, *, progress: Progress | None = None) -> Validation | None:
    """Return the pairs of `validation` and their faces; None without that option.

    A ``.bin`` set brings its faces. Those of other files lie under `validation_root`, else under `root`. `progress` is
    called with (done, total) images while a set is unpacked.

    Raises:
        ConfigError: no root for a file of pairs, or one for a ``.bin`` set.
        DataError: a file that can not be read, or images that its pairs name and that are missing.
    """
    file, root = options.validation, options.validation_root
    if file is None:
        return None
    kind = "folder"
    if root is None and not _is_bin(file):
        kind, root = options.kind, options.root
        if kind == "synthetic":
            raise ConfigError(f"data.validation={file}: drawn faces have no files; add data.validation_root=FOLDER")
    asked = replace(options, kind=kind, root=root, pairs=file)
    named = unpack_pairs(asked, option="data.validation", progress=progress)
    faces, pairs = faces_of_file(kind, named.root, str(named.pairs), named.pair_columns, option="data.validation")
    check_pairs(faces, pairs, file)
    found = source_of_pairs(named)
    if found is not None:
        return Validation(faces, pairs, found, frozenset())
    path = protocol_file(file, faces, "data.validation")
    return Validation(faces, pairs, Source(path.name, sha256_file(path)), frozenset(faces.names) - {""})


def faces_of_file(
    kind: str,
    root: str | None,
    file: str,
    columns: PairColumns,
    *,
    option: str = "pairs",
    named: str = "data.pair_columns",
) -> tuple[Records, Pairs]:
    """Return the faces under a root that a file of pairs names, and the pairs.

    `kind` is that of :func:`scan_kind`; `columns` and `named` are those of :func:`read_pairs`. `option` is the one that
    names the file, for a message.

    Raises:
        ConfigError, DataError: as these.
    """
    records = scan_kind(kind, root)
    pairs = read_pairs(protocol_file(file, records, option), columns, named=named)
    return named_faces(records, pairs), pairs


def named_faces(records: Records, pairs: Pairs) -> Records:
    """Return the images that the pairs name."""
    wanted = set(pairs.first) | set(pairs.second)
    return records.subset([i for i, key in enumerate(records.keys) if key in wanted])


def protocol_file(name: str, records: Records, option: str) -> Path:
    """Find a file of people or pairs: as given, under ``<root>``, its ``protocol`` folder, or beside the images.

    Raises:
        DataError: it is in none of these places.
    """
    base = Path(records.root)
    places = [Path(name), base / name, base / "protocol" / name, base.parent / "protocol" / name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{option}={name}: no such file, nor under {places[2].parent} or {places[3].parent}")


def refuse_missing(faces: Records, pairs: Pairs, file: str, root: str | None, *, allow_missing: bool = False) -> None:
    """Refuse, before anything is embedded, pairs whose images are not among the faces; `file` and `root` are theirs.

    Raises:
        DataError: no image that the pairs name is there, or not each of them, unless `allow_missing`.
    """
    missing = pair_rows(pairs, faces.keys)[2]
    if missing and (not allow_missing or not len(faces)):
        raise DataError(
            f"{file}: {len(missing)} images that its pairs name are not under {root} (first: {missing[0]}); give the"
            " images that the pairs are of" + ("" if not len(faces) else ", or allow_missing=true")
        )


def check_pairs(faces: Records, pairs: Pairs, file: str | None) -> None:
    """Refuse, before training, pairs whose images can not be embedded; `file` is theirs.

    Raises:
        DataError: a pair names an image that is not there or can not be used.
    """
    missing = pair_rows(pairs, faces.keys)[2]
    if missing:
        reasons = {image_key(path): reason for path, reason in faces.skipped}
        raise DataError(
            f"{file}: {len(missing)} images that the pairs name are not there or can not be used (first: {missing[0]},"
            f" {reasons.get(missing[0], 'no such file')}); add or mend them, or leave their pairs out"
        )


def _is_bin(file: str) -> bool:
    return file.lower().endswith(SUFFIX)
