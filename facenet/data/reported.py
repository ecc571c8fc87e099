"""The faces and pairs that numbers are reported on, found without regard to what was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from facenet.data.options import DataOptions, PairColumns
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import pair_rows, read_pairs
from facenet.data.records import Records
from facenet.data.sources.bin_pairs import SUFFIX, TABLE, Source, source_of, unpacked
from facenet.data.sources.kinds import scan_kind, scan_usable
from facenet.data.splits import Readable, Splits, named_faces, protocol_file, reports_everybody, split_faces
from facenet.errors import ConfigError, DataError
from facenet.types import Pairs, Progress, image_key


def unpack_pairs(options: DataOptions, *, progress: Progress | None = None) -> DataOptions:
    """Return options that name the folder of a ``.bin`` set if `pairs` is such a file, else the options as they are.

    The set is unpacked below the cache folder at the first call. `progress` is called with (done, total) images.

    Raises:
        ConfigError: a root beside a ``.bin`` set, which brings its own images.
        DataError: as :func:`~facenet.data.sources.bin_pairs.convert_bin`.
    """
    if not options.pairs or not options.pairs.lower().endswith(SUFFIX):
        return options
    if options.root:
        raise ConfigError(f"pairs={options.pairs}: a .bin set brings its own images; leave data.root out")
    folder = unpacked(options.pairs, options.cache_dir, progress=progress)
    return replace(options, kind="folder", root=str(folder), pairs=str(folder / TABLE), fold=None)


def source_of_pairs(options: DataOptions) -> Source | None:
    """Return which ``.bin`` file the reported pairs and the images under the root were made of; None for others.

    Raises:
        DataError: they are not those that were unpacked.
    """
    if not options.pairs or not options.root or Path(options.root).resolve() != Path(options.pairs).resolve().parent:
        return None
    return source_of(options.pairs)


def reported_faces(options: DataOptions, *, readable: Readable | None = None) -> tuple[Records, Pairs]:
    """Return the faces and pairs to report on, without regard to what was trained on.

    With a file of pairs: every image it names, from anywhere under the root. Otherwise, and with a fold, the pairs that
    a training run with the same options would report, or pairs of everybody if `evaluation` is 1. `readable` is that of
    :func:`split_faces`.

    Raises:
        ConfigError, DataError: as :func:`split_faces`; or no pairs are given and no people are kept for them.
    """
    if options.pairs and options.fold is None and options.kind != "synthetic":
        return faces_of_file(options.kind, options.root, options.pairs, options.pair_columns)
    if reports_everybody(options):
        people = scan_usable(options.kind, options.root, max_bad_share=options.max_bad_share)[1]
        faces = readable(people) if readable else people
        return faces, held_out_pairs(faces, options.seed + 2)
    splits = split_faces(options, readable=readable)
    if splits.pairs is None:
        raise DataError("pairs: none given and data.evaluation keeps no people to draw them from; pass pairs=FILE")
    return splits.evaluation, splits.pairs


def faces_of_file(
    kind: str, root: str | None, file: str, columns: PairColumns, *, named: str = "data.pair_columns"
) -> tuple[Records, Pairs]:
    """Return the faces under a root that a file of pairs names, and the pairs.

    `kind` is that of :func:`scan_kind`; `columns` and `named` are those of :func:`read_pairs`.

    Raises:
        ConfigError, DataError: as these.
    """
    records = scan_kind(kind, root)
    pairs = read_pairs(protocol_file(file, records, "pairs"), columns, named=named)
    return named_faces(records, pairs), pairs


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


def other_faces(options: DataOptions, *, needed: bool, readable: Readable | None = None) -> Records | None:
    """Return the training faces of :func:`split_faces`; unless `needed`, None if too few people are left."""
    if reports_everybody(options) and not needed:
        return None
    try:
        return split_faces(options, readable=readable).train
    except DataError:
        if needed:
            raise
        return None


def check_pairs(splits: Splits, file: str | None) -> None:
    """Refuse, before training, reported pairs that could not be scored after it.

    Raises:
        DataError: a pair names an image that is not there or can not be used.
    """
    if splits.pairs is None:
        return
    missing = pair_rows(splits.pairs, splits.evaluation.keys)[2]
    if missing:
        reasons = {image_key(path): reason for path, reason in splits.evaluation.skipped}
        raise DataError(
            f"{file}: {len(missing)} images that the pairs name are not there or can not be used (first: {missing[0]},"
            f" {reasons.get(missing[0], 'no such file')}); add or mend them, or leave their pairs out"
        )
