"""TripletModule: network, mining, loss and optimiser wired for Lightning. No arithmetic, no file access."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from facenet.encoders.encoder import encode
from facenet.large_batch.chunks import Images, backward, divide
from facenet.large_batch.ranks import add_up, gather, smallest_chunk, synchronise
from facenet.losses.harmonic import freeze_norms, stage
from facenet.losses.heads import AdaFace
from facenet.losses.objective import trained_part
from facenet.losses.registry import build_objective
from facenet.mining.online import NotFiniteEmbeddings
from facenet.models.build import build_recorded
from facenet.options import build
from facenet.training.non_finite import NonFiniteBatch, finite
from facenet.training.optim import build_optimizer, clip_gradients, lr_factor
from facenet.training.options import OptimOptions


class TripletModule(pl.LightningModule):
    """Train an embedding network on batches (images (B, 3, H, W), labels (B,)), in chunks if asked, on several ranks.

    Optimisation is manual: loss and mining see the embeddings of all ranks at once, also if images pass through the
    network in chunks. Every argument is plain data, so the checkpoint loads with ``weights_only=True``.

    Args:
        model: ``name`` and the options of :func:`facenet.models.build.build_model`.
        loss: ``name`` of the objective and its options, see :mod:`facenet.losses.registry`.
        mining: Options of :func:`facenet.mining.online.mine`, less the margin.
        optim: Values of :class:`.options.OptimOptions`. The callback of :mod:`.non_finite` reads ``not_finite`` and
            ``not_finite_limit``; the module does not.
        chunk_size: Images that pass through the network at a time, see :mod:`facenet.large_batch.chunks`; None is all.
        num_classes: Training identities, for the head.
        total_steps: Length of the learning-rate schedule.
        mirror: Whether embeddings outside training are mirror-averaged.
        channels_last: Memory format of the network and its inputs.
        compile: Train through ``torch.compile``. If it fails, one line is printed and training goes on without it.
            Names of weights stay as they are. Embedding outside training is never compiled.
        seed: Seed of random mining.
        harmonic: Values of :class:`facenet.losses.options.HarmonicOptions` without ``old``. Batches then have the old
            embeddings (B, D) as a third part. None trains without an old encoder.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        loss: dict[str, Any],
        mining: dict[str, Any],
        optim: dict[str, Any],
        num_classes: int,
        total_steps: int,
        chunk_size: int | None = None,
        mirror: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        seed: int = 0,
        harmonic: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self._optim = build(OptimOptions, optim, "optim.")
        self.model = build_recorded(**model)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._compile = compile
        self.non_finite_batches: list[NonFiniteBatch] = []  # of the current step, or of the last one
        self._before: list[Tensor] = []
        objective = build_objective(
            **loss,
            mining=mining,
            harmonic=harmonic,
            seed=seed,
            num_classes=num_classes,
            embedding_dim=self.model.embedding_dim,
            total_steps=total_steps,
        )
        self._objective = objective.__call__  # a module set here would register its weights twice
        self.head = trained_part(objective)
        self._lengths: list[Tensor] = []  # of the embeddings of a batch, before they are scaled
        if isinstance(self.head, AdaFace):
            self.model.embedding_layer().register_forward_hook(torch.compiler.disable(self._measure))

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings (B, D)."""
        return encode(self.model, images, mirror=self.hparams["mirror"])

    def _measure(self, layer: torch.nn.Module, inputs: object, embeddings: Tensor) -> None:
        if self.training:
            self._lengths.append(embeddings.detach().float().norm(dim=1))

    def on_fit_start(self) -> None:
        """Set the chunk of all ranks to the smallest that one of them chose from its own memory."""
        self.hparams["chunk_size"] = smallest_chunk(self.hparams["chunk_size"], self.device)

    def _train_forward(self, images: Tensor) -> Tensor:
        if self._compile:
            try:
                if self._compiled is None:  # compiling the module itself would rename its weights
                    torch.compiler.reset()  # a graph of another module may lack this one's hook; all graphs go
                    self._compiled = torch.compile(self.model.forward)
                return self._compiled(images)
            except Exception as error:  # compilers raise any type; an error of the net itself is raised again below
                reason = " ".join(str(error).split())[:120]
                print(f"trainer.compile: failed ({type(error).__name__}: {reason}); going on without", file=sys.stderr)
                self._compile, self._compiled = False, None
        return self.model(images)

    def training_step(self, batch: tuple[Images, Tensor] | tuple[Images, Tensor, Tensor], batch_idx: int) -> None:
        """Mine a batch, and step after every `accumulate` batches; a non-finite step changes nothing."""
        images, labels, *old = batch
        share = max((self.hparams["harmonic"] or {}).get("embedding_share", 0.0), self._optim.embedding_first)
        if share:
            stage(self.model, embedding_alone=self.global_step < share * self.hparams["total_steps"])
        if self._optim.freeze_norms:
            freeze_norms(self.model)
        accumulate = self._optim.accumulate
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if batch_idx % accumulate == 0:
            self.non_finite_batches, self._before = [], [buffer.clone() for buffer in self.buffers()]

        self._lengths.clear()

        def objective(embeddings: Tensor) -> Tensor:
            try:
                return self.objective(embeddings, labels, *old) / accumulate
            except NotFiniteEmbeddings:
                return embeddings.sum() * torch.nan

        loss = backward(
            self.model,
            images,
            objective,
            chunk_size=self.hparams["chunk_size"],
            embed=self._train_forward,
            scale=scaler.scale if scaler else None,
        )
        loss = add_up(loss * accumulate)
        self.log("loss", loss)
        if not torch.isfinite(loss):
            self._restore_buffers()
            real = int((labels < self.hparams["num_classes"]).sum())  # virtual people stand behind
            self.non_finite_batches.append(NonFiniteBatch("loss", batch_idx, self._not_finite_alone(images, real)))
        if (batch_idx + 1) % accumulate:
            return
        optimizer: Any = self.optimizers()
        synchronise(*self._parts())
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        if not self.non_finite_batches and scaler is None and not finite(grads):
            self.non_finite_batches.append(NonFiniteBatch("gradient", batch_idx))
        if self.non_finite_batches:
            self._restore_buffers()
            if scaler is None:
                optimizer.zero_grad()  # a step without gradients changes nothing, but counts
            else:
                grads[0].fill_(torch.nan)  # the scaler leaves the step out
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]

    def _restore_buffers(self) -> None:
        """Restore the running statistics from before the step."""
        for buffer, before in zip(self.buffers(), self._before, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def _not_finite_alone(self, images: Images, count: int) -> list[int]:
        """Return the places, in the batch of all ranks, of images that are not finite in evaluation mode."""
        self.model.eval()
        parts = divide(count, self.hparams["chunk_size"])
        good = torch.cat([torch.isfinite(self.model(images[part])).all(1) for part in parts])
        self.model.train()
        places: list[int] = torch.nonzero(gather(good.int()) == 0).flatten().tolist()
        return places

    def objective(self, embeddings: Tensor, labels: Tensor, old: Tensor | None = None) -> Tensor:
        """Return this rank's part of the loss of a batch: embeddings (b, D), labels (b,), old embeddings (b, D)."""
        if isinstance(self.head, AdaFace):  # each image has passed the network once; a second pass may follow
            real = int((labels < self.hparams["num_classes"]).sum())  # virtual people stand behind
            self.head.take_lengths(torch.cat(self._lengths)[:real])
        loss, stats = self._objective(embeddings, labels, self.global_step, old)
        self.log_dict(stats)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Limit the gradient's norm; Lightning has unscaled the gradients of half precision before."""
        clip_gradients(self._parts(), self._optim.clip_norm)

    def _parts(self) -> list[torch.nn.Module]:
        return [m for m in (self.model, self.head) if m is not None]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return embeddings (B, D) as an encoder would give them; a callback scores them."""
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        """Build optimiser and per-step schedule."""
        options, total = self._optim, self.hparams["total_steps"]
        optimizer = build_optimizer(
            self._parts(),
            name=options.name,
            lr=options.lr,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            stage_decay=options.stage_decay,
        )

        def factor(step: int) -> float:
            return lr_factor(step, schedule=options.schedule, total_steps=total, warmup_steps=options.warmup_steps)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
