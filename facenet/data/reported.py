"""The faces and pairs that numbers are reported on, found without regard to what was trained on."""

from __future__ import annotations

from facenet.data.options import DataOptions
from facenet.data.pair_files import faces_of_file
from facenet.data.pair_folds import held_out_pairs
from facenet.data.records import Records
from facenet.data.sources.kinds import scan_usable
from facenet.data.splits import Readable, reports_everybody, split_faces
from facenet.errors import DataError
from facenet.types import Pairs


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
