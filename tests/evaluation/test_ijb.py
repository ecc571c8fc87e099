"""Templates, pairs and searches equal the arithmetic of eval_ijbc.py and of the 1:N protocol in plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from facenet.data.ijb import TemplateList, read_ijb, read_template_pairs
from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation.ijb import (
    embed_templates,
    face_cutter,
    identify_templates,
    template_vectors,
    verify_templates,
)
from facenet.faces.alignment import Alignment
from tests.helpers.encoders import make
from tests.helpers.ijb import POINTS, write_ijb

RATES = (1e-1, 1e-2, 1e-3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ijb(tmp_path_factory.mktemp("ijb") / "IJBC", people=6)


def templates_by_loops(vectors: np.ndarray, templates: np.ndarray, media: np.ndarray, scores: np.ndarray) -> dict:
    """Weigh faces, take the mean of each medium, the sum of a template, and its direction."""
    found = {}
    for template in np.unique(templates):
        total = np.zeros(vectors.shape[1])
        for medium in np.unique(media[templates == template]):
            rows = [row for row in range(len(vectors)) if templates[row] == template and media[row] == medium]
            total += sum(vectors[row].astype(float) * float(scores[row]) for row in rows) / len(rows)
        found[int(template)] = total / np.sqrt((total**2).sum())
    return found


def made(faces: int = 900, templates: int = 150, dim: int = 16, noise: float = 1.2) -> tuple[np.ndarray, ...]:
    """Vectors of faces of 30 people, in five templates each, with media and scores."""
    rng = np.random.default_rng(1)
    of = np.concatenate([np.arange(templates), rng.integers(0, templates, faces - templates)]) + 1000
    vectors = rng.normal(size=(30, dim))[(of - 1000) % 30] + noise * rng.normal(size=(faces, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors, of, rng.integers(0, 4, faces), rng.uniform(0.1, 1, faces).astype(np.float32)


@pytest.mark.parametrize("weighed", [True, False])
def test_templates_and_their_pairs_equal_eval_ijbc(weighed: bool) -> None:
    vectors, of, media, scores = made()
    weights = scores if weighed else np.ones(len(scores), np.float32)
    found = template_vectors(vectors, of, media, weights)
    wanted = templates_by_loops(vectors, of, media, weights)
    assert found.templates.tolist() == sorted(wanted)
    np.testing.assert_allclose(found.vectors, [wanted[one] for one in sorted(wanted)], atol=1e-12)
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, len(wanted), (2, 20_000))
    labels = first % 30 == second % 30
    blocks = [(first[at : at + 999], second[at : at + 999], labels[at : at + 999]) for at in range(0, 20_000, 999)]
    measured = verify_templates(found, blocks, RATES)
    cosines = [wanted[1000 + a] @ wanted[1000 + b] for a, b in zip(first, second, strict=True)]
    fpr, tpr, _ = roc_curve(labels, cosines)
    fpr, tpr = fpr[::-1], tpr[::-1]
    every = roc_curve(labels, cosines, drop_intermediate=False)
    for rate, row in zip(RATES, measured["tar_at_far"].values(), strict=True):
        nearest = min(zip(abs(fpr - rate), range(len(fpr)), strict=True))[1]
        assert row["tar_at_nearest_far"] == pytest.approx(tpr[nearest], abs=1e-6)
        assert row["tar"] == pytest.approx(every[1][every[0] <= rate].max(), abs=1e-6)
        assert 0.05 < row["tar"] < 0.999, "not trivial"
    assert (measured["pairs"], measured["same"]) == (20_000, int(labels.sum()))


def test_ties_are_one_point_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    corners = template_vectors(np.eye(8, dtype=np.float32)[rng.integers(0, 8, 60)], np.arange(60), np.zeros(60, int))
    first, second = rng.integers(0, 60, (2, 4000))
    labels = (corners.vectors[first] == corners.vectors[second]).all(1) ^ (rng.random(4000) < 0.2)
    cosines = (corners.vectors[first] * corners.vectors[second]).sum(1)
    measured = verify_templates(corners, [(first, second, labels)], (0.3, 0.01))
    fpr, tpr, _ = roc_curve(labels, cosines)
    for rate, row in zip((0.3, 0.01), measured["tar_at_far"].values(), strict=True):
        best = min(zip(abs(fpr[::-1] - rate), range(len(fpr)), strict=True))[1]
        assert row["tar_at_nearest_far"] == pytest.approx(tpr[::-1][best], abs=1e-6)


def test_searches_equal_loops_over_probes() -> None:
    vectors, of, media, scores = made()
    templates = template_vectors(vectors, of, media, scores)
    numbers = np.arange(150)
    people = numbers % 30
    galleries = {
        "S1": TemplateList(1000 + numbers[:12], people[:12]),
        "S2": TemplateList(1000 + numbers[12:20], people[12:20]),
    }
    probes = TemplateList(1000 + numbers[30:], people[30:])
    found = identify_templates(templates, galleries, probes)
    right = mated = 0
    for name, gallery in galleries.items():
        ranks, own, strangers = [], [], []
        for row, person in zip(numbers[30:], people[30:], strict=True):
            cosines = templates.rows(gallery.templates) @ templates.vectors[row]
            if person in gallery.people:
                mine = cosines[gallery.people == person][0]
                ranks.append(1 + int((cosines[gallery.people != person] >= mine).sum()))
                own.append(mine)
            else:
                strangers.append(cosines.max())
        for k in (1, 5, 10):
            assert found[name]["cmc"][str(k)] == pytest.approx(np.mean(np.array(ranks) <= k), abs=1e-6)
        for fpir, key in ((0.1, "1e-1"), (0.01, "1e-2")):
            row = found[name]["tpir_at_fpir"][key]
            cuts = [cut for cut in [*own, *strangers] if np.mean(np.array(strangers) >= cut) <= fpir]
            hits = [np.mean((np.array(own) >= cut) & (np.array(ranks) == 1)) for cut in cuts]
            assert row["tpir"] == (pytest.approx(max(hits), abs=1e-6) if fpir * len(strangers) >= 1 else None)
        right, mated = right + sum(rank <= 5 for rank in ranks), mated + len(ranks)
    assert found["mean"]["cmc"]["5"] == pytest.approx(right / mated, abs=1e-6)
    assert found["mean"]["tpir_at_fpir"]["1e-1"] == pytest.approx(
        np.mean([found[name]["tpir_at_fpir"]["1e-1"]["tpir"] for name in galleries])
    )
    assert 0.2 < found["S1"]["rank1"] < 1, "not trivial"


@pytest.mark.parametrize("batch_size", [7, 256])
def test_a_folder_is_cut_embedded_and_added_up(root: Path, batch_size: int) -> None:
    encoder, found = make(), read_ijb(root)
    told: list[tuple[int, int]] = []
    templates = embed_templates(
        encoder, found.faces, batch_size=batch_size, progress=lambda done, total: told.append((done, total))
    )
    cut = face_cutter(encoder.preprocess)
    faces = [
        cut(found.faces.folder / image, points)
        for image, points in zip(found.faces.images, found.faces.landmarks, strict=True)
    ]
    wanted = templates_by_loops(encoder.embed(faces), found.faces.templates, found.faces.media, found.faces.scores)
    np.testing.assert_allclose(templates.vectors, [wanted[one] for one in sorted(wanted)], atol=1e-5)
    assert told[-1] == (len(faces), len(faces))
    measured = verify_templates(templates, read_template_pairs(found.pairs, templates.templates, block=10), (0.1,))
    assert (measured["pairs"], measured["same"]) == (6 * 12, 12)
    assert measured["tar_at_far"]["1e-1"]["tar"] > 0.5


def test_landmarks_count_from_the_centre_of_a_pixel(tmp_path: Path) -> None:
    """A face that lies on the template already is returned as it is, half a pixel aside."""
    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels[40:60, 50:70] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    same = face_cutter(Preprocess(size=(112, 112)))(tmp_path / "a.png", POINTS - 0.5)
    assert np.abs(same.astype(int) - pixels).mean() < 3
    large = Image.fromarray(pixels).resize((224, 224), Image.Resampling.NEAREST)
    large.save(tmp_path / "b.png")
    half = face_cutter(Preprocess(size=(112, 112)))(tmp_path / "b.png", 2 * POINTS - 0.5)
    assert np.abs(half.astype(int) - pixels).mean() < 5


def test_the_encoders_own_template_is_used(root: Path) -> None:
    found = read_ijb(root)
    file, points = found.faces.folder / found.faces.images[0], found.faces.landmarks[0]
    own = Preprocess(size=(64, 64), align=Alignment(margin=2.0, size=128), crop=0.5)
    plain = Preprocess(size=(64, 64))
    assert np.abs(face_cutter(own)(file, points).astype(int) - face_cutter(plain)(file, points)).mean() < 6
    assert np.abs(face_cutter(plain, 2.0)(file, points).astype(int) - face_cutter(plain)(file, points)).mean() > 6
    with pytest.raises(ConfigError, match="cut by boxes"):
        face_cutter(Preprocess(align=Alignment(template="box")))


def test_what_can_not_be_scored_is_refused(root: Path, tmp_path: Path) -> None:
    vectors, of, media, scores = made()
    with pytest.raises(DataError, match=r"template 1003: .*weigh_by_score=false"):
        template_vectors(vectors, of, media, np.where(of == 1003, 0, scores))
    found = template_vectors(vectors, of, media)
    with pytest.raises(DataError, match="of one person and of two, got 5 and 0"):
        verify_templates(found, [(np.arange(5), np.arange(5), np.ones(5, bool))])
    encoder, faces = make(), read_ijb(root).faces
    with pytest.raises(DataError, match=r"\.jpg: no such file"):
        embed_templates(encoder, faces._replace(folder=tmp_path))
    assert isinstance(encoder, Encoder)
