"""Which faces train, choose the checkpoint and are reported: three disjoint sets of identities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.drawn.faces import default_cache, load_or_draw
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import pair_rows, read_pairs, read_people
from facenet.data.records import Records
from facenet.data.sources.folder import same_name
from facenet.data.sources.kinds import SOURCES, Listed, scan_kind, scan_usable
from facenet.errors import ConfigError, DataError, choose
from facenet.types import Pairs, Progress, image_key

MAX_BAD_SHARE = 0.2  # of the files; conf/data/*.yaml say the same


class Splits(NamedTuple):
    """Faces to train on, faces of other people for checkpoints and thresholds, and the faces and pairs reported."""

    train: Records
    held_out: Records
    evaluation: Records
    pairs: Pairs | None  # None: nothing to report on


def split_faces(
    *,
    kind: str,
    root: str | None = None,
    people: str | None = None,
    pairs: str | None = None,
    held_out: float = 0.1,
    evaluation: float = 0.1,
    fold: int | None = None,
    train_share: float = 1.0,
    synthetic: dict[str, Any] | None = None,
    cache_dir: str | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    seed: int = 0,
    progress: Progress | None = None,
    readable: Callable[[Records], Records] | None = None,
    listed: Listed | None = None,
) -> Splits:
    """Read a data set and divide its identities.

    Files that can not be used are left out: what the scan lists, images without identity, and files that are there
    twice, see :mod:`facenet.data.sources.duplicates`. Images that `pairs` names are reported as they are.

    Args:
        kind: "synthetic" (drawn, no files), or a key of `SOURCES`: "folder" (``<identity>/<image>``), "csv" (a table of
            path and identity) or "lfw" (an LFW tree with ``images`` and ``protocol``).
        root: Folder or table; not used by "synthetic".
        people: File of the training people (an LFW people list); without one all are divided by share.
        pairs: File of the reported pairs; without one pairs are drawn among `evaluation` of the identities.
        held_out: Share of the training people kept for checkpoints and thresholds.
        evaluation: Share of all people kept for reporting when there is no `people` file.
        fold: A fold of `people` and `pairs`, from 1 (LFW View 2): its pairs alone are reported, the people of the
            other folds alone train and choose.
        train_share: Share of the training images kept, in (0, 1], see :func:`share_of_people`; who is held out or
            reported does not depend on it.
        synthetic: Options of the drawn faces.
        cache_dir: Where drawn faces are kept.
        max_bad_share: Largest share of the files that may be left out, in [0, 1].
        seed: Seed of the division.
        progress: Called with (done, total) while faces are drawn.
        readable: Returns the faces that can be decoded, of those to report on; before pairs are drawn among them. It is
            not asked about a `fold`, whose faces nobody opens before the end.
        listed: Called with what is left out, before anything is raised for it.

    Raises:
        ConfigError: an unknown kind, no root, a share or a fold out of range.
        DataError: missing or unusable files, too many of them, or people shared between training and reported pairs.
    """
    choose({"synthetic": None, **SOURCES}, kind, "data.kind")
    if not 0 < held_out < 1 or not 0 <= evaluation < 1:
        raise ConfigError(f"data: held_out {held_out} must lie in (0, 1), evaluation {evaluation} in [0, 1)")
    if fold is not None and (kind == "synthetic" or not people or not pairs):
        raise ConfigError(
            f"fold={fold}: a fold is one of data.people and data.pairs, of which data={kind} has not both;"
            " use experiment=lfw_view2, or leave fold out"
        )
    if kind == "synthetic":
        splits = _synthetic(dict(synthetic or {}), cache_dir, seed, progress)
        return splits._replace(train=share_of_people(splits.train, train_share, seed))
    records, labelled = scan_usable(kind, root, max_bad_share=max_bad_share, listed=listed)
    readable = readable or (lambda faces: faces)
    reported_pairs: Pairs | None
    if people and pairs and fold is not None:
        training, reported, reported_pairs = _leave_out(records, labelled, people, pairs, fold)
    else:
        options = (people, pairs, evaluation, seed, readable)
        training, reported, reported_pairs = _train_and_reported(records, labelled, *options)
    if listed is not None:
        listed(reported.skipped)
    shared = set(training.names) & set(reported.names)
    if shared:
        some = ", ".join(sorted(shared)[:3])
        raise DataError(f"{pairs}: {len(shared)} people of the reported pairs are in the training list ({some}, ...)")
    kept, held = _divide(training, held_out, seed + 1)
    if len(held) < 2 or len(kept.names) < 2:
        raise DataError(
            f"{records.root}: {len(labelled.names)} people are too few to train on, to choose checkpoints by and to"
            " report on; give a folder for each of at least 12 people, with several images each"
        )
    return Splits(share_of_people(kept, train_share, seed), training.of_people(held), reported, reported_pairs)


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


def share_of_people(records: Records, share: float, seed: int = 0) -> Records:
    """Keep whole identities, in an order drawn from the seed, until they hold `share` of the N images.

    The paper's Table 6 counts training images; leaving out whole people keeps the number of faces of each as it was.
    The people of a smaller share are among those of a larger one. A share of 1 returns the records as they are.

    Raises:
        ConfigError: `share` outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"data.train_share: expected a share of the training images in (0, 1], got {share}")
    if share == 1:
        return records
    names, counts = np.unique(np.asarray(records.identities, str), return_counts=True)
    order = np.random.default_rng([seed, 11]).permutation(len(names))
    held = np.cumsum(counts[order])
    return records.of_people(names[order[: int(np.searchsorted(held, share * len(records) - 1e-6)) + 1]].tolist())


def split_options(data: dict[str, Any]) -> dict[str, Any]:
    """Return what this room takes of a ``data`` configuration: all but what belongs to the preprocessing."""
    return {key: value for key, value in data.items() if key not in ("crop", "align")}


def reported_faces(
    *,
    kind: str,
    root: str | None = None,
    pairs: str | None = None,
    fold: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Records, Pairs]:
    """Return the faces and pairs to report on, without regard to what was trained on.

    With a `pairs` file: every image it names, from anywhere under `root`. Otherwise, and with a `fold`, the pairs that
    a training run with the same options would report. Raises DataError as :func:`split_faces` does.
    """
    if fold is not None:
        splits = split_faces(kind=kind, root=root, pairs=pairs, fold=fold, seed=seed, **options)
    elif pairs and kind != "synthetic":
        records = scan_kind(kind, root)
        return _named_by(records, read_pairs(_file(pairs, records, "pairs")))
    else:
        splits = split_faces(kind=kind, root=root, pairs=None, seed=seed, **options)
    if splits.pairs is None:
        raise DataError("pairs: none given and data.evaluation keeps no people to draw them from; pass pairs=FILE")
    return splits.evaluation, splits.pairs


def other_faces(*, needed: bool, **options: Any) -> Records | None:
    """Return the training faces of :func:`split_faces`; unless `needed`, None where too few people are left."""
    try:
        return split_faces(**options).train
    except DataError:
        if needed:
            raise
        return None


def _divide(records: Records, share: float, seed: int) -> tuple[Records, set[str]]:
    """Take `share` of the identities away, the same share of those with one image and of those with more.

    Of people with several images at least four go (pairs need four), as long as that leaves half of them.
    """
    names, counts = np.unique(np.asarray(records.identities, str), return_counts=True)
    rng = np.random.default_rng([seed, 7])
    taken: set[str] = set()
    for group, least in ((names[counts > 1], 4), (names[counts == 1], 0)):
        size = max(round(len(group) * share), min(least, len(group) // 2)) if share else 0
        taken.update(rng.permutation(group)[:size].tolist())
    return records.of_people(set(names.tolist()) - taken), taken


def _train_and_reported(
    records: Records,
    labelled: Records,
    people: str | None,
    pairs: str | None,
    evaluation: float,
    seed: int,
    readable: Callable[[Records], Records],
) -> tuple[Records, Records, Pairs | None]:
    """Return the training faces, the faces the reported numbers are about, and their pairs."""
    reported, reported_pairs = None, None
    if pairs:
        named, reported_pairs = _named_by(records, read_pairs(_file(pairs, records, "data.pairs")))
        reported = readable(named)
    if people:
        names = {same_name(name) for fold in read_people(_file(people, records, "data.people")) for name in fold}
        training = labelled.of_people(names)
        if not len(training):
            raise DataError(f"{people}: none of its {len(names)} people has an image under {records.root}")
        rest = set(labelled.names) - names
    elif reported is not None:
        training, rest = labelled.of_people(set(labelled.names) - set(reported.names)), set()
    else:
        training, rest = _divide(labelled, evaluation, seed)
    if reported is None:
        reported = readable(labelled.of_people(rest))
        reported_pairs = held_out_pairs(reported, seed + 2) if rest else None
    return training, reported, reported_pairs


def _leave_out(
    records: Records, labelled: Records, people: str, pairs: str, fold: int
) -> tuple[Records, Records, Pairs]:
    """Return the faces of the people of every fold but number `fold` (from 1), and that fold's faces and pairs."""
    lists = read_people(_file(people, records, "data.people"))
    every = read_pairs(_file(pairs, records, "data.pairs"))
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
    reported, reported_pairs = _named_by(records, every.subset(np.flatnonzero(every.fold == fold - 1)))
    wrong = sorted((held & others) | (set(reported.names) - held))
    if wrong:
        raise DataError(
            f"{people}: fold {fold} must hold the people of its pairs, and no other fold them; {len(wrong)} are"
            f" amiss ({', '.join(wrong[:3])}); use the protocol's own files"
        )
    return labelled.of_people(others), reported, reported_pairs


def _named_by(records: Records, pairs: Pairs) -> tuple[Records, Pairs]:
    wanted = set(pairs.first) | set(pairs.second)
    return records.subset([i for i, key in enumerate(records.keys) if key in wanted]), pairs


def _synthetic(options: dict[str, Any], cache_dir: str | None, seed: int, progress: Progress | None) -> Splits:
    """Draw the three sets: consecutive ranges of people, so that nobody is in two of them."""
    cache_dir = cache_dir or str(default_cache())
    first, parts = 0, []
    for part in ("train", "held_out", "evaluation"):
        count, images = options[f"{part}_identities"], options[f"{part}_images"]
        if len(images) != 2:
            raise ConfigError(f"data.synthetic.{part}_images: expected the least and most of a person, got {images}")
        faces = load_or_draw(
            cache_dir,
            identities=count,
            images_per_identity=tuple(images),
            size=options["size"],
            difficulty=options["difficulty"],
            seed=seed,
            first_identity=first,
            progress=progress,
        )
        names = tuple(faces.identities.tolist())
        parts.append(Records(tuple(faces.paths), names, "", faces.images))
        first += count
    train, held_out, evaluation = parts
    return Splits(train, held_out, evaluation, held_out_pairs(evaluation, seed))


def _file(name: str, records: Records, option: str) -> Path:
    """Find a protocol file: as given, under ``<root>/protocol``, or beside the images."""
    base = Path(records.root)
    places = [Path(name), base / name, base / "protocol" / name, base.parent / "protocol" / name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{option}={name}: no such file, nor under {places[2].parent} or {places[3].parent}")
