"""Which faces train, choose the checkpoint and are reported: three disjoint sets of identities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pairs import make_pairs_in_folds, read_pairs, read_people
from facenet.data.records import Records, scan_csv, scan_lfw
from facenet.data.synthetic import default_cache, load_or_draw
from facenet.errors import ConfigError, DataError, choose
from facenet.types import Pairs

Progress = Callable[[int, int], None]


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
    synthetic: dict[str, Any] | None = None,
    cache_dir: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Splits:
    """Read a data set and divide its identities.

    Args:
        kind: A key of `KINDS`: "synthetic" (drawn, no files), "folder" (``<identity>/<image>``), "csv" (a table of
            path and identity) or "lfw" (an LFW tree with ``images`` and ``protocol``).
        root: Folder or table; not used by "synthetic".
        people: File of the training people (an LFW people list); without one all are divided by share.
        pairs: File of the reported pairs; without one pairs are drawn among `evaluation` of the identities.
        held_out: Share of the training people kept for checkpoints and thresholds.
        evaluation: Share of all people kept for reporting when there is no `people` file.
        synthetic: Options of the drawn faces.
        cache_dir: Where drawn faces are kept.
        seed: Seed of the division.
        progress: Called with (done, total) while faces are drawn.

    Raises:
        ConfigError: an unknown kind, no root, a share out of range.
        DataError: missing or unusable files, or people shared between training and reported pairs.
    """
    choose(KINDS, kind, "data.kind")
    if not 0 < held_out < 1 or not 0 <= evaluation < 1:
        raise ConfigError(f"data: held_out {held_out} must lie in (0, 1), evaluation {evaluation} in [0, 1)")
    if kind == "synthetic":
        return _synthetic(dict(synthetic or {}), cache_dir, seed, progress)
    records = KINDS[kind](_root(root, kind))
    labelled = records.subset([i for i, name in enumerate(records.identities) if name])
    training, reported, reported_pairs = _train_and_reported(records, labelled, people, pairs, evaluation, seed)
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
    return Splits(kept, training.of_people(held), reported, reported_pairs)


def split_options(data: dict[str, Any]) -> dict[str, Any]:
    """Return what this room takes of a ``data`` configuration: all but ``crop``, which belongs to the preprocessing."""
    return {key: value for key, value in data.items() if key != "crop"}


def reported_faces(
    *, kind: str, root: str | None = None, pairs: str | None = None, seed: int = 0, **options: Any
) -> tuple[Records, Pairs]:
    """Return the faces and pairs to report on, without regard to what was trained on.

    With a `pairs` file: every image it names, from anywhere under `root`. Otherwise the pairs that a training run with
    the same options would report. Raises DataError as :func:`split_faces` does.
    """
    choose(KINDS, kind, "data.kind")
    if pairs and kind != "synthetic":
        records = KINDS[kind](_root(root, kind))
        return _named_by(records, read_pairs(_file(pairs, records, "pairs")))
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


def held_out_pairs(held_out: Records, seed: int = 0) -> Pairs:
    """Draw balanced pairs in ten folds (fewer when people are few) among the held-out faces."""
    remedy = "more people with several images, or a larger share"
    return make_pairs_in_folds(held_out.keys, held_out.identities, of="pairs", remedy=remedy, seed=seed)


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
    records: Records, labelled: Records, people: str | None, pairs: str | None, evaluation: float, seed: int
) -> tuple[Records, Records, Pairs | None]:
    """Return the training faces, the faces the reported numbers are about, and their pairs."""
    reported, reported_pairs = None, None
    if pairs:
        reported, reported_pairs = _named_by(records, read_pairs(_file(pairs, records, "data.pairs")))
    if people:
        names = {name for fold in read_people(_file(people, records, "data.people")) for name in fold}
        training = labelled.of_people(names)
        if not len(training):
            raise DataError(f"{people}: none of its {len(names)} people has an image under {records.root}")
        rest = set(labelled.names) - names
    elif reported is not None:
        training, rest = labelled.of_people(set(labelled.names) - set(reported.names)), set()
    else:
        training, rest = _divide(labelled, evaluation, seed)
    if reported is None:
        reported = labelled.of_people(rest)
        reported_pairs = held_out_pairs(reported, seed + 2) if rest else None
    return training, reported, reported_pairs


def _named_by(records: Records, pairs: Pairs) -> tuple[Records, Pairs]:
    wanted = set(pairs.first) | set(pairs.second)
    return records.subset([i for i, key in enumerate(records.keys) if key in wanted]), pairs


def _synthetic(options: dict[str, Any], cache_dir: str | None, seed: int, progress: Progress | None) -> Splits:
    """Draw the three sets: consecutive ranges of people, so that nobody is in two of them."""
    cache_dir = cache_dir or str(default_cache())
    first, parts = 0, []
    for part in ("train", "held_out", "evaluation"):
        count, (least, most) = options[f"{part}_identities"], options[f"{part}_images"]
        faces = load_or_draw(
            cache_dir,
            identities=count,
            images_per_identity=(least, most),
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


def _root(root: str | None, kind: str) -> str:
    if not root:
        raise ConfigError(f"data.root: not set; data={kind} needs data.root=DIR (or FACENET_LFW in the environment)")
    return root


def _file(name: str, records: Records, option: str) -> Path:
    """Find a protocol file: as given, under ``<root>/protocol``, or beside the images."""
    base = Path(records.root)
    places = [Path(name), base / name, base / "protocol" / name, base.parent / "protocol" / name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{option}={name}: no such file, nor under {places[2].parent} or {places[3].parent}")


KINDS: dict[str, Callable[[str], Records]] = {
    "synthetic": scan_lfw,
    "folder": scan_lfw,
    "csv": scan_csv,
    "lfw": scan_lfw,
}
