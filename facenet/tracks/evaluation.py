"""Track-to-track verification: TrackPool's template and baselines without training, on the same pairs.

Letters: M tracks, L frames of the longest, D embedding width, P pairs.
Source of the baseline `all_frame_pairs`: Schroff et al. 2015, section 5.7 (YouTube Faces: mean similarity over all
pairs of frames; the first hundred frames of each video are compared).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from facenet.data.pair_folds import make_pairs_in_folds
from facenet.data.pairs import pair_rows
from facenet.data.records import write_skipped
from facenet.data.tracks import Tracks, group_tracks, pad
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.evaluation.verification import Verification, check_scorable, verify_pairs
from facenet.models.track_pool import TrackPool
from facenet.types import Pairs

SEEN = (1, 2, 4, 8, 16)  # frames


class TrackSet(NamedTuple):
    """The embeddings of the frames of M tracks, padded to one length."""

    frames: Tensor  # (M, L, D) unit rows, zeros after the last frame
    mask: Tensor  # (M, L) bool, True for frames
    tracks: Tracks

    def first(self, count: int) -> TrackSet:
        """Return the first `count` frames of each track; shorter tracks are whole."""
        return TrackSet(self.frames[:, :count], self.mask[:, :count], self.tracks)


def embed_tracks(encoder: Encoder, tracks: Tracks) -> TrackSet:
    """Embed every frame once; unreadable frames join `skipped`, and a track without a readable one is left out.

    Raises:
        DataError: no frame could be read.
    """
    embeddings, kept = embed_records(encoder, tracks.frames)
    read = group_tracks(kept, dict(zip(tracks.keys, tracks.kinds, strict=False)))
    vectors, mask = pad(read.lengths, embeddings.vectors)
    return TrackSet(torch.from_numpy(vectors), torch.from_numpy(mask), read)


def mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the unit mean of the frames, (M, D)."""
    return _unit(_average(frames, mask))


def median(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the unit vector of the coordinate-wise median of the frames, (M, D)."""
    return _unit(frames.masked_fill(~mask[..., None], torch.nan).nanmedian(1).values)


def last(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the last frame, (M, D)."""
    return frames[torch.arange(len(frames)), mask.sum(1) - 1]


def agreement(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the mean weighted by exp(cos(frame, mean)), (M, D): softmax attention without weights."""
    scores = (frames * mean(frames, mask)[:, None]).sum(2)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
    return _unit((frames * weights[..., None]).sum(1))


def _average(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the mean, not normalised: the dot product of two means is the mean similarity over all pairs of frames."""
    return (frames * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "median": median,
    "agreement": agreement,
    "last_frame": last,
    "all_frame_pairs": _average,
}


def track_pairs(tracks: Tracks, seed: int = 0) -> Pairs:
    """Draw balanced pairs of track keys in ten folds (fewer if there are few people), a person in one fold only.

    Raises:
        DataError: fewer than four people, or fewer than two with two tracks.
    """
    remedy = "more people with several tracks"
    return make_pairs_in_folds(tracks.keys, tracks.identities, of="pairs of tracks", remedy=remedy, seed=seed)


def verify_templates(templates: Tensor, tracks: Tracks, pairs: Pairs) -> tuple[Verification, np.ndarray]:
    """Score P pairs of track keys on 2 - 2 a.b of their templates (M, D), the squared distance of unit vectors.

    Returns the scores, and whether each pair (P,) was decided correctly at the threshold of its fold.

    Raises:
        DataError: a pair names an unknown track; or as :func:`verify_pairs`.
    """
    first, second, missing = pair_rows(pairs, tracks.keys)
    if missing:
        raise DataError(f"pairs: {len(missing)} tracks have no readable frame (first: {missing[0]}); take them out")
    vectors = templates.detach().double().numpy()
    sq_dist = np.clip(2 - 2 * (vectors[first] * vectors[second]).sum(1), 0, 4)
    result = verify_pairs(sq_dist, pairs.same, pairs.fold)
    thresholds = np.asarray(result.thresholds)[np.unique(pairs.fold, return_inverse=True)[1]]
    return result, (sq_dist <= thresholds) == pairs.same


def evaluate_templates(
    make: Callable[[Tensor, Tensor], Tensor], data: TrackSet, pairs: Pairs, *, seen: tuple[int, ...] = SEEN
) -> dict[str, Any]:
    """Score the templates ``make(frames, mask)`` on `pairs`: whole tracks, by kind of track, and by frames seen.

    By kind: the share of correctly decided pairs among pairs of two good tracks, a good and a bad one, or two bad ones.
    The threshold is that of all pairs. By frames seen: both tracks are cut after that many frames.
    """
    with torch.inference_mode():
        whole, right = verify_templates(make(data.frames, data.mask), data.tracks, pairs)
        content = {name: value for name, value in whole.metrics().items() if name not in ("folds", "thresholds")}
        content["folds"] = list(whole.fold_accuracies)
        cut = [data.first(count) for count in seen]
        after = [verify_templates(make(part.frames, part.mask), data.tracks, pairs)[0].accuracy for part in cut]
    content["by_frames_seen"] = {str(count): accuracy for count, accuracy in zip(seen, after, strict=True)}
    if data.tracks.kinds:
        content["by_kind"] = _by_kind(right, data.tracks, pairs)
    return content


def evaluate_tracks(
    encoder: Encoder, tracks: Tracks, out: str | Path, *, pool: TrackPool | None = None, pairs: Pairs | None = None
) -> dict[str, Any]:
    """Score the baselines, and a trained TrackPool if one is given, on tracks; nothing is trained.

    Args:
        encoder: Encoder of the frames.
        tracks: The reported tracks; see :func:`facenet.data.tracks.reported_tracks`.
        out: Folder for ``skipped.csv``.
        pool: See :func:`facenet.tracks.pool.read_track_pool`.
        pairs: Pairs of track keys; None draws pairs among the people.

    Returns:
        The content of ``metrics.json``: the baselines by name, and counts. With a pool also ``track_pool``, its
        ``gain_over_mean`` and ``streaming_gap``.

    Raises:
        DataError: no frame could be read, or too few people to draw pairs among.
    """
    check_scorable(track_pairs(tracks) if pairs is None else pairs)  # before any frame is embedded
    data = embed_tracks(encoder, tracks)
    pairs = track_pairs(data.tracks) if pairs is None else pairs
    content: dict[str, Any] = {name: evaluate_templates(make, data, pairs) for name, make in BASELINES.items()}
    if pool is not None:
        content = {"track_pool": evaluate_templates(pool, data, pairs), **content}
        gain = paired(content["track_pool"]["folds"], content["mean"]["folds"])
        content["gain_over_mean"] = {"track_pool": gain}
        content["streaming_gap"] = streaming_gap(pool, data)
    skipped = sorted({*tracks.skipped, *data.tracks.skipped})
    write_skipped(Path(out) / "skipped.csv", skipped)
    counts = {"tracks": {"evaluation": len(data.tracks)}, "frames": {"evaluation": len(data.tracks.frames)}}
    return {**content, "pairs": len(pairs), **counts, "skipped": len(skipped)}


def streaming_gap(pool: TrackPool, data: TrackSet) -> float:
    """Return the largest difference of a coordinate between the streaming form and the other two forms.

    The template of `step` is compared with `prefixes` after every frame, and with `forward` after the last one.
    """
    with torch.inference_mode():
        state, streamed = pool.start(len(data.frames)), []
        for frame, valid in zip(data.frames.unbind(1), data.mask.unbind(1), strict=True):
            template, state = pool.step(frame, state, valid)
            streamed.append(template)
        steps = torch.stack(streamed, 1)  # (M, L, D)
        prefixes = (steps - pool.prefixes(data.frames, data.mask)) * data.mask[..., None]
        whole = last(steps, data.mask) - pool(data.frames, data.mask)
    return max(float(prefixes.abs().max()), float(whole.abs().max()))


def paired(folds: list[float], others: list[float]) -> dict[str, float]:
    """Return the mean difference of two accuracies over the same folds, and its standard error."""
    gain = np.subtract(folds, others)
    return {"accuracy": float(gain.mean()), "sem": float(gain.std(ddof=1) / np.sqrt(len(gain)))}


def over_seeds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the metrics over the seeds; ``spread`` is the standard deviation over the seeds (0 for one seed)."""
    content: dict[str, Any] = {}
    for name in ("accuracy", "sem", "auc", "eer"):
        values = [result[name] for result in results]
        content[name] = float(np.mean(values))
        if name != "sem":
            content[f"{name}_spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    seen = results[0]["by_frames_seen"]
    content["by_frames_seen"] = {n: float(np.mean([r["by_frames_seen"][n] for r in results])) for n in seen}
    if "by_kind" in results[0]:
        content["by_kind"] = {
            kind: {"accuracy": float(np.mean([r["by_kind"][kind]["accuracy"] for r in results])), "pairs": row["pairs"]}
            for kind, row in results[0]["by_kind"].items()
        }
    return content


def _by_kind(right: np.ndarray, tracks: Tracks, pairs: Pairs) -> dict[str, Any]:
    bad = np.asarray([kind == "bad" for kind in tracks.kinds])
    first, second, _ = pair_rows(pairs, tracks.keys)
    count = bad[first].astype(int) + bad[second]
    names = ("both_good", "good_and_bad", "both_bad")
    rows = {name: right[count == number] for number, name in enumerate(names)}
    return {name: {"accuracy": float(row.mean()), "pairs": len(row)} for name, row in rows.items() if len(row)}


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-6)
