"""Tracks: the frames of a face followed through a video, several tracks of a person, as one table.

Letters: M tracks, N frames of all tracks together. The embeddings of a track's frames are folded into one template by
:class:`facenet.models.track_pool.TrackPool`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from facenet.data.options import TrackDataOptions
from facenet.data.records import Records, Skipped
from facenet.data.sources.folder import scan_folder
from facenet.errors import DataError
from facenet.files import read_csv
from facenet.types import Pairs

PARTS = ("train", "held_out", "evaluation")


@dataclass(frozen=True)
class Tracks:
    """M tracks; the frames of track m are the rows ``starts[m]`` to ``starts[m] + lengths[m] - 1`` of `frames`."""

    frames: Records  # N frames, those of a track together and in their order
    keys: tuple[str, ...]  # M names, "<identity>/<track>"
    identities: tuple[str, ...]  # M
    lengths: np.ndarray  # (M,) int64, at least 1
    kinds: tuple[str, ...] = ()  # M kinds of drawn tracks ("good", "bad"); () where nobody knows
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        """Return M."""
        return len(self.keys)

    @property
    def starts(self) -> np.ndarray:
        """First frame of each track: (M,) int64."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def labels(self) -> np.ndarray:
        """Identity numbers (M,) int64, in the order of the sorted names."""
        return np.unique(np.asarray(self.identities, str), return_inverse=True)[1].astype(np.int64)

    @property
    def names(self) -> list[str]:
        """Sorted distinct identities."""
        return sorted(set(self.identities))

    def subset(self, rows: Sequence[int]) -> Tracks:
        """Return the given tracks, in that order."""
        starts = self.starts
        spans = [np.arange(starts[row], starts[row] + self.lengths[row]) for row in rows]
        frames = self.frames.subset(np.concatenate([np.zeros(0, np.int64), *spans]))
        kinds = tuple(self.kinds[row] for row in rows) if self.kinds else ()
        keys, identities = (tuple(column[row] for row in rows) for column in (self.keys, self.identities))
        return Tracks(frames, keys, identities, self.lengths[list(rows)], kinds, self.skipped)

    def of_people(self, people: Iterable[str]) -> Tracks:
        """Return the tracks of the given identities."""
        wanted = set(people)
        return self.subset([row for row, name in enumerate(self.identities) if name in wanted])

    def first(self, count: int) -> Tracks:
        """Return the first `count` frames (at least 1) of each track; shorter tracks are whole."""
        lengths = np.minimum(self.lengths, count)
        kept = np.concatenate([np.arange(start, start + n) for start, n in zip(self.starts, lengths, strict=True)])
        return replace(self, frames=self.frames.subset(kept), lengths=lengths)


class TrackSplits(NamedTuple):
    """Tracks to train on, tracks of other people to choose by, and tracks of yet others to report on."""

    train: Tracks
    held_out: Tracks
    evaluation: Tracks


def group_tracks(frames: Records, kinds: dict[str, str] | None = None) -> Tracks:
    """Join frames named ``<identity>/<track>/<frame>`` into tracks, numbers inside names in numerical order.

    A file at any other depth joins `skipped`. `kinds` gives the kind of a track by its key.

    Raises:
        DataError: no frame lies at this depth.
    """
    paths = [PurePosixPath(path) for path in frames.paths]
    wrong = "expected <identity>/<track>/<frame>"
    skipped = [Skipped(str(path), wrong) for path in paths if len(path.parts) != 3]
    rows = [row for row, path in enumerate(paths) if len(path.parts) == 3]
    if not rows:
        raise DataError(f"{frames.root or 'tracks'}: no track in it; {wrong}, the frames of a clip in one folder")
    rows.sort(key=lambda row: (paths[row].parts[:2], _natural(paths[row].name)))
    keys = [str(paths[row].parent) for row in rows]
    first = [at for at, key in enumerate(keys) if at == 0 or keys[at - 1] != key]
    names = tuple(keys[at] for at in first)
    lengths = np.diff([*first, len(rows)]).astype(np.int64)
    identities = tuple(paths[rows[at]].parts[0] for at in first)
    listed = tuple(kinds.get(key, "") for key in names) if kinds else ()
    return Tracks(frames.subset(rows), names, identities, lengths, listed, (*frames.skipped, *skipped))


def scan_tracks(root: str | Path) -> Tracks:
    """List ``root/<identity>/<track>/<frame image>``, frames in the order of their names (``f2`` before ``f10``).

    Track folders without a usable frame, empty files and files at another depth are listed in `skipped`.

    Raises:
        DataError: no such folder, not readable, or no track in it.
    """
    try:
        tracks = group_tracks(scan_folder(root))
        folders = sorted(path for path in Path(root).glob("*/*") if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: not readable ({error.strerror}); give a folder you may read") from error
    found = [folder.relative_to(root).as_posix() for folder in folders]
    known = set(tracks.keys)
    empty = tuple(Skipped(key, "no usable frame in this track") for key in found if key not in known)
    return replace(tracks, skipped=(*tracks.skipped, *empty))


def split_tracks(tracks: Tracks, options: TrackDataOptions = TrackDataOptions()) -> TrackSplits:  # noqa: B008
    """Divide the people into those to train on, to choose by and to report on.

    `options.evaluation` is the share of all people that are reported, `options.held_out` the share of the rest that
    choose. A table `options.splits` replaces both shares. Its columns are ``identity`` and ``split`` (train, held_out
    or evaluation). People that the table does not name are left out.

    Raises:
        DataError: too few people with two tracks in a part, or an unusable table.
    """
    names = tracks.names
    if len(names) < 2:
        raise DataError(f"{tracks.frames.root or 'tracks'}: one identity only ({names[0]}); give tracks of 12 or more")
    people = _read_splits(options.splits) if options.splits else _divide(names, options)
    parts = [tracks.of_people(people[part]) for part in PARTS]
    for part, name in zip(parts, PARTS, strict=True):
        several = sum(count > 1 for count in Counter(part.identities).values())
        if several < 2 or (name != "train" and len(part.names) < 4):
            raise DataError(
                f"{tracks.frames.root or 'tracks'}: {len(part.names)} people for {name}, {several} of them with two"
                " tracks, are too few; give at least 12 people with two tracks each, or other shares"
            )
    return TrackSplits(*parts)


def reported_tracks(
    tracks: Tracks,
    options: TrackDataOptions = TrackDataOptions(),  # noqa: B008
    *,
    pairs: Pairs | None = None,
) -> Tracks:
    """Return the tracks to report on if nothing is trained.

    They are those that `pairs` name by their keys. Without pairs, they are those of the people that the table
    `options.splits` puts under evaluation. Without both, they are those that training with these options reports.

    Raises:
        DataError: a track that is named is not there, nobody is under evaluation, or the table is unusable.
    """
    if pairs is not None:
        wanted = dict.fromkeys([*pairs.first, *pairs.second])
        known = set(tracks.keys)
        missing = [key for key in wanted if key not in known]
        if missing:
            raise DataError(
                f"pairs: {len(missing)} of {len(wanted)} tracks are not under {tracks.frames.root or 'the tracks'} or"
                f" have no usable frame (first: {missing[0]}); expected keys <identity>/<track>"
            )
        return tracks.subset([row for row, key in enumerate(tracks.keys) if key in wanted])
    if options.splits is None:
        return split_tracks(tracks, options).evaluation
    reported = tracks.of_people(_read_splits(options.splits)["evaluation"])
    if not len(reported):
        raise DataError(
            f"{options.splits}: nobody under evaluation has a track under {tracks.frames.root or 'the tracks'}"
        )
    return reported


def pad(lengths: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay the frames' vectors (N, D) of M tracks out as (M, L, D), zeros at the end, with their mask (M, L) bool."""
    mask = np.arange(int(lengths.max(initial=0))) < np.asarray(lengths)[:, None]  # (M, L)
    padded = np.zeros((*mask.shape, vectors.shape[1]), vectors.dtype)
    padded[mask] = vectors
    return padded, mask


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _divide(names: Sequence[str], options: TrackDataOptions) -> dict[str, set[str]]:
    order = np.random.default_rng([options.seed, 11]).permutation(len(names))
    shuffled = [names[row] for row in order]
    reported = max(4, round(len(names) * options.evaluation))
    chosen = reported + max(4, round((len(names) - reported) * options.held_out))
    return dict(zip(PARTS, map(set, (shuffled[chosen:], shuffled[reported:chosen], shuffled[:reported])), strict=True))


def _read_splits(file: str) -> dict[str, set[str]]:
    people: dict[str, set[str]] = {part: set() for part in PARTS}
    for row in read_csv(file, ("identity", "split"), remedy="give a CSV file with the columns identity, split"):
        identity, part = row["identity"].strip(), row["split"].strip()
        if part not in people:
            raise DataError(f"{file}: {identity}: unknown split {part!r}; expected {', '.join(PARTS)}")
        if any(identity in others for name, others in people.items() if name != part):
            raise DataError(f"{file}: {identity} is in two splits; the people of the splits must not meet")
        people[part].add(identity)
    return people
