"""Which faces train, choose the checkpoint and are reported: three disjoint sets of identities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from facenet.data.drawn.faces import draw
from facenet.data.options import DataOptions, PairColumns
from facenet.data.pair_files import Validation, named_faces, protocol_file, read_validation
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import read_pairs, read_people
from facenet.data.records import Records
from facenet.data.sources.folder import same_name
from facenet.data.sources.kinds import Listed, scan_usable
from facenet.errors import ConfigError, DataError
from facenet.files import default_cache
from facenet.types import Pairs, Progress

Readable = Callable[[Records], Records]


class Splits(NamedTuple):
    """Faces to train on, faces of other people for checkpoints and thresholds, and the faces and pairs reported."""

    train: Records
    held_out: Records
    evaluation: Records
    pairs: Pairs | None  # None: nothing to report on
    validation: Validation | None = None  # `held_out` are its faces; None: pairs are drawn of them


def split_faces(
    options: DataOptions,
    *,
    progress: Progress | None = None,
    readable: Readable | None = None,
    listed: Listed | None = None,
) -> Splits:
    """Read a data set and divide its identities.

    Files that can not be used are left out: what the scan lists, images without identity, and files that are there
    twice, see :mod:`facenet.data.sources.duplicates`. Images that `options.pairs` names are reported as they are. With
    `options.fold`, from 1, that fold of `people` and `pairs` is reported (LFW View 2); the people of the other folds
    train and choose. With `options.validation` the pairs of a file choose, and whom they name neither trains nor is
    reported. Who is held out or reported does not depend on `train_share`.

    Args:
        options: Kind and place of the data set, and how it is divided.
        progress: Called with (done, total) while faces are drawn, or people's folders listed.
        readable: Returns the faces that can be decoded, of those to report on; pairs are drawn among these. It is not
            asked about a `fold`, whose faces nobody opens before the end.
        listed: Called with what is left out, before anything is raised for it.

    Raises:
        ConfigError: no root, a fold out of range, or files for drawn faces.
        DataError: missing or unusable files, too many of them, or people shared between training and reported pairs.
    """
    if options.fold is not None and (options.kind == "synthetic" or not options.people or not options.pairs):
        raise ConfigError(
            f"fold={options.fold}: a fold is one of data.people and data.pairs, of which data={options.kind} has not"
            " both; use experiment=lfw_view2, or leave fold out"
        )
    if options.kind == "synthetic" and (given := options.root or options.people or options.pairs):
        raise ConfigError(f"data: {given} is not read, since data=synthetic draws its faces and pairs; add data=folder")
    validation = read_validation(options, progress=progress)
    if options.kind == "synthetic":
        drawn = _draw(options, progress)
        return drawn if validation is None else drawn._replace(held_out=validation.faces, validation=validation)
    if reports_everybody(options):
        raise ConfigError("data.evaluation=1: everybody is reported and nobody is left to train on; lower it")
    most = options.max_bad_share
    records, labelled = scan_usable(options.kind, options.root, max_bad_share=most, listed=listed, progress=progress)
    if validation is not None and validation.people:
        labelled = labelled.of_people(set(labelled.names) - validation.people)
    divided: tuple[Records, Records, Pairs | None]
    if options.people and options.pairs and options.fold is not None:
        divided = _leave_out(records, labelled, options.people, options.pairs, options.fold, options.pair_columns)
    else:
        divided = _train_and_reported(records, labelled, options, readable or (lambda faces: faces))
    training, reported, pairs = divided
    if listed is not None:
        listed(reported.skipped)
    _refuse_shared(reported, training.names, f"{options.pairs}", "in the training list")
    if validation is None:
        kept, held_out = _divide(training, options.held_out, options.seed + 1, options.most_apart)
    else:
        _refuse_shared(reported, validation.people, f"{options.validation}", "named by it")
        kept, held_out = training, validation.faces
    if len(kept.names) < 2 or (validation is None and len(held_out.names) < 2):
        raise DataError(
            f"{records.root}: {len(labelled.names)} people are too few to train on, to choose checkpoints by and to"
            " report on; give a folder for each of at least 12 people, with several images each"
        )
    train = share_of_people(kept, options.train_share, options.seed)
    return Splits(train, held_out, reported, pairs, validation)


def _refuse_shared(reported: Records, others: Iterable[str], file: str, where: str) -> None:
    """Raise DataError if people of the reported faces are among others, which `file` tells of."""
    apart = set(reported.names)
    shared = sorted(name for name in others if name in apart)
    if shared:
        raise DataError(
            f"{file}: {len(shared)} people of the reported pairs are {where} ({', '.join(shared[:3])}, ...)"
        )


def reports_everybody(options: DataOptions) -> bool:
    """Whether all people of a data set are reported, since `evaluation` is 1."""
    return options.evaluation == 1 and options.kind != "synthetic" and not options.people and not options.pairs


def share_of_people(records: Records, share: float, seed: int = 0) -> Records:
    """Keep whole identities, in an order drawn from the seed, until they hold `share`, in (0, 1], of the N images.

    The paper's Table 6 counts training images; leaving out whole people keeps the number of faces of each as it was.
    The people of a smaller share are among those of a larger one. A share of 1 returns the records as they are.
    """
    if share == 1:
        return records
    order = np.random.default_rng([seed, 11]).permutation(len(records.names))
    held = np.cumsum(records.counts[order])
    kept = np.zeros(len(order), bool)
    kept[order[: int(np.searchsorted(held, share * len(records) - 1e-6)) + 1]] = True
    return records.of_labels(kept)


def listed_people(records: Records, file: str) -> Records:
    """Return the faces of the people in a file; raises DataError if there are none, or as :func:`read_people`."""
    listed = read_people(protocol_file(file, records, "data.people"))
    names = {same_name(name) for fold in listed for name in fold}
    found = records.of_people(names)
    if not len(found):
        raise DataError(f"{file}: none of its {len(names)} people has an image under {records.root}")
    return found


def _divide(records: Records, share: float, seed: int, most: int) -> tuple[Records, Records]:
    """Take `share` of the identities away, the same share of those with one image and of those with more.

    Of people with several images at least four go (pairs need four), as long as that leaves half of them. No more go
    than `most` of each kind. Returns the faces that stay and those of the people who go.
    """
    counts, rng = records.counts, np.random.default_rng([seed, 7])
    taken = np.zeros(len(counts), bool)
    for group, least in ((np.flatnonzero(counts > 1), 4), (np.flatnonzero(counts == 1), 0)):
        size = max(round(len(group) * share), min(least, len(group) // 2)) if share else 0
        taken[rng.permutation(group)[: min(size, most)]] = True
    return records.of_labels(~taken), records.of_labels(taken)


def _train_and_reported(
    records: Records, labelled: Records, options: DataOptions, readable: Readable
) -> tuple[Records, Records, Pairs | None]:
    """Return the training faces, the faces the reported numbers are about, and their pairs."""
    reported, pairs = None, None
    if options.pairs:
        pairs = read_pairs(
            protocol_file(options.pairs, records, "data.pairs"), options.pair_columns, named="data.pair_columns"
        )
        reported = readable(named_faces(records, pairs))
    if options.people:
        training = listed_people(labelled, options.people)
        rest = labelled.of_people(set(labelled.names) - set(training.names))
    elif reported is not None:
        return labelled.of_people(set(labelled.names) - set(reported.names)), reported, pairs
    else:
        training, rest = _divide(labelled, options.evaluation, options.seed, options.most_apart)
    if reported is None:
        reported = readable(rest)
        pairs = held_out_pairs(reported, options.seed + 2) if len(rest) else None
    return training, reported, pairs


def _leave_out(
    records: Records, labelled: Records, people: str, pairs: str, fold: int, columns: PairColumns
) -> tuple[Records, Records, Pairs]:
    """Return the faces of the people of every fold but number `fold` (from 1), and that fold's faces and pairs."""
    lists = read_people(protocol_file(people, records, "data.people"))
    every = read_pairs(protocol_file(pairs, records, "data.pairs"), columns)
    if len(lists) < 2 or set(every.fold.tolist()) != set(range(len(lists))):
        raise DataError(
            f"fold={fold}: {people} has {len(lists)} folds of people, {pairs} {len(set(every.fold.tolist()))} of pairs;"
            " give two files of the same folds, as LFW's people.txt and pairs.txt are"
        )
    if not 1 <= fold <= len(lists):
        raise ConfigError(f"fold: expected a number from 1 to {len(lists)} (the folds of {people}), got {fold}")
    lists = [[same_name(name) for name in names] for names in lists]
    held = set(lists[fold - 1])
    others = {name for number, names in enumerate(lists, 1) if number != fold for name in names}
    own = every.subset(np.flatnonzero(every.fold == fold - 1))
    reported = named_faces(records, own)
    wrong = sorted((held & others) | (set(reported.names) - held))
    if wrong:
        raise DataError(
            f"{people}: fold {fold} must hold the people of its pairs, and no other fold them; {len(wrong)} are"
            f" amiss ({', '.join(wrong[:3])}); use the protocol's own files"
        )
    return labelled.of_people(others), reported, own


def _draw(options: DataOptions, progress: Progress | None) -> Splits:
    """Draw the three sets: consecutive ranges of people, so that nobody is in two of them."""
    drawn, first = options.synthetic, 0
    sets = []
    for count, images in (
        (drawn.train_identities, drawn.train_images),
        (drawn.held_out_identities, drawn.held_out_images),
        (drawn.evaluation_identities, drawn.evaluation_images),
    ):
        people, cache_dir = range(first, first + count), options.cache_dir or default_cache()
        faces = draw(people, images, drawn, seed=options.seed, cache_dir=cache_dir, progress=progress)
        sets.append(Records.of(tuple(faces.paths), tuple(faces.identities.tolist()), "", faces.images))
        first += count
    train, held_out, evaluation = sets
    pairs = held_out_pairs(evaluation, options.seed)
    return Splits(share_of_people(train, options.train_share, options.seed), held_out, evaluation, pairs)
