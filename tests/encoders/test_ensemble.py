"""Several encoders as one: equal to the members, and an ordinary encoder everywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facenet.data.preprocess import stack
from facenet.data.views import cut_views
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.encoders.ensemble import join, reduce
from facenet.encoders.record import FILE
from facenet.encoders.reduction import fit_reduction
from facenet.errors import ConfigError, DataError
from facenet.files import read_sealed, write_sealed
from facenet.vectors import normalise
from tests.helpers.encoders import make
from tests.helpers.pictures import blob, picture

FACES = [blob(person, image, 64) for person in range(6) for image in range(3)]


def members() -> list[Encoder]:
    """Three encoders that read other parts, one without its mirror image, one with seven views."""
    seven = make(2, crop=0.8)
    return [
        make(0),
        make(1, crop=0.5, mirror=False, centre=(0.4, 0.5)),
        replace(seven, preprocess=seven.preprocess.with_views(7), fingerprint=""),
    ]


def test_vectors_are_the_members_side_by_side(tmp_path: Path) -> None:
    parts = members()
    together = join(parts)
    expected = np.concatenate([part.embed(FACES) for part in parts], 1) / np.sqrt(3)
    found = together.embed(FACES)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert together.dim == 48
    save_bundle(together, tmp_path / "e")
    again = load_bundle(tmp_path / "e")
    assert again.fingerprint == together.fingerprint
    assert np.array_equal(again.embed(FACES), found)
    assert again.training["members"] == [part.fingerprint for part in parts]
    with torch.no_grad():
        next(parts[0].model.parameters()).zero_()  # type: ignore[union-attr]
    assert np.array_equal(together.embed(FACES), found), "weights are copies"
    others = {join(parts[:2]).fingerprint, join(parts[1::-1]).fingerprint, together.fingerprint}
    assert len(others) == 3


def test_members_read_wide_pictures_as_on_their_own() -> None:
    wide = [picture(90, 120 + place) for place in range(4)]
    parts = members()
    expected = np.concatenate([part.embed(wide) for part in parts], 1) / np.sqrt(3)
    np.testing.assert_allclose(join(parts).embed(wide), expected, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda member: member.update(views=[]),
        lambda member: member.update(mirror="no"),
        lambda member: member["views"][0].update(size=[16, 32]),
        lambda member: member["views"][0].update(size=["a", 32]),
        lambda member: member["views"][0].update(crop=0.4),
        lambda member: member.pop("options"),
    ],
)
def test_damaged_records_are_refused_in_one_line(change: Callable[[Any], None], tmp_path: Path) -> None:
    save_bundle(join(members()[:2]), tmp_path / "e")
    record = read_sealed(tmp_path / "e" / FILE)
    change(record["model"]["options"]["members"][0])
    write_sealed(tmp_path / "e" / FILE, {key: value for key, value in record.items() if key != "sha256"})
    with pytest.raises(DataError, match=r"not a usable encoder|damaged encoder"):
        load_bundle(tmp_path / "e")


def test_views_are_averaged() -> None:
    plain = make(0, crop=0.8)
    seven = replace(plain, preprocess=plain.preprocess.with_views(7), fingerprint="")
    assert seven.fingerprint != plain.fingerprint
    alone = replace(plain, preprocess=replace(plain.preprocess, mirror=False), fingerprint="")
    total = np.zeros((len(FACES), 16), np.float32)
    for view in seven.preprocess.views:
        cut = [cut_views(face, [view]) for face in FACES]
        for images in (cut, [image[:, ::-1] for image in cut]):
            total += alone.embed_batch(alone.preprocess.normalise(stack(images)))
    np.testing.assert_allclose(seven.embed(FACES), normalise(total), atol=2e-6)
    assert np.abs(seven.embed(FACES) - plain.embed(FACES)).max() > 1e-3


@pytest.mark.parametrize("kind", ["pca", "whiten", "lda"])
def test_a_reduction_is_linear_and_fitted(kind: str, tmp_path: Path) -> None:
    together, labels = join(members()), np.repeat(np.arange(6), 3)
    vectors = together.embed(FACES)
    weight, bias = fit_reduction(vectors, labels, kind, 5)
    small = reduce(together, weight, bias)
    mapped = vectors @ weight.T + bias
    np.testing.assert_allclose(small.embed(FACES), normalise(mapped.astype(np.float32)), atol=1e-4)
    assert small.dim == 5
    save_bundle(small, tmp_path / "e")
    assert load_bundle(tmp_path / "e").fingerprint == small.fingerprint != together.fingerprint
    if kind == "whiten":
        np.testing.assert_allclose(np.cov(mapped, rowvar=False), np.eye(5), atol=1e-6)
    if kind == "lda":
        within = sum(np.cov(mapped[labels == person], rowvar=False) for person in range(6)) / 6
        assert np.trace(np.cov(mapped, rowvar=False)) > 2 * np.trace(within)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs the extra export")
def test_an_ensemble_is_exported_whole(tmp_path: Path) -> None:
    from facenet.encoders.onnx_file import load_onnx
    from facenet.export.onnx import export_onnx

    together = join(members())
    small = reduce(together, *fit_reduction(together.embed(FACES), np.repeat(np.arange(6), 3), "pca", 8))
    export_onnx(small, tmp_path / "net.onnx")
    np.testing.assert_allclose(load_onnx(tmp_path / "net.onnx").embed(FACES), small.embed(FACES), atol=1e-5)


def test_what_can_not_be_joined_is_refused() -> None:
    one = make(0)
    with pytest.raises(ConfigError, match=r"number 2 \(small \w+\) is number 1 again"):
        join([one, make(0)])
    with pytest.raises(ConfigError, match="got none"):
        join([])
    with pytest.raises(ConfigError, match="is an ensemble itself"):
        join([one, join([make(1), make(2)])])
    with pytest.raises(ConfigError, match="aligns or normalises faces in another way"):
        join([one, make(1, mean=(0.4, 0.4, 0.4))])
    vectors = np.random.default_rng(0).normal(size=(6, 8))
    with pytest.raises(DataError, match="6 faces do not tell 6 directions"):
        fit_reduction(vectors, np.arange(6), "pca", 6)
    with pytest.raises(DataError, match="0 people with two faces"):
        fit_reduction(vectors, np.arange(6), "lda", 2)
    with pytest.raises(ConfigError, match="dim: expected 1 to 8"):
        fit_reduction(vectors, np.arange(6), "pca", 9)
