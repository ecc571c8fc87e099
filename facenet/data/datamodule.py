"""LightningDataModule: records, sampler and augmentation joined into batches (images (B, 3, H, W), labels (B,))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facenet.data.augment import Augment, Draws, take
from facenet.data.cache import DecodedFaces, read_batch
from facenet.data.options import LoaderOptions, SamplerOptions
from facenet.data.pictures import why
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records, Skipped
from facenet.data.sampler import IdentitySampler, Schedule
from facenet.errors import DataError
from facenet.interrupts import init_worker_signals

Batch = tuple[Tensor, ...]


class BatchDataset(Dataset[Batch]):
    """Items are whole batches: ``dataset[[rows]]`` is uint8 images (B, 3, S, S') and labels (B,)."""

    def __init__(
        self,
        records: Records,
        labels: np.ndarray,
        preprocess: Preprocess,
        margin: float,
        packed: np.ndarray | None,
        old: np.ndarray | None = None,
    ) -> None:
        self.records, self.preprocess, self.margin, self.packed = records, preprocess, margin, packed
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.old = None if old is None else torch.from_numpy(old)  # (N, D)
        # (N,) bool, shared with the loader processes: images that were readable before training and are not now
        self.lost = torch.zeros(0 if packed is not None else len(records), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of the given rows: images, labels, and old embeddings if there are any.

        Another image of the batch replaces an image that can no longer be read, one of the same person if possible.
        So batches keep their size. A batch without a readable image is empty.
        """
        index = torch.as_tensor(rows, dtype=torch.int64)
        if self.packed is not None:
            images = torch.from_numpy(self.packed[index.numpy()])
        else:
            images, places = read_batch(self.records, rows, self.preprocess, self.margin)
            if len(places) < len(index):
                images, index = self._filled(images, index, places)
        beside = () if self.old is None else (self.old[index],)
        return (images, self.labels[index], *beside)

    def _filled(self, images: Tensor, index: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Mark lost rows and replace them by others of the batch; an empty batch if all are lost."""
        there = torch.zeros(len(index), dtype=torch.bool)
        there[places] = True
        self.lost[index[~there]] = True
        if not len(places):
            return images, index[:0]
        labels = self.labels[index]
        alike = labels[:, None] == labels[places]  # (B, B')
        stand_in = torch.where(alike.any(1), alike.int().argmax(1), 0)  # (B,)
        stand_in[places] = torch.arange(len(places))
        return images.permute(0, 2, 3, 1)[stand_in].permute(0, 3, 1, 2), index[places][stand_in]


@dataclass(frozen=True)
class TrainingImages:
    """A batch of stored images on its device; a slice of it is augmented, normalised floats (b, 3, H, W).

    Floats need several times the memory of bytes, so a slice is converted only when the network reads it. The random
    changes were drawn for the whole batch: they do not depend on the slices.
    """

    stored: Tensor  # (B, 3, S, S') uint8
    preprocess: Preprocess
    augment: Augment | None = None
    draws: Draws | None = None

    def __len__(self) -> int:
        """Return B."""
        return len(self.stored)

    def __getitem__(self, part: slice) -> Tensor:
        """Return the floats of some images."""
        if self.augment is None or self.draws is None:
            return self.preprocess.normalise(self.stored[part])
        return self.augment.apply(self.stored[part], take(self.draws, part), self.preprocess.size, self.preprocess)


class FaceDataModule(pl.LightningDataModule):
    """Training batches by the identity sampler, and the held-out faces for verification while training.

    Args:
        faces: The decoded faces; held-out faces keep their order.
        augment: Random changes of training images; None changes nothing. Images decoded with a margin have pixels for
            what shifts and rotations bring into view.
        sampler: Options of the identity sampler.
        loader: Loader processes (with a cache none are used), and whether the first batch is repeated.
        seed: Seed of sampler and augmentation.
        accumulate: Batches of an optimiser step.
        old: (N, D) embeddings of the training images by an old encoder; batches then have them as a third part.

    Raises:
        ConfigError, DataError: as :class:`.sampler.IdentitySampler`.
    """

    def __init__(
        self,
        faces: DecodedFaces,
        *,
        augment: Augment | None = None,
        sampler: SamplerOptions,
        loader: LoaderOptions,
        seed: int = 0,
        accumulate: int = 1,
        old: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.train, self.held_out, self.preprocess, self.margin = (
            faces.train,
            faces.held_out,
            faces.preprocess,
            faces.margin,
        )
        self.cache, self._held_out_images = faces.cache, faces.held_out_images
        self.augment, self.seed, self.repeat_batch = augment, seed, loader.repeat_batch
        self.accumulate, self._number = accumulate, 0
        self.workers = loader.workers if self.cache == "none" else 0
        self.prefetch = loader.prefetch
        self.dataset = BatchDataset(
            faces.train, faces.train.labels, faces.preprocess, faces.margin, faces.train_images, old
        )
        self._options = sampler
        self.sampler = self._sampler(0, 1)

    def _sampler(self, rank: int, world_size: int) -> IdentitySampler:
        labels = self.dataset.labels.numpy()
        return IdentitySampler(labels, self._options, seed=self.seed, rank=rank, world_size=world_size)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Training and held-out files that were left out, before training or during it."""
        return tuple(dict.fromkeys((*self.train.skipped, *self.held_out.skipped, *self._lost())))

    def _lost(self) -> Iterator[Skipped]:
        """Yield the files this rank's loader could no longer read; they are read again for the reason."""
        for row in self.dataset.lost.nonzero().flatten().tolist():
            reason, source = "not readable for a while", self.train.source(row)
            try:
                self.preprocess.of(self.train.alignment, self.train.root).read(source, self.margin)
            except DataError as error:
                reason = why(error, source)
            yield Skipped(self.train.paths[row], f"lost during training: {reason}")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of all batches of the run from the trainer's step on; one item is one batch."""
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            self.sampler = self._sampler(trainer.global_rank, trainer.world_size)
        steps = (trainer.global_step, trainer.max_steps) if trainer is not None else (0, len(self.sampler))
        self._number, stop = (step * self.accumulate for step in (steps[0], max(steps)))
        batch = (lambda number: self.sampler.batch(0)) if self.repeat_batch else self.sampler.batch
        sampler: Any = Schedule(batch, stop, self._number)
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self.dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            prefetch_factor=self.prefetch if self.workers else None,
            worker_init_fn=init_worker_signals,
            generator=generator,
        )

    def paths(self, number: int) -> list[str]:
        """Return the files of batch `number` of the run, of all ranks."""
        return [self.train.paths[row] for row in self.sampler.whole(0 if self.repeat_batch else number)]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the held-out faces in order, uint8 (B, 3, H, W), with their labels."""
        rows = [list(range(i, min(i + 256, len(self.held_out)))) for i in range(0, len(self.held_out), 256)]
        dataset = BatchDataset(self.held_out, self.held_out.labels, self.preprocess, 1.0, self._held_out_images)
        return DataLoader(dataset, batch_size=None, sampler=rows)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Any, ...]:
        """Return images that are augmented and normalised when sliced; outside training, floats (B, 3, H, W).

        The draws depend on the seed, the batch's number in the run and the place in the batch of all ranks. So they are
        the same in a resumed run, and on another number of ranks.
        """
        images, *others = batch
        if not len(images):
            raise DataError(
                f"{self.train.root}: no image of a batch can be read any more ({next(self._lost()).reason}); is the"
                " folder still there?"
            )
        if self.trainer is None or not self.trainer.training:
            return self.preprocess.normalise(images), *others
        if self.augment is None:
            return TrainingImages(images, self.preprocess), *others
        number, self._number = self._number, self._number + 1
        entropy = np.random.SeedSequence([self.seed, 0 if self.repeat_batch else number])
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        draws = self.augment.draw(self.sampler.batch_size, images.shape[-2:], self.preprocess.size, generator)
        return TrainingImages(images, self.preprocess, self.augment, take(draws, self.sampler.share)), *others
