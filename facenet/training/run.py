"""One training run: data in, an encoder with calibrated thresholds and a scored set of unseen people out."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from facenet.data.augment import Augment
from facenet.data.cache import readable
from facenet.data.datamodule import FaceDataModule
from facenet.data.drawn.faces import default_cache
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import pair_rows
from facenet.data.preprocess import Preprocess
from facenet.data.records import NothingUsable, Records, Skipped, write_skipped
from facenet.data.sources.kinds import check_share
from facenet.data.splits import MAX_BAD_SHARE, Splits, check_pairs, split_faces, split_options
from facenet.encoders import model_card
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, FacenetError, choose
from facenet.evaluation.evaluate import calibrate, evaluate_all, evaluate_fold
from facenet.evaluation.leakage import people_record, world_of
from facenet.evaluation.options import EvaluationOptions
from facenet.faces.options import DETECTORS
from facenet.files import explain_disk_errors
from facenet.interrupts import StopRequest, defer_signals
from facenet.large_batch.memory import available_bytes, choose_chunk, step_memory
from facenet.large_batch.ranks import destroy_process_group_at_end
from facenet.losses.harmonic import reset_embedding_layer
from facenet.losses.registry import OBJECTIVES
from facenet.mining.rules import FALLBACKS, MINERS, SELECTS
from facenet.models.build import build_model
from facenet.models.registry import NETS
from facenet.training import non_finite as not_finite
from facenet.training import resume
from facenet.training.callbacks import (
    AtomicCheckpointIO,
    CollapseGuard,
    HeldOutVerification,
    StepSeeds,
    TrainingProgress,
)
from facenet.training.checkpoints import check_states, read_checkpoint, restoring
from facenet.training.logs import loggers
from facenet.training.module import TripletModule
from facenet.training.old_embeddings import old_vectors, read_old
from facenet.training.optim import OPTIMIZERS, SCHEDULES, clip_gradients
from facenet.training.stop import StopAtSignal
from facenet.types import EmbeddingSet, Pairs

PRECISIONS = {
    "auto": "bf16-mixed on CUDA, else 32-true",
    "32-true": "float32",
    "bf16-mixed": "bfloat16 where it is safe, float32 elsewhere",
    "16-mixed": "float16 with loss scaling; GPUs without bfloat16",
}


def train(config: dict[str, Any], out: str | Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run a training configuration (plain nested dicts, as ``conf/train.yaml`` composes them) into a folder.

    Writes ``encoder/`` (with a model card), ``checkpoints/``, ``logs/``, ``evaluation/``, ``skipped.csv``,
    ``config.json``; returns what ``metrics.json`` holds. The best checkpoint is chosen on held-out training people, the
    thresholds are calibrated on them, and the reported pairs are scored once, at the end; with ``data.fold`` at one
    threshold, which is chosen on the held-out people too. With ``resume: auto`` it goes on from
    ``checkpoints/last.ckpt``, where there is one, and returns the metrics of a run that is finished, see
    :mod:`facenet.training.resume`.

    On several ranks all of them call it; rank 0 alone writes and reports, the others return an empty dict.

    Raises:
        ConfigError, DataError: options or data that can not work; a folder that can not be written, a full disk.
        TrainingCollapsed: the embedding became one point.
        NotFinite: the loss is not finite.
        RankLost: another rank ended.
        Interrupted: SIGTERM or SIGINT came while the network was trained, and a checkpoint was saved.
    """
    with explain_disk_errors(out), resume.add_resume_hint(Path(out)):
        return _train(config, Path(out), say)


def _train(config: dict[str, Any], out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    before = resume.finished(config, out, say)
    if before is not None:
        return before if getattr(rank_zero_only, "rank", 0) == 0 else {}
    pl.seed_everything(config["seed"], verbose=False)
    _check_names(config)
    preprocess = _preprocess(config)
    splits, module_data, listed = _faces(config, out, preprocess, say)
    preprocess = module_data.preprocess
    pairs = held_out_pairs(module_data.held_out, config["data"]["seed"])
    last = resume.last_checkpoint(config, out, say)
    saved = None if last is None else read_checkpoint(last)  # before anything is made of it
    request = StopRequest()
    trainer, progress, guard = _trainer(config, module_data, pairs, out, saved, request)
    device = str(trainer.strategy.root_device)  # where faces are also embedded, before and after
    old = _old(config, module_data, device, say)
    module = _module(config, module_data, preprocess, trainer, saved, say)
    if last is not None and saved is not None:
        resume.check_checkpoint(config, module.hparams, saved, last)
        check_states(module, trainer, saved, last)
    del saved  # Lightning reads it again
    if trainer.is_global_zero:
        resume.start(config, out)
        say("\n".join([_headline(module_data, splits, module), *_beginning(config, out, last)]))
    with _quiet(), destroy_process_group_at_end(), defer_signals(request), restoring(trainer, last):
        try:
            trainer.fit(module, datamodule=module_data, ckpt_path=last)
        finally:
            trainer.fit_loop.teardown()  # Lightning leaves loader workers alive where a validation is left
            listed(module_data.skipped)
        if not trainer.is_global_zero:
            return {}
    best = _best(trainer, module, out)
    encoder = _encoder(config, module, preprocess, best, module_data)
    module.model.to(device)
    encoder.thresholds = calibrate(encoder, module_data.held_out)
    save_bundle(encoder, out / "encoder")
    metrics: dict[str, Any] = {
        "run": _run(config, preprocess),
        "train": {
            "images": len(module_data.train),
            "identities": len(module_data.train.names),
            "steps": trainer.global_step,
            "faces_seen": progress.faces,
            "images_per_second": progress.faces_per_second,
            "first_loss": progress.first_loss,
            "last_loss": progress.last_loss,
            "skipped": len(module_data.skipped),
            "not_finite_steps": guard.steps,
            "ranks": trainer.world_size,
            "threads": torch.get_num_threads(),
            "chunk_size": module.hparams["chunk_size"],
        },
        "held_out": {"identities": len(module_data.held_out.names), **best},
        "thresholds": {f"{far:g}": value for far, value in encoder.thresholds.items()},
    }
    if splits.pairs is not None:
        world = world_of(config["data"]["kind"], config["data"]["seed"])
        kept: dict[str, Any] = {"save": out / "evaluation", "world": world}
        if config["data"].get("fold"):
            reported = evaluate_fold(encoder, splits.evaluation, splits.pairs, module_data.held_out, pairs, **kept)
        else:
            drawn = not config["data"].get("pairs")  # a pair that was drawn may be left out if its image is lost
            reported = evaluate_all(
                encoder, splits.evaluation, splits.pairs, EvaluationOptions(allow_missing=drawn), **kept
            )
        metrics |= reported
        if old is not None:
            _keep_old(old, splits.evaluation, out / "old")
    model_card.write(out / "encoder", encoder, metrics, config)
    return {**metrics, "seconds": time.perf_counter() - started}


def _beginning(config: dict[str, Any], out: Path, last: Path | None) -> list[str]:
    """Say where a run goes on, or that it does not, if that was asked for."""
    if config.get("resume") is None:
        return []
    return [f"going on from {last}" if last else f"no checkpoint in {out} yet: starting from the beginning"]


def _keep_old(old: EmbeddingSet | Encoder, faces: Records, folder: Path) -> None:
    """Keep the old embeddings of the reported faces beside the new ones, for scripts/compat.py."""
    if isinstance(old, EmbeddingSet):
        wanted = set(faces.keys)
        old.subset([row for row, key in enumerate(old.keys) if key in wanted]).save(folder)
    else:
        embed_records(old, faces)[0].save(folder)


def _run(config: dict[str, Any], preprocess: Preprocess) -> dict[str, Any]:
    """Say which point of a table this is."""
    return {
        "table": config.get("table"),
        "scale": (config.get("scale") or {}).get("name"),
        "model": config["model"]["name"],
        "embedding_dim": config["model"].get("embedding_dim", 128),
        "train_share": config["data"].get("train_share", 1.0),
        "fold": config["data"].get("fold"),
        "seed": config["seed"],
        "input_size": list(preprocess.size),
        "batch_size": config["sampler"]["batch_size"],
    }


def _check_names(config: dict[str, Any]) -> None:
    """Fail on an unknown name or an impossible network before the data is read or drawn."""
    size = _preprocess(config).size
    with torch.device("meta"):  # its checks without its weights
        build_model(**{**config["model"], "input_size": size})
    choose(OBJECTIVES, config["loss"]["name"], "loss.name")
    for option, table in (("miner", MINERS), ("select", SELECTS), ("fallback", FALLBACKS)):
        choose(table, config["mining"][option], f"mining.{option}")
    choose(OPTIMIZERS, config["optim"]["name"], "optim.name")
    choose(SCHEDULES, config["optim"]["schedule"], "optim.schedule")
    clip_gradients([], config["optim"].get("clip_norm"))
    not_finite.check(config["optim"])
    device_settings(config["trainer"])


def device_settings(trainer: dict[str, Any]) -> dict[str, Any]:
    """Resolve what "auto" means here: Lightning's `precision`, and `channels_last` and `compile` as truth values.

    The defaults are what ``benchmark=training`` measured to be fastest, on a CPU (see conf/trainer/default.yaml) and on
    CUDA, where bfloat16 and channels_last pay together, once the batch fills the card.

    Raises:
        ConfigError: an unknown precision, or something else than auto, true or false.
    """
    precision, channels_last = trainer.get("precision", "auto"), trainer.get("channels_last", "auto")
    choose(PRECISIONS, precision, "trainer.precision")
    if channels_last not in ("auto", True, False):
        raise ConfigError(f"trainer.channels_last: expected auto, true or false, got {channels_last!r}")
    if trainer["accelerator"] in ("gpu", "cuda") and not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        raise ConfigError(
            f"trainer.accelerator: {trainer['accelerator']!r} asks for a GPU, and there is none; use auto"
        )
    cuda = torch.cuda.is_available() and trainer["accelerator"] in ("auto", "gpu", "cuda")
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    return {
        "precision": precision,
        "channels_last": True if channels_last == "auto" else channels_last,
        "compile": bool(trainer.get("compile", False)),
    }


def _preprocess(config: dict[str, Any]) -> Preprocess:
    size = config["model"]["input_size"] or choose(NETS, config["model"]["name"], "model.name").input_size
    options = {"channels": "RGB", "crop": config["data"]["crop"], **config["preprocess"]}
    align = dict(config["data"].get("align") or {"detector": "none"})
    choose(DETECTORS, align["detector"], "data.align.detector")
    if align["detector"] != "none":
        options["align"] = align
    return Preprocess.from_dict({"size": [int(side) for side in size], **options})


def _faces(
    config: dict[str, Any], out: Path, preprocess: Preprocess, say: Callable[[str], None]
) -> tuple[Splits, FaceDataModule, Callable[[Sequence[Skipped]], None]]:
    """Return the splits, the data of the Trainer, and what adds files to ``skipped.csv``: it is there before training.

    Raises:
        DataError: faces that can not be trained on, too many bad files, or a reported pair without its image.
    """
    found: dict[Skipped, None] = {}

    def listed(skipped: Sequence[Skipped]) -> None:
        found.update(dict.fromkeys(skipped))
        if getattr(rank_zero_only, "rank", 0) == 0:
            write_skipped(out / "skipped.csv", list(found))

    def decoded(train: Records, held_out: Records) -> None:
        listed((*train.skipped, *held_out.skipped))
        used = len(train) + len(held_out) + len(splits.evaluation)
        check_share(list(found), used, data.get("max_bad_share", MAX_BAD_SHARE), train.root)

    data = split_options(config["data"])
    try:
        splits = split_faces(
            **data,
            progress=_printer(say, "drawing faces"),
            readable=lambda faces: readable(faces, _as_aligned(preprocess, faces)),
            listed=listed,
        )
        check_pairs(splits, data.get("pairs"))
        return splits, _data(config, splits, _as_aligned(preprocess, splits.train), say, decoded), listed
    except NothingUsable as error:
        listed(error.skipped)
        raise


def _as_aligned(preprocess: Preprocess, faces: Records) -> Preprocess:
    """Return the preprocessing with the alignment of a folder that scripts/align.py wrote, unless it has one."""
    if faces.alignment is None or preprocess.align is not None:
        return preprocess
    return replace(preprocess, align=faces.alignment)


def _data(
    config: dict[str, Any],
    splits: Splits,
    preprocess: Preprocess,
    say: Callable[[str], None],
    decoded: Callable[[Records, Records], None],
) -> FaceDataModule:
    options = dict(config["augment"])
    augment = Augment(**options) if options.pop("enabled") else None
    return FaceDataModule(
        splits.train,
        splits.held_out,
        preprocess,
        augment=augment,
        sampler=config["sampler"],
        seed=config["seed"],
        accumulate=config["optim"].get("accumulate", 1),
        progress=_printer(say, "decoding faces"),
        decoded=decoded,
        **config["loader"],
    )


def _module(
    config: dict[str, Any],
    data: FaceDataModule,
    preprocess: Preprocess,
    trainer: pl.Trainer,
    saved: dict[str, Any] | None,
    say: Callable[[str], None],
) -> TripletModule:
    model = {**config["model"], "input_size": list(preprocess.size)}
    device = device_settings(config["trainer"])
    module = TripletModule(
        model=model,
        loss=config["loss"],
        mining=config["mining"],
        optim=config["optim"],
        num_classes=len(data.train.names),
        total_steps=config["trainer"]["max_steps"],
        mirror=preprocess.mirror,
        channels_last=device["channels_last"],
        compile=device["compile"],
        seed=config["seed"],
        harmonic=_harmonic(config),
    )
    module.hparams["chunk_size"] = _chunk_size(config, data, module, trainer, saved, say)
    if config["init"]:
        start = load_bundle(config["init"])
        ours, theirs = module.model.state_dict(), start.model.state_dict()
        if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
            raise ConfigError(
                f"init={config['init']}: it is {start.name} {start.options}, this run builds {model};"
                " use the same model options"
            )
        module.model.load_state_dict(theirs)
    if (module.hparams["harmonic"] or {}).get("embedding_share"):
        reset_embedding_layer(module.model)
    return module


def _harmonic(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the module's options of harmonic training; None without an old encoder."""
    options = dict(config.get("harmonic") or {})
    return options if options.pop("old", None) else None


def _old(
    config: dict[str, Any], data: FaceDataModule, device: str, say: Callable[[str], None]
) -> EmbeddingSet | Encoder | None:
    """Give the training batches the old encoder's vectors; return what ``harmonic.old`` names, None without it.

    Raises:
        ConfigError: vectors of another width than the net's.
    """
    if _harmonic(config) is None:
        return None
    old = read_old(config["harmonic"]["old"], device=device)
    width = config["model"].get("embedding_dim", 128)
    if old.dim != width:
        raise ConfigError(
            f"harmonic.old: its vectors have {old.dim} dimensions, this net's {width}; one gallery holds one width:"
            f" set model.embedding_dim={old.dim}"
        )
    cache = Path(config["loader"].get("cache_dir") or default_cache())
    vectors = old_vectors(old, data.train, cache=cache, progress=_printer(say, "old embeddings"))
    data.dataset.old = torch.from_numpy(vectors)
    return old


def _chunk_size(
    config: dict[str, Any],
    data: FaceDataModule,
    module: TripletModule,
    trainer: pl.Trainer,
    saved: dict[str, Any] | None,
    say: Callable[[str], None],
) -> int | None:
    """Return how many images pass through the network at a time; say what a step takes where that is a question."""
    large = config.get("large_batch", {})
    asked, device = large.get("chunk_size"), trainer.strategy.root_device
    if asked is not None and asked != "auto" and (not isinstance(asked, int) or asked < 2):
        raise ConfigError(f"large_batch.chunk_size: expected auto, null or a number of images above 1, got {asked!r}")
    given = large.get("memory_gb")
    if given is not None and not given > 0:
        raise ConfigError(f"large_batch.memory_gb: expected a number of gigabytes above 0, or null, got {given}")
    size, batch = data.preprocess.size, data.sampler.batch_size // trainer.world_size
    step = {
        "batch_size": batch,
        "optimizer": config["optim"]["name"],
        "stored_bytes": 3 * math.prod(data.preprocess.stored_size(data.margin)),
        "half": device_settings(config["trainer"])["precision"] != "32-true",
        "ranks": trainer.world_size,
    }
    free = available_bytes(device) // (1 if device.type == "cuda" else trainer.num_devices)
    budget = int(0.8 * free) if given is None else int(given * 1e9)
    if asked == "auto" and saved is not None:  # batch norm's group stays what it was
        chunk = saved["hyper_parameters"]["chunk_size"]
    else:
        chunk = choose_chunk(module.model, size, budget=budget, **step) if asked == "auto" else asked
    if chunk is not None and batch // -(-batch // chunk) < 2:
        raise ConfigError(
            f"large_batch.chunk_size={chunk} divides {batch} images into parts of which one is a single image, which"
            f" batch norm can not normalise; take {chunk + 1}, or an even batch"
        )
    need = step_memory(module.model, size, chunk_size=chunk, **step).total
    plain = step_memory(module.model, size, **step).total
    if trainer.is_global_zero and (asked is not None or plain > budget):
        remedy = "large_batch=chunks makes it fit" if asked is None else "take smaller chunks, or large_batch=chunks"
        say(
            f"a step of {batch} images, {chunk or 'all'} at a time: about {need / 1e9:.2f} GB"
            f" (all at once {plain / 1e9:.2f} GB), {budget / 1e9:.2f} GB to use"
            + ("" if need <= budget else f"; {remedy}")
        )
    return chunk


def _trainer(
    config: dict[str, Any],
    data: FaceDataModule,
    pairs: Pairs,
    out: Path,
    saved: dict[str, Any] | None,
    request: StopRequest,
) -> tuple[pl.Trainer, TrainingProgress, not_finite.NotFiniteSteps]:
    options = {**config["trainer"], **device_settings(config["trainer"])}
    del options["channels_last"], options["compile"]  # the module's
    max_steps = options.pop("max_steps")
    every = min(options.pop("val_check_interval"), max_steps)
    first, second, _ = pair_rows(pairs, data.held_out.keys)
    progress = TrainingProgress(enabled=options.pop("progress"), refresh_rate=options.pop("refresh_rate"))
    checkpoint = functools.partial(
        ModelCheckpoint, out / "checkpoints", enable_version_counter=False, save_on_train_epoch_end=False
    )
    optim = config["optim"]
    guard = not_finite.NotFiniteSteps(
        out, fatal=optim.get("not_finite", "fatal") == "fatal", limit=optim.get("not_finite_limit", 10)
    )
    callbacks = [
        StopAtSignal(
            request, out / "checkpoints" / "last.ckpt", accumulate=data.accumulate, options=resume.fixed(config)
        ),
        StepSeeds(config["seed"]),
        HeldOutVerification(pairs, (first, second)),
        guard,
        CollapseGuard(),
        progress,
        checkpoint(filename="best", monitor="val_accuracy", mode="max"),
        checkpoint(filename="last"),  # after each validation, whatever its result
    ]
    steps = 0 if saved is None else saved["global_step"]
    with _quiet(), _named_options():
        trainer = pl.Trainer(
            max_steps=max_steps,
            max_epochs=1,  # the loader's one pass is the whole run, so a resumed one finds its place by its step
            val_check_interval=every * data.accumulate,
            check_val_every_n_epoch=None,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            logger=loggers(out, steps * data.accumulate),
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
            **options,
        )
    return trainer, progress, guard


@contextlib.contextmanager
def _named_options() -> Iterator[None]:
    """Turn what Lightning says of its options (accelerator, devices, strategy, num_nodes) into our error."""
    try:
        yield
    except (MisconfigurationException, TypeError, ValueError) as error:
        if isinstance(error, FacenetError):
            raise
        raise ConfigError(f"trainer: {str(error)[:300]}") from error


def _best(trainer: pl.Trainer, module: TripletModule, out: Path) -> dict[str, Any]:
    """Load the best checkpoint's weights into the module and say when and how good it was."""
    checkpoint = trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    path = checkpoint.best_model_path
    if not path:
        raise ConfigError("trainer: no validation ran, so no checkpoint was chosen; lower trainer.val_check_interval")
    content = read_checkpoint(out / "checkpoints" / Path(path).name)  # the folder may have moved
    module.load_state_dict(content["state_dict"])
    score = checkpoint.best_model_score
    return {"accuracy": float(score) if score is not None else None, "step": int(content["global_step"])}


def _encoder(
    config: dict[str, Any], module: TripletModule, preprocess: Preprocess, best: dict[str, Any], data: FaceDataModule
) -> Encoder:
    """Return the encoder with a summary of its training: also whom it was trained on, as hashes."""
    options = {**config["model"], "input_size": list(preprocess.size)}
    name = options.pop("name")
    summary = {"data": config["data"]["kind"], "loss": config["loss"], "seed": config["seed"], "best": best}
    encoder = Encoder(module.model.cpu(), name, options, preprocess, training=summary)
    people = {"train": data.train.names, "held_out": data.held_out.names}
    world = world_of(config["data"]["kind"], config["data"]["seed"])
    earlier = load_bundle(config["init"]).training.get("people", []) if config["init"] else []
    summary["people"] = [*people_record(people, encoder.fingerprint, world=world), *earlier]
    return encoder


def _headline(data: FaceDataModule, splits: Splits, module: TripletModule) -> str:
    weights = sum(p.numel() for p in module.model.parameters())
    lines = [
        f"training on {len(data.train)} faces of {len(data.train.names)} people ({data.cache} cache),"
        f" held out {len(data.held_out)} of {len(data.held_out.names)}, reported {len(splits.evaluation)}"
        f" of {len(splits.evaluation.names)}; {len(data.skipped)} files skipped",
        f"{module.hparams['model']['name']}: {weights:,} weights; {len(data.sampler)} batches of"
        f" {data.sampler.batch_size} an epoch",
    ]
    return "\n".join(lines)


def _printer(say: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """Report progress about every tenth."""
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(1, total)
        if tenth != last and total > 1000:
            last = tenth
            say(f"{what}: {done} of {total}")

    return progress


class _quiet(warnings.catch_warnings):  # noqa: N801 - used like a function
    """Silence Lightning's adverts and the warnings that do not apply here, each by name."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # torch deprecates what Lightning calls
        warnings.filterwarnings("ignore", ".*does not have many workers.*")  # faces come from RAM
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # it is, by the batch's number
        warnings.filterwarnings("ignore", ".*number of training batches.*log_every_n_steps.*")
        warnings.filterwarnings(
            "ignore", ".*`srun` command is available.*"
        )  # a cluster's front node, asked for one run
        return entered
