from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facenet.data.augment import Augment
from facenet.data.cache import decode_faces
from facenet.data.datamodule import FaceDataModule
from facenet.data.options import DataOptions, LoaderOptions, SamplerOptions
from facenet.data.preprocess import Preprocess
from facenet.data.splits import split_faces
from facenet.errors import ConfigError, DataError
from tests.helpers.pictures import write_tree

PREPROCESS = Preprocess(size=(32, 32))


SAMPLER = SamplerOptions(batch_size=24, faces_per_identity=4, negative_share=0.1, coverage=5)


def build(root: Path, *, seed: int = 0, **loader: Any) -> FaceDataModule:
    splits = split_faces(DataOptions(kind="folder", root=str(root), held_out=0.2, evaluation=0.2))
    options = LoaderOptions(**loader)
    faces = decode_faces(splits.train, splits.held_out, PREPROCESS, options, margin=1.25)
    return FaceDataModule(faces, augment=Augment(), sampler=SAMPLER, loader=options, seed=seed)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_batches_are_uint8_and_the_same_from_every_cache(face_tree: Path, tmp_path: Path, cache: str) -> None:
    data = build(face_tree, cache=cache, cache_dir=str(tmp_path))
    batches = list(data.train_dataloader())
    reference = list(build(face_tree, cache="ram").train_dataloader())
    assert len(batches) == len(data.sampler)
    for (images, labels), (expected, expected_labels) in zip(batches, reference, strict=True):
        assert images.dtype == torch.uint8
        assert images.shape == (24, 3, 32, 32)
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_workers_give_the_same_batches(face_tree: Path) -> None:
    with_workers = list(build(face_tree, cache="none", workers=1).train_dataloader())
    without = list(build(face_tree, cache="ram").train_dataloader())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(with_workers, without, strict=True))


def test_workers_prepare_as_many_batches_ahead_as_asked(face_tree: Path) -> None:
    ahead = build(face_tree, cache="none", workers=1, prefetch=5).train_dataloader()
    assert ahead.prefetch_factor == 5
    assert build(face_tree, cache="ram", prefetch=5).train_dataloader().prefetch_factor is None, "no worker, no queue"
    with pytest.raises(ConfigError, match="prefetch: expected a number of at least 1, got 0"):
        LoaderOptions(prefetch=0)


def test_auto_chooses_by_size(face_tree: Path) -> None:
    assert build(face_tree).cache == "ram"
    assert build(face_tree, cache_gb=1e-6).cache == "none"


def test_validation_is_in_order_and_not_augmented(face_tree: Path) -> None:
    data = build(face_tree)
    images, labels = next(iter(data.val_dataloader()))
    assert len(images) == len(data.held_out)
    np.testing.assert_array_equal(labels.numpy(), data.held_out.labels)
    floats, _ = data.on_after_batch_transfer((images, labels), 0)
    np.testing.assert_array_equal(floats[3], PREPROCESS([face_tree / data.held_out.paths[3]])[0])


def test_what_a_batch_draws_follows_the_seed_and_its_number(face_tree: Path) -> None:
    def changed(seed: int, batches: int = 1) -> torch.Tensor:
        data = build(face_tree, seed=seed)
        data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
        pictures, labels = next(iter(build(face_tree).train_dataloader()))
        for _ in range(batches):
            images, _ = data.on_after_batch_transfer((pictures, labels), 0)
        return images[:]

    assert torch.equal(changed(0), changed(0))
    assert not torch.equal(changed(0), changed(1))
    assert not torch.equal(changed(0), changed(0, batches=2))


def test_virtual_people_follow_the_batch(face_tree: Path) -> None:
    def transferred(share: float, number: int = 1) -> Any:
        data = build(face_tree)
        data.augment = Augment(virtual=share, degrade=0.5)
        data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
        data._number = number
        return data.on_after_batch_transfer(data.dataset[data.sampler.batch(number)], 0)

    plain, labels = transferred(0.0)
    images, more = transferred(0.5)
    people = len(build(face_tree).train.names)
    assert (len(images), len(plain)) == (36, 24)
    assert torch.equal(images[0:24], plain[0:24]), "real faces are changed as without composites"
    assert torch.equal(more[:24], labels)
    assert (more[24:] >= people).all()
    again, same = transferred(0.5)
    assert torch.equal(again[20:36], images[20:36])
    assert torch.equal(same, more)
    assert not torch.equal(transferred(0.5, number=2)[1][24:], more[24:])


def test_repeat_batch_repeats(face_tree: Path) -> None:
    data = build(face_tree, repeat_batch=True)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.sampler) > 1
    assert all(torch.equal(images, batches[0][0]) for images, _ in batches)


def test_a_broken_image_is_met_by_a_batch_and_listed(tmp_path: Path) -> None:
    """Nothing of the training faces is opened before; the held-out ones are, since validations need them."""
    write_tree(tmp_path, 30, 4)
    for i in range(0, 30, 3):
        (tmp_path / f"p{i:03d}" / f"p{i:03d}_0001.png").write_bytes(b"broken")
    data = build(tmp_path)
    broken = {name: f"{name}/{name}_0001.png" for name in (f"p{i:03d}" for i in range(0, 30, 3))}
    assert {one.path for one in data.skipped} == {path for name, path in broken.items() if name in data.held_out.names}
    list(data.train_dataloader())
    used = {*data.train.names, *data.held_out.names}
    assert {one.path for one in data.skipped} == {path for name, path in broken.items() if name in used}
    assert all(one.reason.startswith("not a readable image") for one in data.skipped)
    data.max_bad_share = 0.05
    batches = [batch for _ in range(20) for batch in data.train_dataloader()]
    data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    with pytest.raises(
        DataError, match=r"images drawn so far \(\d+%\) can not be read, more than data.max_bad_share=0.05"
    ):
        data.on_after_batch_transfer(batches[0], 0)


@pytest.mark.parametrize(("cache", "workers"), [("none", 0), ("none", 1), ("ram", 0)])
def test_another_image_of_the_person_takes_the_place_of_one_that_has_gone(
    tmp_path: Path, cache: str, workers: int
) -> None:
    write_tree(tmp_path, 30, 4)
    data = build(tmp_path, cache=cache, workers=workers)
    wanted = [labels for _, labels in build(tmp_path).train_dataloader()]
    gone = {row for row in range(len(data.train)) if row % 4 == 1}
    for row in gone:
        (tmp_path / data.train.paths[row]).unlink()
    batches = list(data.train_dataloader())
    assert all(torch.equal(labels, before) for (_, labels), before in zip(batches, wanted, strict=True))
    for (images, _), number in zip(batches, range(len(batches)), strict=True):
        for image, row in zip(images, data.sampler.batch(number), strict=True):
            source = row + 1 if row in gone else row  # the next one of the person
            expected = PREPROCESS.read(tmp_path / data.train.paths[source], 1.25)
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert {one.path for one in data.skipped} == {data.train.paths[row] for row in gone}
    assert {one.reason for one in data.skipped} == {"no such file"}


def test_a_person_of_whom_nothing_is_left_is_replaced_by_the_next(tmp_path: Path) -> None:
    write_tree(tmp_path, 30, 4)
    data = build(tmp_path, cache="none")
    for row in range(4):
        (tmp_path / data.train.paths[row]).unlink()
    assert data.faces is not None
    assert data.faces.batch([2, 9])[1].tolist() == [4, 9]


def test_a_batch_of_which_nothing_is_left_ends_with_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path, 30, 4)
    data = build(tmp_path, cache="none")
    for path in data.train.paths:
        (tmp_path / path).unlink()
    batch = next(iter(data.train_dataloader()))
    with pytest.raises(DataError, match=r"no image of a batch can be read any more \(no such file"):
        data.on_after_batch_transfer(batch, 0)
