"""LightningDataModule: records, sampler and augmentation joined into batches (images (B, 3, H, W), labels (B,))."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facenet.data.augment import Augment, Draws, take
from facenet.data.cache import DecodedFaces
from facenet.data.face_cache import FaceCache
from facenet.data.options import LoaderOptions, SamplerOptions
from facenet.data.preprocess import Preprocess
from facenet.data.records import Skipped
from facenet.data.sampler import IdentitySampler, Schedule
from facenet.data.virtual import Composites, count_composites
from facenet.errors import DataError
from facenet.interrupts import init_worker_signals

Batch = tuple[Tensor, ...]


class BatchDataset(Dataset[Batch]):
    """Items are whole batches: ``dataset[[rows]]`` is uint8 images (B, 3, S, S') and labels (B,)."""

    def __init__(self, faces: FaceCache | np.ndarray, labels: np.ndarray, old: np.ndarray | None = None) -> None:
        """Take faces decoded on demand or packed (N, 3, S, S'), labels (N,), and perhaps old vectors (N, D)."""
        self.faces, self.labels = faces, labels
        self.old = None if old is None else torch.from_numpy(old)

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of the given rows: images, labels, and old embeddings if there are any."""
        if isinstance(self.faces, FaceCache):
            images, index = self.faces.batch(rows)
        else:
            index = np.asarray(rows, np.int64)
            images = self.faces[index]
        beside = () if self.old is None else (self.old[torch.from_numpy(index)],)
        return (torch.from_numpy(images), torch.from_numpy(self.labels[index].astype(np.int64)), *beside)


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
        max_bad_share: Largest share of the training images met so far that may be unreadable.

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
        max_bad_share: float = 1.0,
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
        workers = os.cpu_count() or 1 if loader.workers is None else loader.workers
        self.workers = workers if self.cache == "none" else 0
        self.prefetch, self.max_bad_share = loader.prefetch, max_bad_share
        self.faces: FaceCache | None = None  # none are needed of packed faces
        stored: FaceCache | np.ndarray
        if faces.train_images is None:
            stored = self.faces = FaceCache(faces.train, faces.preprocess, faces.margin, keep=self.cache == "ram")
        else:
            stored = faces.train_images
        self.dataset = BatchDataset(stored, faces.train.labels, old)
        self._options = sampler
        self.sampler = self._sampler(0, 1)

    def _sampler(self, rank: int, world_size: int) -> IdentitySampler:
        return IdentitySampler(self.dataset.labels, self._options, seed=self.seed, rank=rank, world_size=world_size)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Training and held-out files that were left out, before training or during it."""
        met = [] if self.faces is None else self.faces.unreadable()
        return tuple(dict.fromkeys((*self.train.skipped, *self.held_out.skipped, *met)))

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
        dataset = BatchDataset(self._held_out_images, self.held_out.labels)
        return DataLoader(dataset, batch_size=None, sampler=rows)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Any, ...]:
        """Return images that are augmented and normalised when sliced; outside training, floats (B, 3, H, W).

        The draws depend on the seed, the batch's number in the run and the place in the batch of all ranks. So they are
        the same in a resumed run, and on another number of ranks. Virtual people are made of a rank's own faces, so
        they are other ones on another number of ranks.
        """
        images, labels, *others = batch
        if self.faces is not None and not len(images):
            reason = self.faces.unreadable(1)[0].reason
            raise DataError(
                f"{self.train.root}: no image of a batch can be read any more ({reason}); is it still there?"
            )
        if self.trainer is None or not self.trainer.training:
            return self.preprocess.normalise(images), labels, *others
        if self.faces is not None:
            self.faces.check_share(self.max_bad_share)
        if self.augment is None:
            return TrainingImages(images, self.preprocess), labels, *others
        number, self._number = self._number, self._number + 1
        key = [self.seed, 0 if self.repeat_batch else number]
        draws = self._draw(self.sampler.batch_size, images, key)
        own = take(draws, self.sampler.share)
        if self.augment.virtual and not others:
            images, labels, own = self._add_composites(images, labels, own, key)
        return TrainingImages(images, self.preprocess, self.augment, own), labels, *others

    def _draw(self, count: int, images: Tensor, key: list[int]) -> Draws:
        """Draw the changes of `count` images by a key."""
        assert self.augment is not None
        entropy = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return self.augment.draw(count, images.shape[-2:], self.preprocess.size, torch.Generator().manual_seed(entropy))

    def _add_composites(
        self, images: Tensor, labels: Tensor, own: Draws, key: list[int]
    ) -> tuple[Tensor, Tensor, Draws]:
        """Add virtual people to this rank's batch, see :mod:`.virtual`."""
        assert self.augment is not None
        key = [*key, self.sampler.rank + 1]
        wanted = count_composites(self.augment.virtual, len(labels))
        made = Composites(labels.cpu().numpy(), wanted, np.random.SeedSequence(key))
        if not len(made):
            return images, labels, own
        new = torch.from_numpy(made.labels(len(self.train.names), self.sampler.rank)).to(labels)
        draws = self._draw(len(made), images, [*key, 0])
        both = {name: torch.cat([own[name], draws[name]]) for name in own}
        return torch.cat([images, made.images(images)]), torch.cat([labels, new]), both
