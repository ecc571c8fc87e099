"""The faces of a run: divided by people and decoded, with a list of files that are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from facenet.console import is_first_rank, progress
from facenet.data.cache import DecodedFaces, decode_faces, readable
from facenet.data.pair_files import check_pairs
from facenet.data.pair_folds import held_out_pairs
from facenet.data.preprocess import Preprocess
from facenet.data.records import NothingUsable, Records, Skipped, write_skipped
from facenet.data.sources.kinds import Listed, check_share
from facenet.data.splits import Splits, split_faces
from facenet.errors import choose
from facenet.evaluation.verification import check_scorable
from facenet.faces.alignment import Alignment
from facenet.faces.options import ALL
from facenet.models.registry import NETS
from facenet.options import to_dict
from facenet.training.old_embeddings import check_old
from facenet.training.options import TrainOptions
from facenet.types import Pairs

MARGIN = 1.25  # side of a stored training image over its crop, since shifts and rotations show what lies outside


class Faces(NamedTuple):
    """Faces to train on, to choose checkpoints by, and to report on."""

    decoded: DecodedFaces
    held_out_pairs: Pairs
    splits: Splits
    list_skipped: Listed  # adds left-out files to skipped.csv in the run folder


def build_preprocess(options: TrainOptions) -> Preprocess:
    """Return the encoder's preprocessing: the net's input size, the data's crop and alignment."""
    height, width = options.model.input_size or choose(NETS, options.model.name, "model.name").input_size
    align, given = options.data.align, options.preprocess
    return Preprocess(
        size=(height, width),
        crop=options.data.crop,
        mean=given.mean,
        std=given.std,
        mirror=given.mirror,
        centre=options.data.centre,
        align=None if align.detector == "none" else Alignment.from_dict(to_dict(align)),
    )


def prepare_faces(options: TrainOptions, out: Path, say: Callable[[str], None] = print) -> Faces:
    """Divide the data set, and decode the held-out faces; with a cache on disk the training faces too.

    ``skipped.csv`` in `out` lists the files that are left out.

    Raises:
        DataError: unusable faces, too many bad files, or a reported pair whose image is missing.
    """
    found: dict[Skipped, None] = {}

    def list_skipped(skipped: Sequence[Skipped]) -> None:
        found.update(dict.fromkeys(skipped))
        if is_first_rank():
            write_skipped(out / "skipped.csv", list(found))

    def read_faces(faces: Records) -> Records:
        check_old(options.harmonic.old, faces, options.model.embedding_dim)
        return readable(faces, _as_aligned(preprocess, faces), progress=report)

    preprocess, data = build_preprocess(options), options.data
    try:
        what = "drawing faces" if data.kind == "synthetic" else "reading faces"
        with progress(what, enabled=is_first_rank(), say=say) as report:
            splits = split_faces(
                data,
                progress=report,
                readable=read_faces,
                listed=list_skipped,
            )
        if splits.pairs is not None:
            check_pairs(splits.evaluation, splits.pairs, data.pairs)
            if not data.fold:
                check_scorable(splits.pairs)
        check_old(options.harmonic.old, splits.train, options.model.embedding_dim)
        with progress("decoding faces", enabled=is_first_rank(), say=say) as report:
            decoded = decode_faces(
                splits.train,
                splits.held_out,
                _as_aligned(preprocess, splits.train),
                options.loader,
                margin=MARGIN if options.augment.enabled else 1.0,
                progress=report,
            )
    except NothingUsable as error:
        list_skipped(error.skipped)
        raise
    list_skipped(decoded.skipped)
    used = len(decoded.train) + len(decoded.held_out) + len(splits.evaluation)
    check_share(list(found), used, data.max_bad_share, splits.train.root)
    if splits.validation is None:
        pairs = held_out_pairs(decoded.held_out, data.seed)
    else:
        pairs = splits.validation.pairs
        check_pairs(decoded.held_out, pairs, data.validation)
    check_scorable(pairs)
    return Faces(decoded, pairs, splits, list_skipped)


def _as_aligned(preprocess: Preprocess, faces: Records) -> Preprocess:
    """Add the alignment of a folder that facenet align wrote to a preprocessing without alignment."""
    if faces.alignment is None or preprocess.align is not None:
        return preprocess
    pick = "prominent" if faces.alignment.pick == ALL else faces.alignment.pick  # of a photo one face is embedded
    return replace(preprocess, align=replace(faces.alignment, pick=pick))
