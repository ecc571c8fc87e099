"""Queries of every kind meet the same gallery and get the same answer; strangers get none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.sources.folder import scan_folder
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError, DataError, FacenetError
from facenet.gallery.gallery import Gallery, Hit
from facenet.gallery.query import NO_MATCH, Answer, ask, converse, read, score, write_answers
from facenet.gallery.query_sheet import draw_answers
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


@pytest.fixture(scope="module")
def encoder() -> Any:
    return make()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("query") / "faces", 5, 3)


@pytest.fixture(scope="module")
def folder(tree: Path, encoder: Any) -> Path:
    embeddings, _ = embed_records(encoder, scan_folder(tree))
    embeddings.save(tree.parent / "embeddings")
    with Gallery.open(tree.parent / "gallery", create=True) as gallery:
        gallery.add(embeddings, metadata=[{"half": i % 2} for i in range(len(embeddings))])
    return tree.parent / "gallery"


def test_every_kind_of_query_gets_the_same_answer(folder: Path, tree: Path, encoder: Any, tmp_path: Path) -> None:
    image = sorted(tree.rglob("*.*"))[4]
    vector = encoder.embed([image])
    np.save(tmp_path / "one.npy", vector[0])
    np.save(tmp_path / "many.npy", np.repeat(vector, 3, 0).astype(np.float64))
    name = image.relative_to(tree).as_posix()
    with Gallery.open(folder) as gallery:
        found = {}
        for query in (image, tree, tree.parent / "embeddings", tmp_path / "one.npy", tmp_path / "many.npy"):
            queries = read(str(query), gallery, encoder)
            answers = ask(gallery, queries, k=4, threshold=4.0)
            assert len(answers) == len(queries)
            same = next(answer for answer in answers if answer.query in (name, image.name) or query.suffix == ".npy")
            found[query.name] = [(hit.rank, hit.id) for hit in same.hits]
        assert len({tuple(hits) for hits in found.values()}) == 1, found
        assert found["one.npy"][0] == (1, name)
        itself = read(name, gallery, None)
        assert itself.itself == name
        (answer,) = ask(gallery, itself, k=3, threshold=4.0)
        assert [(hit.rank + 1, hit.id) for hit in answer.hits] == found["one.npy"][1:], "all but itself"
        assert len(ask(gallery, itself, k=3, threshold=4.0, within=True)[0].hits) == 14
        one = ask(gallery, itself, k=9, threshold=4.0, by_identity=True)[0]
        assert len({hit.identity for hit in one.hits}) == len(one.hits)
        filtered = ask(gallery, itself, k=9, threshold=4.0, where={"half": 1})[0]
        assert {hit.metadata["half"] for hit in filtered.hits} == {1}


def test_the_nearest_face_is_nobody_beyond_the_threshold(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        stranger = read(next(iter(gallery.blocks()))[0][0].id, gallery, None)
        answers = ask(gallery, stranger, k=2, threshold=0.0)
        assert answers[0].match is None
        assert answers[0].name == NO_MATCH
        assert answers[0].plain()["answer"] is None
        assert [row[-2] for row in answers[0].rows()] == [NO_MATCH, NO_MATCH]
        assert ask(gallery, stranger, k=2, threshold=0.0, within=True)[0].hits == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no array", "not readable as a NumPy array"),
        (np.zeros((2, 3, 4)), "expected numbers of shape"),
        (np.array(["a"]), "not readable as a NumPy array"),
        (np.array([{}], object), "not readable as a NumPy array"),
        (np.zeros((2, 3)), "expected width"),
        (np.full((1, 16), np.nan), "NaN"),
        (np.ones((1, 16)), "not of unit length"),
    ],
)
def test_a_vector_file_that_is_none(folder: Path, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "q.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match=said):
        ask(gallery, read(str(path), gallery, None), k=1, threshold=1.0)


def test_refusals(folder: Path, tree: Path, encoder: Any) -> None:
    with Gallery.open(folder) as gallery:
        with pytest.raises(DataError, match="no such file or folder, and no id"):
            read("nobody", gallery, encoder)
        with pytest.raises(ConfigError, match="pass encoder=DIR"):
            read(str(tree), gallery, None)
        queries = read(str(tree), gallery, encoder)
        for options, said in (
            ({"k": 1, "threshold": 4.1}, "in \\[0, 4\\]"),
            ({"k": 1, "threshold": 1.0, "within": True, "by_identity": True}, "does not go with"),
            ({"k": 0, "threshold": 1.0}, "at least 1"),
        ):
            with pytest.raises(FacenetError, match=said):
                ask(gallery, queries, **options)


def test_scores_of_mates_and_strangers() -> None:
    def answer(identity: str, nearest: str, sq_dist: float) -> Answer:
        return Answer("q", identity, [Hit(1, "i", nearest, "p", sq_dist, "", {})], 0.5)

    answers = [
        answer("a", "a", 0.1), answer("a", "a", 0.9), answer("a", "b", 0.1), answer("a", "b", 0.9),
        answer("x", "a", 0.9), answer("x", "a", 0.1), answer("x", "b", 0.6), answer("", "a", 0.1),
        Answer("q", "a", [], 1.0),
    ]  # fmt: skip
    assert score(answers, {"a", "b"}) == {
        "top1": 0.5,
        "accepted_right": 0.25,
        "strangers_rejected": pytest.approx(2 / 3),
    }
    assert score([], {"a"}) == {}


def test_a_conversation_goes_on_after_a_bad_line() -> None:
    told: list[tuple[str, str]] = []

    def answer(line: str) -> list[Answer]:
        if line == "bad":
            raise DataError("bad: no such file")
        return [Answer(line, "", [], 1.0)]

    def show(found: Any, line: str) -> None:
        told.append((line, str(found) if isinstance(found, Exception) else found[0].name))

    done = converse(["one\n", "\n", "bad\n", "  two words \n"], answer, show)
    assert told == [("one", NO_MATCH), ("bad", "bad: no such file"), ("two words", NO_MATCH)]
    assert (done["answered"], done["failed"]) == (2, 1)
    assert done["seconds_median"] >= 0
    assert converse([], answer, show) == {"answered": 0, "failed": 0, "seconds_median": None}


def test_answers_as_csv_and_json(folder: Path, tmp_path: Path) -> None:
    with Gallery.open(folder) as gallery:
        first = next(iter(gallery.blocks()))[0][0].id
        answers = [*ask(gallery, read(first, gallery, None), k=2, threshold=0.5), Answer('odd, "name"', "", [], 0.5)]
    write_answers(tmp_path / "a.csv", answers)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "0"]
    assert rows[-1]["query"] == 'odd, "name"'
    assert rows[-1]["verdict"] == NO_MATCH
    plain = json.loads(json.dumps(answers[0].plain()))
    assert [one["id"] for one in plain["neighbours"]] == [row["id"] for row in rows[:2]]
    np.testing.assert_allclose(
        [float(row["sq_dist"]) for row in rows[:2]], [one["sq_dist"] for one in plain["neighbours"]]
    )


def test_a_sheet_of_answers(folder: Path, tree: Path, encoder: Any, tmp_path: Path) -> None:
    from PIL import Image

    from facenet.evaluation.sheets import GREEN, GREY, RED

    with Gallery.open(folder) as gallery:
        answers = ask(gallery, read(str(tree), gallery, encoder), k=15, threshold=0.0001)
    wrong = Answer(answers[0].query, "somebody else", answers[0].hits, 0.0001, answers[0].image)
    size = draw_answers(tmp_path / "s.png", [answers[0], wrong])
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == size
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(10**6)}
    assert {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (GREEN, RED, GREY)} <= colours
