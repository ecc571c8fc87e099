"""One training run: data in, an encoder with calibrated thresholds and a scored set of unseen people out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from facenet.console import is_first_rank
from facenet.encoders import model_card
from facenet.encoders.bundle import save_bundle
from facenet.errors import ConfigError
from facenet.files import explain_disk_errors
from facenet.interrupts import StopRequest, defer_signals
from facenet.large_batch.ranks import destroy_process_group_at_end
from facenet.options import to_dict
from facenet.training import resume
from facenet.training.build import Run, build_run, check_options, describe
from facenet.training.faces import Faces, prepare_faces
from facenet.training.loggers import finishing, log_result, service_line
from facenet.training.old_embeddings import expectation
from facenet.training.options import TrainOptions
from facenet.training.result import beside_start, best_encoder, describe_run, score
from facenet.training.run_folder import hold_folder
from facenet.training.start import start_of, take_net
from facenet.training.trainer import emulated_bf16, quiet_lightning
from facenet.training.verdict import refuse


def train(
    options: TrainOptions,
    out: str | Path,
    say: Callable[[str], None] = print,
    *,
    callbacks: Sequence[pl.Callback] = (),
    given: Collection[str] = (),
) -> dict[str, Any]:
    """Train an encoder into a folder.

    Writes ``encoder/`` (with a model card), ``checkpoints/``, ``logs/``, ``evaluation/``, ``skipped.csv``,
    ``config.json``; returns what ``metrics.json`` holds. Held-out training people choose the best checkpoint and
    calibrate the thresholds. The reported pairs are scored once, at the end. With ``data.fold`` they are scored at one
    threshold, which the held-out people choose too.

    With ``resume: auto`` a run resumes from ``checkpoints/last.ckpt`` if there is one, see
    :mod:`facenet.training.resume`. The metrics of a finished run are returned without training.

    On several ranks, each of them calls this function. Rank 0 alone writes; the others return an empty dict.

    Args:
        options: Options of the run.
        out: The run folder.
        say: Prints each line for the user.
        callbacks: More of Lightning's callbacks; they are called before those of the run itself.
        given: Names of options that were asked for ("model.norm") even if they have their default: with `init` they
            have to be the encoder's.

    Raises:
        ConfigError, DataError: wrong options or unusable data; a folder that can not be written, or that another
            process trains in; a full disk.
        TrainingCollapsed: all embeddings became one point.
        NotFinite: the loss or gradient is not finite.
        RankLost: another rank ended.
        Interrupted: a SIGTERM or SIGINT stopped the training; a checkpoint was saved.
    """
    alone = hold_folder(out) if is_first_rank() else contextlib.nullcontext()
    with explain_disk_errors(out), resume.add_resume_hint(Path(out)), alone:
        return _train(take_net(options, given), Path(out), say, callbacks)


def _train(
    options: TrainOptions, out: Path, say: Callable[[str], None], callbacks: Sequence[pl.Callback]
) -> dict[str, Any]:
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    finished = resume.finished_metrics(options, out, say)
    if finished is not None:
        return finished if is_first_rank() else {}
    pl.seed_everything(options.seed, verbose=False)
    device = check_options(options)
    faces = prepare_faces(options, out, say)
    if options.gate and faces.splits.pairs is None:
        raise ConfigError("gate: nobody is reported; give data.evaluation a share of the people, or data.pairs")
    request = StopRequest()
    run = build_run(options, faces, device, out, request, say, callbacks=callbacks)
    if run.trainer.is_global_zero:
        if slow := emulated_bf16(device.precision, run.trainer.strategy.root_device.type):
            say(slow)
        resume.write_start(options, out)
        where = [*service_line(options.logger, out), *_beginning(options, out, run)]
        say("\n".join([describe(run, faces), *harmonic_hint(options, run), *where]))
    with finishing(run.trainer.loggers):
        _fit(run, faces, request)
        if not run.trainer.is_global_zero:
            return {}
        start = start_of(options.init)
        encoder = best_encoder(options, run, faces, start, out, say)
        save_bundle(encoder, out / "encoder")
        metrics = describe_run(options, run, faces, encoder) | score(options, run, faces, encoder, out, say)
        metrics |= beside_start(options, run, faces, start, encoder, out, say)
        model_card.write(out / "encoder", encoder, metrics, to_dict(options))
        if options.gate and not metrics["start"]["helped"]:
            refuse(out)
        log_result(run.trainer.loggers, metrics, run.trainer.global_step)
    return {**metrics, "seconds": time.perf_counter() - started}


def _fit(run: Run, faces: Faces, request: StopRequest) -> None:
    """Train. At the end, also after an error, the loader processes end and lost files are listed."""
    path = run.resumed_from
    with quiet_lightning(), destroy_process_group_at_end(), defer_signals(request), run.callbacks.restoring.blame(path):
        try:
            run.trainer.fit(run.module, datamodule=run.data, ckpt_path=path)
        finally:
            run.trainer.fit_loop.teardown()  # Lightning keeps loader workers alive if a validation is interrupted
            faces.list_skipped(run.data.skipped)


def harmonic_hint(options: TrainOptions, run: Run) -> list[str]:
    """Return a line on harmonic training if the photographs show few people."""
    if run.old is None or options.data.kind == "synthetic":
        return []
    return expectation(len(run.data.train.names), len(run.data.train))


def _beginning(options: TrainOptions, out: Path, run: Run) -> list[str]:
    """Return the line about resuming; nothing without ``resume: auto``."""
    if options.resume is None:
        return []
    if run.resumed_from is None:
        return [f"no checkpoint in {out} yet: starting from the beginning"]
    return [f"resuming from {run.resumed_from}"]
