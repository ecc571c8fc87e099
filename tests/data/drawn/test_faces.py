"""Drawn identities: determinism, disjoint people, difficulty, cache, folder, and what must not suffice."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.drawn import faces as synthetic
from facenet.data.drawn.faces import SyntheticFaces, draw, write_folder
from facenet.data.drawn.people import COVERS, IDENTITY, NAMES, sample_picture
from facenet.data.options import DrawnOptions
from facenet.errors import ConfigError

SMALL = range(3), 4, DrawnOptions(size=32, difficulty=0.5)


def best_accuracy(score: np.ndarray, same: np.ndarray) -> float:
    """Accuracy of the best threshold on the pairs themselves: never below what ten folds would give."""
    order = np.argsort(-score, kind="stable")
    right = np.cumsum(same[order]) + np.sum(~same) - np.cumsum(~same[order])
    return float(max(right.max(), np.sum(~same)) / len(same))


def balanced_pairs(people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    negatives = np.random.default_rng(0).choice(np.flatnonzero(~same), same.sum(), replace=False)
    rows = np.concatenate([np.flatnonzero(same), negatives])
    return first[rows], second[rows], same[rows]


def cosine(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.sum(vectors[first] * vectors[second], axis=1)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return draw(range(40), 8, DrawnOptions(size=64, difficulty=0.5))


def test_same_seed_same_pictures_and_another_seed_other_people() -> None:
    one, two, other = draw(*SMALL), draw(*SMALL), draw(*SMALL, seed=1)
    assert one.images.shape == (12, 32, 32, 3)
    assert one.images.dtype == np.uint8
    assert list(one.identities[[0, 4, 11]]) == ["person_0000", "person_0001", "person_0002"]
    assert list(one.numbers[:5]) == [0, 1, 2, 3, 0]
    np.testing.assert_array_equal(one.images, two.images)
    assert np.abs(one.images.astype(float) - other.images).mean() > 10


@pytest.mark.parametrize("workers", [1, 3])
def test_a_picture_does_not_depend_on_how_many_are_drawn(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(range(10, 15), 7, DrawnOptions(size=40))
    monkeypatch.setattr("os.cpu_count", lambda: workers)
    part = draw(range(12, 14), 3, DrawnOptions(size=40))
    rows = [14, 15, 16, 21, 22, 23]
    assert list(whole.identities[rows]) == list(part.identities)
    np.testing.assert_array_equal(whole.images[rows], part.images)


def test_people_of_disjoint_ranges_differ_even_without_nuisance() -> None:
    plain = draw(range(30), 2, DrawnOptions(size=48, difficulty=0.0)).images.astype(float)
    person, twin = plain[::2], plain[1::2]
    away = np.abs(person[:, None] - twin[None]).mean((2, 3, 4))
    others = away + np.where(np.eye(30, dtype=bool), np.inf, 0)
    assert np.diag(away).max() < 3
    assert others.min() > 2 * np.diag(away).max()


def test_a_range_of_counts_gives_single_pictures_and_is_fixed_by_the_person() -> None:
    many = draw(range(40), (1, 4), DrawnOptions(size=32))
    counts = np.unique(many.identities, return_counts=True)[1]
    assert set(counts) == {1, 2, 3, 4}
    late = draw(range(20, 40), (1, 4), DrawnOptions(size=32))
    np.testing.assert_array_equal(np.unique(late.identities, return_counts=True)[1], counts[20:])


def test_difficulty_reaches_farther_with_the_same_luck() -> None:
    spread, covers = [], []
    for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0):
        faces = draw(range(12), 4, DrawnOptions(size=40, difficulty=difficulty))
        images = faces.images.reshape(12, 4, -1).astype(float)
        spread.append(np.abs(images[:, :2] - images[:, 2:]).mean())
        values = [sample_picture(0, person, 0, difficulty).values for person in range(200)]
        covers.append(np.stack(values)[:, -len(COVERS) :])
    assert spread[0] < 3
    assert all(near + 3 < far for near, far in itertools.pairwise(spread)), spread
    assert all(np.all(near <= far) for near, far in itertools.pairwise(covers))
    assert covers[0].sum() == 0
    assert covers[-1].sum() > 50


def test_no_single_attribute_tells_people_apart_but_all_together_do() -> None:
    values = np.stack([sample_picture(0, i // 4, i % 4, 0.5).values[: len(IDENTITY)] for i in range(200 * 4)])
    low, high = np.array(list(IDENTITY.values())).T
    first, second, same = balanced_pairs(np.arange(len(values)) // 4)
    away = np.abs(values[first] - values[second]) / (high - low)
    each = {name: best_accuracy(-away[:, i], same) for i, name in enumerate(NAMES[: len(IDENTITY)])}
    assert max(each.values()) < 0.8, max(each, key=each.__getitem__)
    assert min(each.values()) > 0.6  # and each of them says something
    assert best_accuracy(-away.sum(1), same) > 0.99


@pytest.mark.slow  # draws faces of 200 people
def test_pixels_and_colours_do_not_tell_people_apart(faces: SyntheticFaces) -> None:
    first, second, same = balanced_pairs(faces.identities)
    grey = faces.images.mean(3).reshape(len(faces.images), -1)
    bins = (faces.images // 32).astype(int) @ np.array([64, 8, 1])
    colours = np.stack([np.bincount(image.ravel(), minlength=512) for image in bins]).astype(float)
    mean = faces.images.mean((1, 2))
    scores = {
        "grey": cosine(grey, first, second),
        "centred grey": cosine(grey - grey.mean(1, keepdims=True), first, second),
        "histogram": np.minimum(colours[first], colours[second]).sum(1),
        "mean colour": -np.linalg.norm(mean[first] - mean[second], axis=1),
    }
    accuracy = {name: best_accuracy(score, same) for name, score in scores.items()}
    assert max(accuracy.values()) < 0.78, accuracy


def test_cache_is_read_again_or_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".0123.npy.abcdefgh.tmp").write_bytes(b"of a killed run")
    first = draw(*SMALL, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.npy")
    assert isinstance(first.images, np.memmap)
    np.testing.assert_array_equal(first.images, draw(*SMALL).images)

    whole = file.read_bytes()
    flipped = whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:]
    for damaged in (whole[: len(whole) // 2], flipped, b"not an array", b""):
        file.unlink()  # not in place: `first` still maps the file
        file.write_bytes(damaged)
        np.testing.assert_array_equal(draw(*SMALL, cache_dir=tmp_path).images, first.images)
        assert file.read_bytes() == whole
    file.with_suffix(".json").write_text("{")
    np.testing.assert_array_equal(draw(*SMALL, cache_dir=tmp_path).images, first.images)

    monkeypatch.setattr(synthetic, "render", None)  # from here on nothing can be drawn
    again = draw(*SMALL, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.images, first.images)
    with pytest.raises(TypeError):
        draw(*SMALL, cache_dir=tmp_path, seed=1)
    monkeypatch.undo()
    draw(*SMALL[:2], DrawnOptions(size=32, difficulty=0.4), cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert len(list(tmp_path.iterdir())) == 4


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    draw(*SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (12, 12)
    assert sorted(calls) == calls


def test_write_folder_has_the_layout_of_lfw(tmp_path: Path) -> None:
    from PIL import Image

    faces = draw(*SMALL)
    files = write_folder(faces, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == faces.paths
    assert faces.paths[5] == "person_0001/person_0001_0002.jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["person_0000", "person_0001", "person_0002"]
    with Image.open(files[5]) as image:
        away = np.abs(np.asarray(image, float) - faces.images[5]).mean()
    assert away < 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": 1.5}, "difficulty: expected .* at most 1, got 1.5"),
        ({"difficulty": float("nan")}, "difficulty"),
        ({"size": 31}, "size: expected .* at least 32, got 31"),
        ({"evaluation_identities": 0}, "evaluation_identities: .* got 0"),
        ({"train_images": (0, 2)}, "train_images: .* got 0"),
        ({"train_images": (4, 2)}, r"train_images: .* got \[4, 2\]"),
        ({"held_out_images": (1, 2, 3)}, "held_out_images"),
    ],
)
def test_bad_options_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DrawnOptions(**change)


def test_import_needs_no_torch() -> None:
    code = "import sys, facenet.data.drawn.faces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
