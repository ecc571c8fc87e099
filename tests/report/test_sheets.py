"""Which faces a report shows, against plain loops, and that they become small pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet.report.page import Picture
from facenet.report.parts import Evaluation
from facenet.report.sheets import (
    Faces,
    cluster_sheets,
    find_clusters,
    find_triplets,
    map_rows,
    mistake_sheets,
    mistakes,
    triplet_sheet,
)
from facenet.types import EmbeddingSet
from facenet.vectors import normalise, sq_dist
from tests.helpers.pictures import write_tree
from tests.helpers.reports import faces


def evaluation(embeddings: EmbeddingSet, thumbnails: Any = None) -> Evaluation:
    """Every pair of the first 30 faces."""
    first, second = np.triu_indices(min(30, len(embeddings)), 1)
    names = np.asarray(embeddings.identities)
    distances = sq_dist(embeddings.vectors[first], embeddings.vectors[second]).astype(np.float64)
    same = names[first] == names[second]
    return Evaluation(embeddings, first, second, same, np.zeros(len(first), np.int64), distances, thumbnails)


def opened(picture: Picture) -> Image.Image:
    kind, _, data = picture.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_mistakes_are_the_wrong_pairs_the_worst_first() -> None:
    found = evaluation(faces())
    threshold = 0.9
    accepts, rejects = mistakes(found, threshold)
    rows = range(len(found.same))
    expected = [i for i in rows if not found.same[i] and found.sq_dist[i] <= threshold]
    assert accepts.tolist() == sorted(expected, key=lambda i: found.sq_dist[i])
    expected = [i for i in rows if found.same[i] and found.sq_dist[i] > threshold]
    assert rejects.tolist() == sorted(expected, key=lambda i: -found.sq_dist[i])
    assert len(accepts) > 0 < len(rejects)


def test_the_sheets_count_all_mistakes_and_show_the_worst() -> None:
    embeddings = faces()
    images = np.zeros((len(embeddings), 8, 8, 3), np.uint8)
    found = evaluation(embeddings, images)
    sheets = mistake_sheets(found, Faces(found, None, 40), 1.6)
    accepts, rejects = mistakes(found, 1.6)
    assert len(accepts) > 12
    assert [len(sheet.tiles) for sheet in sheets] == [12, min(12, len(rejects))]
    assert sheets[0].caption.startswith(f"{len(accepts)} pairs of different people taken for one, the worst 12 shown")
    assert mistake_sheets(found, Faces(found, None, 40), 0.0)[0].tiles == []


def test_triplets_are_semi_hard_with_the_nearest_negative_and_the_largest_loss() -> None:
    embeddings, margin = faces(noise=1.2), 0.2
    names, vectors = embeddings.identities, embeddings.vectors.astype(np.float64)

    def d(i: int, j: int) -> float:
        return float(((vectors[i] - vectors[j]) ** 2).sum())

    best: dict[int, float] = {}
    for a in range(len(names)):
        if a and names[a - 1] == names[a]:
            continue  # the anchor is the first face of a person
        for p in (i for i in range(len(names)) if names[i] == names[a] and i != a):
            nearest = [
                d(a, n) for n in range(len(names)) if names[n] != names[a] and d(a, p) < d(a, n) < d(a, p) + margin
            ]
            if nearest:
                best[a] = min(best.get(a, 9.0), min(nearest) - d(a, p))
    found = find_triplets(embeddings, margin, count=100)
    assert len(best) > 5
    assert {t.anchor: t.to_negative - t.to_positive for t in found} == pytest.approx(best, abs=1e-5)
    for t in found:
        assert names[t.anchor] == names[t.positive] != names[t.negative]
        assert t.to_positive == pytest.approx(d(t.anchor, t.positive), abs=1e-5)
        assert 0 < t.to_negative - t.to_positive < margin
    gaps = [t.to_negative - t.to_positive for t in found]
    assert gaps == sorted(gaps)


def test_no_triplet_without_two_faces_of_a_person_or_another_person() -> None:
    for identities in (["a", "b", "c"], ["a", "a", "a"], ["", "", ""]):
        vectors = normalise(np.random.default_rng(0).normal(size=(3, 4)))
        assert find_triplets(EmbeddingSet(vectors, ["1", "2", "3"], identities, ""), 4.0) == []


def test_clusters_shown_are_the_largest_the_most_mixed_and_the_most_split() -> None:
    corners = np.eye(5, dtype=np.float32)
    #      cluster 0: a a a a b   1: c c c    2: c d   3: e
    rows = [0] * 5 + [1] * 3 + [2] * 2 + [3]
    names = list("aaaabccccde")
    found = find_clusters(EmbeddingSet(corners[rows], [f"{i}" for i in range(11)], names, ""), 0.5)
    assert [group.tolist() for group in found.largest] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    assert [group.tolist() for group in found.mixed] == [[0, 1, 2, 3, 4], [8, 9]]
    assert [group.tolist() for group in found.split] == [[5, 6, 7, 8]]
    sheets = cluster_sheets(Faces(_of(names, corners[rows]), None, 40), found)
    assert [sheet.caption.split()[1] for sheet in sheets] == ["largest", "most", "most"]
    assert sheets[0].tiles[0].caption == "2 people: 5 faces in one cluster"
    assert sheets[2].tiles[0].caption == "c: 4 faces in 2 clusters"


def _of(names: list[str], vectors: np.ndarray) -> Evaluation:
    embeddings = EmbeddingSet(vectors, [f"{i}.png" for i in range(len(names))], names, "")
    return evaluation(embeddings, np.zeros((len(names), 8, 8, 3), np.uint8))


def test_a_map_has_few_people_and_few_faces() -> None:
    embeddings = faces(30, 6)
    rows = map_rows(embeddings, people=20, faces=60)
    names = [embeddings.identities[row] for row in rows]
    assert len(rows) == 60
    assert len(set(names)) == 20
    assert max(names.count(name) for name in set(names)) == 3
    assert len(map_rows(EmbeddingSet(embeddings.vectors[:2], ["a", "b"], ["", ""], ""))) == 0


def test_thumbnails_become_pictures_no_larger_than_asked() -> None:
    embeddings = faces(2, 2)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    shown = Faces(evaluation(embeddings, images), None, 40)
    assert shown.there
    assert opened(shown.picture(1)).size == (40, 40)
    assert shown.picture(1).alt == "face of person 00"
    assert opened(Faces(evaluation(embeddings, images), None, 96).picture(1)).size == (64, 64), "never enlarged"


def test_files_are_cut_as_the_encoder_cuts_them(tmp_path: Path) -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[25:75, 25:75] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).save(tmp_path / "a" / "1.png")
    vectors = normalise(np.ones((2, 4)))
    embeddings = EmbeddingSet(vectors, ["a/1.png", "a/gone.png"], ["a", "a"], "", str(tmp_path))
    cut = {"preprocessing": {"size": [64, 48], "crop": 0.4}}
    shown = Faces(evaluation(embeddings), cut, 80)
    assert shown.there
    image = opened(shown.picture(0))
    assert image.size == (60, 80), "the aspect of the encoder's input, at the size of the page"
    assert np.asarray(image).min() > 240, "the middle 40 % is white"
    assert "not readable" in shown.picture(1).alt


def test_without_files_there_is_nothing_to_show(tmp_path: Path) -> None:
    write_tree(tmp_path, 1, 1)
    vectors = normalise(np.ones((1, 4)))
    for root, there in ((str(tmp_path / "gone"), False), (str(tmp_path), True), ("", False)):
        embeddings = EmbeddingSet(vectors, ["p000/p000_0001.png"], ["a"], "", root)
        assert Faces(evaluation(embeddings), None, 40).there is there


def test_a_triplet_is_three_pictures_in_order() -> None:
    embeddings = faces(noise=1.2)
    shades = (np.arange(len(embeddings), dtype=np.uint8) * 3)[:, None, None, None]
    found = evaluation(embeddings, np.broadcast_to(shades, (len(embeddings), 16, 16, 3)))
    triplets = find_triplets(embeddings, 0.2)
    sheet = triplet_sheet(Faces(found, None, 16), triplets, 0.2)
    seen = [[int(np.asarray(opened(p)).mean().round()) // 3 for p in tile.pictures] for tile in sheet.tiles]
    assert seen == [list(triplet[:3]) for triplet in triplets]
