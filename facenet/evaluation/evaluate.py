"""Encoder and faces to numbers: verification and what goes with it, and the folder that keeps scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facenet.data.pairs import pair_rows
from facenet.data.records import Records
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.all_pairs import all_pairs
from facenet.evaluation.backends import Scores, fit_backend
from facenet.evaluation.identification import enrol, identify
from facenet.evaluation.leakage import leakage
from facenet.evaluation.options import EvaluationOptions
from facenet.evaluation.quantisation import compare_quantised, methods
from facenet.evaluation.verification import (
    best_threshold,
    check_scorable,
    common_grid,
    score_at,
    score_pairs,
    verify_embeddings,
    verify_pairs,
)
from facenet.files import atomic_write, write_csv
from facenet.types import EmbeddingSet, Pairs, Progress, image_key

THUMBNAIL = 64  # pixels a side, at most


def evaluate(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    *,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Embed the faces and verify the pairs; see :func:`verify_pairs`.

    Raises:
        DataError: pairs without an image, unless `allow_missing`; no readable image.
    """
    embeddings, _ = embed_records(encoder, faces)
    return verify_embeddings(embeddings, pairs, allow_missing=allow_missing).metrics()


def evaluate_fold(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    held_out: Records,
    held_out_pairs: Pairs,
    *,
    backend: tuple[str, Records] | None = None,
    save: str | Path | None = None,
    world: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the pairs of one fold once (LFW View 2), at the threshold that is best on pairs of held-out other people.

    Returns `verification`, see :func:`score_at`, and `leakage`. The fold's faces are opened last; `save`
    names a folder to keep them and the scored pairs in. `progress` is called with (done, total) embedded faces.
    `backend`, a name and the training faces, adds the scores of :mod:`.backends` at a threshold chosen in the same way.

    Raises:
        DataError: an image of a pair is missing or can not be read.
    """
    others = embed_records(encoder, held_out, progress=progress)[0]
    chosen_on = score_pairs(others, held_out_pairs)
    threshold = best_threshold(chosen_on.sq_dist, chosen_on.pairs.same)
    scores = None
    if backend is not None:
        train, kept = embed_records(encoder, backend[1], progress=progress)
        scores = fit_backend(backend[0], train.vectors, kept.labels)
    embeddings, kept = embed_records(encoder, faces, progress=progress)
    metrics = {"verification": score_at(score_pairs(embeddings, pairs).sq_dist, pairs.same, threshold)}
    if backend is not None and scores is not None:
        away = best_threshold(_backend_distances(scores, others, held_out_pairs), held_out_pairs.same)
        metrics["backend"] = score_at(_backend_distances(scores, embeddings, pairs), pairs.same, away)
        metrics["backend"]["name"] = backend[0]
    if save is not None:
        save_evaluation(save, embeddings, kept, pairs)
    return metrics | {"leakage": leakage(embeddings, encoder.training.get("people"), world=world)}


def _backend_distances(scores: Scores, embeddings: EmbeddingSet, pairs: Pairs) -> np.ndarray:
    """Return minus the scores of pairs (P,), which fall like a distance the more alike two faces are."""
    first, second, _ = pair_rows(pairs, map(image_key, embeddings.paths))
    return -scores(embeddings.vectors[first], embeddings.vectors[second])


def evaluate_all(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    options: EvaluationOptions | None = None,
    *,
    save: str | Path | None = None,
    train_faces: Records | None = None,
    train_embeddings: EmbeddingSet | None = None,
    world: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Embed the reported faces once and report all that is asked about them, see :func:`evaluate_embeddings`.

    `save` names a folder to keep faces and scored pairs in, see :func:`save_evaluation`. The centroids of
    ``quantise="pq"`` and a back-end are fitted on `train_faces`, which are faces of other people. `progress` is called
    with (done, total) embedded faces.

    Raises:
        DataError, ConfigError: what the parts refuse.
    """
    options = options or EvaluationOptions()
    check_scorable(pairs)
    embeddings, kept = embed_records(encoder, faces, progress=progress)
    train = None  # the vectors and records that something is fitted on
    if train_faces is not None and (options.backend or "pq" in methods(options.quantise)):
        train = embed_records(encoder, train_faces, progress=progress)
    fit_on = None if train is None else train[0].vectors
    known: dict[str, Any] = {"people": encoder.training.get("people"), "train_embeddings": train_embeddings}
    metrics = evaluate_embeddings(embeddings, pairs, options, fit_on=fit_on, world=world, **known)
    if options.backend and train is not None:
        scored = score_pairs(embeddings, pairs, allow_missing=options.allow_missing).pairs
        scores = fit_backend(options.backend, train[0].vectors, train[1].labels)
        found = verify_pairs(
            _backend_distances(scores, embeddings, scored), scored.same, scored.fold, fars=options.fars
        )
        metrics["backend"] = found.metrics() | {"name": options.backend}
    if save is not None:
        save_evaluation(save, embeddings, kept, pairs)
    return metrics


def evaluate_embeddings(
    embeddings: EmbeddingSet,
    pairs: Pairs | None,
    options: EvaluationOptions | None = None,
    *,
    fit_on: np.ndarray | None = None,
    people: Sequence[Mapping[str, Any]] | None = None,
    train_embeddings: EmbeddingSet | None = None,
    world: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Report `verification` on the pairs, or `all_pairs` without any; `leakage` and, if wanted, more.

    Args:
        embeddings: The reported faces.
        pairs: The reported pairs; None for all there are.
        options: What is reported: `identification` and `quantised` (on the same pairs) if asked for.
        fit_on: Vectors (T, D) to fit the centroids of "pq" on.
        people: Whom the encoder was trained on, see :func:`~facenet.evaluation.leakage.people_record`.
        train_embeddings: Embeddings of the training faces, among which near-duplicates are looked for.
        world: See :func:`~facenet.evaluation.leakage.world_of`.
        progress: Called with (done, total) of all pairs, and again while near-duplicates are looked for.

    Raises:
        ConfigError: `quantise` without pairs; and what the parts refuse.
        DataError: what the parts refuse.
    """
    options = options or EvaluationOptions()
    wanted, seed = methods(options.quantise), options.seed
    metrics: dict[str, Any] = {}
    if pairs is not None:
        scored: dict[str, Any] = {"allow_missing": options.allow_missing, "fars": options.fars}
        scored["grid"] = common_grid(options.grid)
        metrics["verification"] = verify_embeddings(embeddings, pairs, **scored).metrics()
        if wanted:
            metrics["quantised"] = compare_quantised(embeddings, pairs, wanted, train=fit_on, seed=seed, **scored)
    elif wanted:
        raise ConfigError("quantise: scored on given pairs; pass pairs=FILE")
    else:
        known = embeddings.vectors, embeddings.identities
        found = all_pairs(*known, options.fars, memory_gb=options.memory_gb, progress=progress)
        metrics["all_pairs"] = found.metrics()
    if options.identification:
        protocol = options.protocol
        metrics["identification"] = identify_faces(
            embeddings, gallery_faces=protocol.gallery_faces, strangers=protocol.strangers, seed=seed
        )
    metrics["leakage"] = leakage(embeddings, people, world=world, train=train_embeddings, progress=progress)
    return metrics


def identify_faces(
    embeddings: EmbeddingSet, *, gallery_faces: int = 1, strangers: float = 0.5, seed: int = 0
) -> dict[str, Any]:
    """Enrol some of the faces, look the others up and return the metrics; see :mod:`.identification`."""
    gallery, probes = enrol(embeddings.identities, gallery_faces=gallery_faces, strangers=strangers, seed=seed)
    names = np.asarray(embeddings.identities, str)
    found = identify(embeddings.vectors[gallery], names[gallery], embeddings.vectors[probes], names[probes])
    return {**found.metrics(), "gallery_faces": gallery_faces, "strangers_share": strangers}


def save_evaluation(folder: str | Path, embeddings: EmbeddingSet, faces: Records, pairs: Pairs) -> None:
    """Keep what was scored: an EmbeddingSet folder, ``pairs.csv`` and, for faces without files, ``thumbnails.npy``.

    ``pairs.csv`` has the columns first, second, same, fold, sq_dist and a row for each scored pair, in their order;
    ``thumbnails.npy`` (N, S, S, 3) uint8 with S <= 64 has the rows of ``items.csv``. `root` in ``meta.json`` is the
    absolute folder of the images, "" for faces without files.
    """
    folder = Path(folder)
    (folder / "meta.json").unlink(missing_ok=True)  # written last, so that half a folder does not load
    scored = score_pairs(embeddings, pairs, allow_missing=True)
    kept = scored.pairs
    columns = (kept.same.astype(int).tolist(), kept.fold.tolist(), map(float, scored.sq_dist))
    header = ("first", "second", "same", "fold", "sq_dist")
    write_csv(folder / "pairs.csv", header, zip(kept.first, kept.second, *columns, strict=True))
    (folder / "thumbnails.npy").unlink(missing_ok=True)
    if faces.images is not None:
        with atomic_write(folder / "thumbnails.npy") as file:
            np.save(file, thumbnails(faces.images))
    root = "" if faces.images is not None or not faces.root else str(Path(faces.root).resolve())
    beside = [name for name in ("pairs.csv", "thumbnails.npy") if (folder / name).is_file()]
    replace(embeddings, root=root).save(folder, beside=beside)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, 3) uint8 as squares (N, S, S, 3) uint8, S the least of `THUMBNAIL`, H and W."""
    side = min(THUMBNAIL, *images.shape[1:3])
    small = np.empty((len(images), side, side, 3), np.uint8)
    for row, image in enumerate(images):
        small[row] = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BOX))
    return small
