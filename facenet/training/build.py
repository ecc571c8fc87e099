"""The parts of a run, built from its options: callbacks, trainer, data, module."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from facenet.console import is_first_rank, progress
from facenet.data.augment import Augment
from facenet.data.cache import DecodedFaces
from facenet.data.datamodule import FaceDataModule
from facenet.data.options import AugmentOptions, LevelOptions
from facenet.data.pairs import pair_rows
from facenet.data.virtual import count_composites
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, choose
from facenet.files import default_cache
from facenet.interrupts import StopRequest
from facenet.large_batch.memory import available_bytes, choose_chunk, step_memory
from facenet.losses.harmonic import reset_embedding_layer
from facenet.losses.options import HarmonicOptions
from facenet.losses.registry import OBJECTIVES
from facenet.mining.rules import FALLBACKS, MINERS, SELECTS
from facenet.models.build import build_recorded
from facenet.models.options import recorded_options
from facenet.options import fixed, to_dict
from facenet.training import resume
from facenet.training.callbacks import AveragedWeights, CollapseGuard, HeldOutVerification, StepSeeds, TrainingProgress
from facenet.training.checkpoints import AtomicCheckpointIO, Restoring, Saved, check_states
from facenet.training.faces import Faces, build_preprocess
from facenet.training.loggers import check_logger
from facenet.training.module import TripletModule
from facenet.training.non_finite import NotFiniteSteps
from facenet.training.old_embeddings import old_vectors, read_old
from facenet.training.options import TrainOptions
from facenet.training.start import load_start
from facenet.training.stop import StopAtSignal
from facenet.training.trainer import DeviceSettings, build_trainer, check_extra, resolve_device
from facenet.types import EmbeddingSet

MINED = ("triplet", "softmax_then_triplet", "arcface_then_triplet", "joint")  # objectives that compare virtual people


class Callbacks(NamedTuple):
    """The callbacks of a run, in the order of calls."""

    stop: StopAtSignal
    seeds: StepSeeds
    verification: HeldOutVerification
    non_finite: NotFiniteSteps
    collapse: CollapseGuard
    progress: TrainingProgress
    restoring: Restoring
    averaging: AveragedWeights | None
    best: ModelCheckpoint
    last: ModelCheckpoint  # saved after each validation


class Run(NamedTuple):
    """A run that is built and has not started."""

    trainer: pl.Trainer
    callbacks: Callbacks
    data: FaceDataModule
    module: TripletModule
    old: EmbeddingSet | Encoder | None  # of harmonic training
    resumed_from: Path | None


def check_options(options: TrainOptions) -> DeviceSettings:
    """Check names and network before the data is read or drawn; return the resolved device settings.

    Raises:
        ConfigError: an unknown name (with the nearest known one), or options that no network can have.
    """
    preprocess = build_preprocess(options)
    preprocess.with_views(options.preprocess.views)  # refuses views beyond the picture
    _meta_model(options, preprocess.size)
    choose(OBJECTIVES, options.loss.name, "loss.name")
    choose(MINERS, options.mining.miner, "mining.miner")
    choose(SELECTS, options.mining.select, "mining.select")
    choose(FALLBACKS, options.mining.fallback, "mining.fallback")
    if options.augment.virtual and (options.harmonic.old or not options.augment.enabled):
        other = "harmonic.old" if options.harmonic.old else "augment.enabled=false"
        raise ConfigError(f"augment.virtual={options.augment.virtual:g}: it does not go with {other}; leave one out")
    build_augment(options.augment)
    if options.augment.virtual and options.loss.name not in MINED:
        raise ConfigError(f"augment.virtual: virtual people are for triplets; use loss.name={', '.join(MINED)}")
    if options.harmonic.old is None and options.harmonic != HarmonicOptions():
        raise ConfigError("harmonic: it is for training beside an old encoder; give harmonic.old=ENCODER")
    if options.loss.name == "triplet" and (options.loss.head or options.loss.head_weight):
        raise ConfigError("loss.head: loss=triplet has no classification head; write loss=joint")
    check_extra(options.trainer.extra)
    check_logger(options.logger)
    return resolve_device(options.trainer)


def build_augment(options: AugmentOptions) -> Augment | None:
    """Return the random changes of training images; None if there are none.

    Raises:
        ConfigError: kinds or levels that are not known, or that nothing asks for.
    """
    if options.degrade and not options.enabled:
        raise ConfigError("augment.degrade: nothing is changed with augment.enabled=false; leave one out")
    if not options.degrade and (options.kinds is not None or options.levels != LevelOptions()):
        raise ConfigError(
            "augment.kinds, augment.levels: they are of augment.degrade; give its chance, 0.5 for example"
        )
    augment = Augment(**to_dict(options))
    try:
        augment.changes  # noqa: B018  (refuses what is not known)
    except ConfigError as error:
        raise ConfigError(f"augment.{error}") from error
    return augment if options.enabled else None


def build_run(
    options: TrainOptions,
    faces: Faces,
    device: DeviceSettings,
    out: Path,
    request: StopRequest,
    say: Callable[[str], None] = print,
    *,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Build a run; with `options.resume` and a checkpoint, one that resumes from the checkpoint.

    `callbacks` are called before those of the run itself.

    Raises:
        ConfigError, DataError: options, data and checkpoint do not fit together.
    """
    saved = resume.last_checkpoint(options, out, say)
    step = 0 if saved is None else int(saved.content["global_step"])
    own = _build_callbacks(options, faces, out, request, say)
    files = AtomicCheckpointIO(saved)
    used = [*callbacks, *(callback for callback in own if callback is not None)]
    trainer = build_trainer(options, device, out, callbacks=used, checkpoints=files, step=step)
    old, vectors = None, None
    if options.harmonic.old:
        place = str(trainer.strategy.root_device)
        old = read_old(options.harmonic.old, dim=options.model.embedding_dim, device=place)
        cache = Path(options.loader.cache_dir or default_cache())
        with progress("old embeddings", enabled=is_first_rank(), say=say) as report:
            vectors = old_vectors(old, faces.decoded.train, cache=cache, progress=report)
    data = FaceDataModule(
        faces.decoded,
        augment=build_augment(options.augment),
        sampler=options.sampler,
        loader=options.loader,
        seed=options.seed,
        accumulate=options.optim.accumulate,
        old=vectors,
        max_bad_share=options.data.max_bad_share,
    )
    chunk = _choose_chunk(options, faces.decoded, device, trainer, saved, say)
    module = _build_module(options, faces.decoded, device, chunk)
    if saved is not None:
        resume.check_checkpoint(options, module.hparams, saved, validation=validation_digest(faces))
        check_states(module, trainer, saved)
    return Run(trainer, own, data, module, old, None if saved is None else saved.path)


def describe(run: Run, faces: Faces) -> str:
    """Return lines on data, network and batches of a run."""
    data, splits, given = run.data, faces.splits, faces.splits.validation
    weights = sum(p.numel() for p in run.module.model.parameters())
    held_out = f"held out {len(data.held_out)} of {len(data.held_out.names)}"
    if given is not None:
        held_out = f"validated on {len(given.pairs)} pairs of {given.source.file}"
    return (
        f"training on {len(data.train)} faces of {len(data.train.names)} people ({data.cache} cache),"
        f" {held_out}, reported {len(splits.evaluation)}"
        f" of {len(splits.evaluation.names)}; {len(data.skipped)} files skipped (skipped.csv)\n"
        f"{run.module.hparams['model']['name']}: {weights:,} weights; {len(data.sampler)} batches of"
        f" {data.sampler.batch_size} an epoch"
    )


def validation_digest(faces: Faces) -> str | None:
    """Return the SHA-256 of the file of pairs that choose the checkpoint; None if they are drawn."""
    return None if faces.splits.validation is None else faces.splits.validation.source.sha256


def _build_callbacks(
    options: TrainOptions, faces: Faces, out: Path, request: StopRequest, say: Callable[[str], None]
) -> Callbacks:
    pairs, optim = faces.held_out_pairs, options.optim
    kept = {"options": fixed(options), "validation": validation_digest(faces)}
    first, second, _ = pair_rows(pairs, faces.decoded.held_out.keys)
    folder = out / "checkpoints"
    checkpoint = functools.partial(ModelCheckpoint, folder, enable_version_counter=False, save_on_train_epoch_end=False)
    return Callbacks(
        StopAtSignal(request, folder / "last.ckpt", accumulate=optim.accumulate, kept=kept),
        StepSeeds(options.seed),
        HeldOutVerification(pairs, (first, second)),
        NotFiniteSteps(out, fatal=optim.not_finite == "fatal", limit=optim.not_finite_limit),
        CollapseGuard(),
        TrainingProgress(enabled=options.trainer.progress, refresh_rate=options.trainer.refresh_rate, say=say),
        Restoring(),
        None if optim.ema is None else AveragedWeights(optim.ema),
        checkpoint(filename="best", monitor=options.trainer.monitor, mode="max"),
        checkpoint(filename="last"),
    )


def _model_options(options: TrainOptions, size: tuple[int, int]) -> dict[str, Any]:
    """Return the net's options as they are recorded, with the resolved input size."""
    return recorded_options({**to_dict(options.model), "input_size": list(size)})


def _meta_model(options: TrainOptions, size: tuple[int, int], *, channels_last: bool = False) -> nn.Module:
    """Build the net without weights, to check its options and to count shapes."""
    with torch.device("meta"):
        net = build_recorded(**_model_options(options, size))
    return net.to(memory_format=torch.channels_last) if channels_last else net


def _build_module(
    options: TrainOptions, faces: DecodedFaces, device: DeviceSettings, chunk_size: int | None
) -> TripletModule:
    harmonic = to_dict(options.harmonic)
    used = harmonic.pop("old")
    model = _model_options(options, faces.preprocess.size)
    module = TripletModule(
        model=model,
        loss=to_dict(options.loss),
        mining=to_dict(options.mining),
        optim=to_dict(options.optim),
        num_classes=len(faces.train.names),
        total_steps=options.trainer.max_steps,
        chunk_size=chunk_size,
        mirror=faces.preprocess.mirror,
        channels_last=device.channels_last,
        compile=device.compile,
        seed=options.seed,
        harmonic=harmonic if used else None,
    )
    load_start(module.model, options)
    if used and options.harmonic.embedding_share:
        reset_embedding_layer(module.model)
    return module


def _choose_chunk(
    options: TrainOptions,
    faces: DecodedFaces,
    device: DeviceSettings,
    trainer: pl.Trainer,
    saved: Saved | None,
    say: Callable[[str], None],
) -> int | None:
    """Return how many images pass through the network at a time (None: all).

    The memory of a step is printed if chunks are asked for, or if the step exceeds the budget. A resumed run keeps the
    chunk that "auto" chose, since batch norm normalises within a chunk.

    Raises:
        ConfigError: two images do not fit, or a chunk would be a single image.
    """
    large, place = options.large_batch, trainer.strategy.root_device
    asked, size = large.chunk_size, faces.preprocess.size
    model = _meta_model(options, size, channels_last=device.channels_last)
    batch = options.sampler.batch_size // trainer.world_size
    composites = count_composites(options.augment.virtual, batch)
    if options.augment.virtual and not composites:
        raise ConfigError(f"augment.virtual={options.augment.virtual:g}: fewer than 3 of {batch} faces; raise it")
    batch += composites
    step: dict[str, Any] = {
        "batch_size": batch,
        "optimizer": options.optim.name,
        "stored_bytes": 3 * math.prod(faces.preprocess.stored_size(faces.margin)),
        "half": device.precision != "32-true",
        "ranks": trainer.world_size,
    }
    free = available_bytes(place) // (1 if place.type == "cuda" else trainer.num_devices)
    budget = int(0.8 * free) if large.memory_gb is None else int(large.memory_gb * 1e9)
    chunk: int | None
    if asked != "auto":
        chunk = asked if isinstance(asked, int) else None
    elif saved is not None:
        chunk = saved.content["hyper_parameters"]["chunk_size"]
    else:
        chunk = choose_chunk(model, size, budget=budget, **step)
    if chunk is not None and batch // -(-batch // chunk) < 2:
        raise ConfigError(
            f"large_batch.chunk_size={chunk} divides {batch} images into chunks, one of them with a single image, which"
            f" batch norm can not normalise; use {chunk + 1}, or an even batch"
        )
    plain = step_memory(model, size, **step).total
    need = plain if chunk is None else step_memory(model, size, chunk_size=chunk, **step).total
    if trainer.is_global_zero and (asked is not None or plain > budget):
        remedy = "large_batch=chunks makes it fit" if asked is None else "use smaller chunks, or large_batch=chunks"
        say(
            f"a step of {batch} images, {chunk or 'all'} at a time: about {need / 1e9:.2f} GB"
            f" (all at once {plain / 1e9:.2f} GB), {budget / 1e9:.2f} GB to use"
            + ("" if need <= budget else f"; {remedy}")
        )
    return chunk
