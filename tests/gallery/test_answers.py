"""Answers: strangers are nobody, and every answer goes into a table, JSON and a sheet."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet.errors import DataError
from facenet.evaluation.sheets import GREEN, GREY, RED
from facenet.evaluation.thresholds import SearchThreshold
from facenet.gallery.answers import NO_MATCH, Answer, _frame, ask, converse, draw_answers, score, write_answers
from facenet.gallery.gallery import Gallery, Hit
from facenet.gallery.queries import read_queries


def test_the_nearest_face_is_nobody_beyond_the_threshold(photo_gallery: Path) -> None:
    with Gallery.open(photo_gallery) as gallery:
        stranger = read_queries(next(iter(gallery.blocks()))[0][0].id, gallery, None)
        answers = ask(gallery, stranger, k=2, threshold=0.0)
        assert answers[0].match is None
        assert answers[0].name == NO_MATCH
        assert answers[0].plain()["answer"] is None
        assert [row[-2] for row in answers[0].rows()] == [NO_MATCH, NO_MATCH]
        assert ask(gallery, stranger, k=2, threshold=0.0, within=True)[0].hits == []


def test_an_answer_says_why() -> None:
    known = SearchThreshold(1.02, {"old": 1.5}, "fpir", 0.05, 1000, strangers=0.05)
    cost = "At this threshold 5 % of strangers find a match among these 1,000 faces."

    def why(threshold: SearchThreshold, *found: tuple[str, float, str]) -> str:
        hits = [Hit(1, "a/1.jpg", name, "p", sq_dist, "", {}, encoder) for name, sq_dist, encoder in found]
        answer = Answer("q", "", hits, threshold)
        assert answer.plain()["why"] == answer.why
        return answer.why

    assert why(known, ("Ann", 0.71, "")) == f"The nearest face is Ann's, at 0.71, within the threshold of 1.02. {cost}"
    beyond = f"No match: the nearest face, Ann's, at 1.31, is beyond the threshold of 1.02. {cost}"
    assert why(known, ("Ann", 1.31, ""), ("Bob", 1.9, "")) == beyond
    assert why(known, ("", 1.0206, "")).startswith(
        "No match: the nearest face, a/1.jpg without a name, at 1.021, is beyond the threshold of 1.020. At"
    )
    old = "The nearest face that matches is Bob's, at 1.40, within the threshold of 1.50. At"
    assert why(known, ("Ann", 1.31, ""), ("Bob", 1.4, "old")).startswith(old)
    assert why(known) == "No match: there is no face to compare with."
    often = SearchThreshold(1.02, kind="far", rate=0.001, faces=1234, strangers=0.632)
    assert why(often, ("Ann", 1.02, "")).endswith(
        "within the threshold of 1.02. At this threshold, far=0.001, 63 % of strangers find a match among these 1,234 "
        "faces, and a stranger matches 1 of them on average."
    )
    one = SearchThreshold(1.02, faces=1, strangers=1.0)
    assert why(one, ("Ann", 1.02, "")).endswith("this threshold 100 % of strangers find a match among this one face.")
    assert why(SearchThreshold(1.0), ("Ann", 0.5, "")).endswith("run facenet calibrate.")


def test_false_matches_are_those_of_poisson() -> None:
    def expected(strangers: float | None, faces: int = 100) -> float | None:
        return SearchThreshold(1.0, faces=faces, strangers=strangers).false_matches

    assert expected(None) is None
    assert expected(0.0) == 0.0
    assert expected(0.05) == pytest.approx(0.0513, abs=1e-4)
    assert expected(1 - np.exp(-3.0)) == pytest.approx(3.0)
    assert (expected(1.0), expected(1.0, 0), expected(0.9, 1)) == (100.0, 0.0, 1.0)
    rng = np.random.default_rng(0)
    matches = rng.binomial(1000, 0.0007, size=20_000)  # of strangers, each face with far = 0.0007
    assert expected(float((matches > 0).mean()), 1000) == pytest.approx(matches.mean(), rel=0.03)


def test_scores_of_mates_and_strangers() -> None:
    def answer(identity: str, nearest: str, sq_dist: float) -> Answer:
        return Answer("q", identity, [Hit(1, "i", nearest, "p", sq_dist, "", {})], SearchThreshold(0.5))

    answers = [
        answer("a", "a", 0.1), answer("a", "a", 0.9), answer("a", "b", 0.1), answer("a", "b", 0.9),
        answer("x", "a", 0.9), answer("x", "a", 0.1), answer("x", "b", 0.6), answer("", "a", 0.1),
        Answer("q", "a", [], SearchThreshold(1.0)),
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
        time.sleep(0.01)
        return [Answer(line, "", [], SearchThreshold(1.0))]

    def show(found: Any, line: str) -> None:
        told.append((line, str(found) if isinstance(found, Exception) else found[0].name))

    done = converse(["one\n", "\n", "bad\n", "  two words \n"], answer, show)
    assert told == [("one", NO_MATCH), ("bad", "bad: no such file"), ("two words", NO_MATCH)]
    assert (done["answered"], done["failed"]) == (2, 1)
    assert 0.01 <= done["seconds_median"] < 5
    assert converse([], answer, show) == {"answered": 0, "failed": 0, "seconds_median": None}


def test_answers_as_csv_and_json(photo_gallery: Path, tmp_path: Path) -> None:
    with Gallery.open(photo_gallery) as gallery:
        first = next(iter(gallery.blocks()))[0][0].id
        answers = [
            *ask(gallery, read_queries(first, gallery, None), k=2, threshold=0.5),
            Answer('odd, "name"', "", [], SearchThreshold(0.5)),
        ]
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


def test_a_sheet_of_answers(photo_gallery: Path, photos: Path, small_encoder: Any, tmp_path: Path) -> None:
    with Gallery.open(photo_gallery) as gallery:
        answers = ask(gallery, read_queries(str(photos), gallery, small_encoder), k=15, threshold=0.0001)
    wrong = Answer(answers[0].query, "somebody else", answers[0].hits, SearchThreshold(0.0001), answers[0].image)
    size = draw_answers(tmp_path / "s.png", [answers[0], wrong])
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == size
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(10**6)}
    assert {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (GREEN, RED, GREY)} <= colours


@pytest.mark.parametrize(
    ("asked", "found", "accepted", "colour"),
    [
        ("a", "a", True, GREEN),
        ("a", "b", True, RED),
        ("a", "", True, RED),
        ("", "b", True, GREEN),
        ("a", "a", False, GREY),
    ],
)
def test_colours_of_frames(asked: str, found: str, accepted: bool, colour: str) -> None:
    hit = Hit(1, "i", found, "p", 1.0 if accepted else 1.1, "", {})
    assert _frame(Answer("q", asked, [hit], SearchThreshold(1.0)), hit) == colour
