"""The benchmark of the enrolment gate on faces made by hand: who is enrolled, which errors are counted, the curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.enrolment_gate import CLEAR, Errors, Options, Seen, Shot, _curves, _kinds, plan, run, tables, write_plot
from facenet.errors import ConfigError
from facenet.faces.options import Gate
from facenet.faces.quality import Quality, shortcomings
from facenet.vectors import normalise

GOOD, BAD = Quality(90.0, 0.25, 0.9, 0.93), Quality(90.0, 0.02, 0.9, 0.93)


def seen(people: list[int], vectors: list[list[float]], qualities: list[Quality], kind: str = CLEAR) -> Seen:
    return Seen(np.array(people), np.array([kind] * len(people)), qualities, normalise(np.array(vectors, np.float32)))


@pytest.fixture
def enrolled() -> Seen:
    """Two people, each with a good face and one that is blurred to the same nobody."""
    return seen([0, 0, 1, 1], [[1, 0, 0], [0, 0.1, 1], [0, 1, 0], [0.1, 0, 1]], [GOOD, BAD, GOOD, BAD])


@pytest.fixture
def errors(enrolled: Seen) -> Errors:
    own = seen([0, 1], [[1, 0.1, 0], [0.1, 1, 0]], [GOOD, GOOD])
    strangers = seen([0, 1, 2, 3], [[0, 0, 1], [0, 0.1, 1], [-1, 0, 0.1], [0, -1, 0.1]], [BAD, BAD, GOOD, GOOD])
    return Errors.of(enrolled, own, strangers, threshold=1.0)


def test_errors_are_counted_by_enrolment(errors: Errors) -> None:
    assert errors.false.tolist() == [0, 0.5, 0, 0.5]
    assert errors.missed.tolist() == [0, 1, 0, 1]
    left = errors.left()
    (false, low, high), (missed, *_) = left["false"], left["missed"]
    assert (false, missed) == (0.25, 0.5)
    assert low < 0.25 < high
    assert left["false_ratio"] == left["missed_ratio"] == (1, 1, 1)
    good = errors.left(np.array([True, False, True, False]))
    assert {number for numbers in good.values() for number in numbers} == {0}
    half = errors.left(np.array([True, True, True, False]))["missed_ratio"]
    assert half[0] == pytest.approx(2 / 3)
    assert half[1] <= half[0] <= half[2] <= 1, "paired: the same draws on both sides"


def test_a_search_without_a_face_is_neither_found_nor_missed(enrolled: Seen) -> None:
    own = seen([1], [[0, 1, 0]], [GOOD])
    found = Errors.of(enrolled, own, own, threshold=1.0)
    assert np.isnan(found.missed[:2]).all()
    assert found.left()["missed"][0] == 0.5


def test_the_measure_that_tells_brings_the_errors_down_and_the_others_do_not(enrolled: Seen, errors: Errors) -> None:
    curves = _curves(enrolled, {"clear": errors, "degraded": errors}, Gate())
    half = {name: next(point for point in row if point["refused"] == 0.5) for name, row in curves["clear"].items()}
    assert half["sharpness"]["false"] == half["gate"]["false"] == (0, 0, 0)
    assert half["sharpness"]["missed"] == half["gate"]["missed"] == (0, 0, 0)
    assert {row[0]["false"][0] for row in curves["clear"].values()} == {0.25}, "nothing refused"
    assert len(curves["clear"]["side"]) == 13


def test_tables_and_the_plot_show_what_was_counted(enrolled: Seen, errors: Errors, tmp_path: Path) -> None:
    searches = {"clear": errors, "degraded": errors}
    passed = np.array([not shortcomings(one, Gate()) for one in enrolled.qualities])
    shots = [Shot(person, Path("photo")) for person in (0, 0, 0, 1, 1)]
    kinds = _kinds(shots, enrolled, passed, searches)
    assert kinds[CLEAR]["no_face"] == pytest.approx(0.2)
    assert (kinds[CLEAR]["refused"], kinds[CLEAR]["clear"]) == (0.5, {"false": 0.25, "missed": 0.5})
    result = {
        "encoder": "sface", "far": 1e-4, "enrolments": 4, "refused_by_gate": 0.5,
        "kinds": kinds,
        "gate": {name: {"all": one.left(), "passed": one.left(passed)} for name, one in searches.items()},
        "curves": _curves(enrolled, searches, Gate()),
    }  # fmt: skip
    for _, header, rows in tables(result):
        assert all(len(row) == len(header) for row in rows)
    assert tables(result)[1].rows[1][:3] == ("passed", "50.0%", "0, 0.00x (0.00 to 0.00)")
    write_plot(result, tmp_path / "plot.svg")
    assert "degraded searches" in (tmp_path / "plot.svg").read_text()


def test_nobody_is_enrolled_and_a_stranger(tmp_path: Path) -> None:
    counts = {"Ann": 3, "Bob": 1, "Cid": 2, "Dan": 1, "Eve": 2, "Not listed": 4}
    for name, count in counts.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "images" / name / f"{name}_{number}.jpg").touch()
    (tmp_path / "protocol").mkdir()
    lines = ["5", *(f"{name}\t{count}" for name, count in counts.items() if name != "Not listed")]
    (tmp_path / "protocol" / "peopleDevTest.txt").write_text("\n".join(lines) + "\n")
    enrolled, own, strangers = plan(tmp_path, Options(root=str(tmp_path), versions=2))
    assert {shot.path.parent.name for shot in (*enrolled, *own)} == {"Ann", "Cid", "Eve"}
    assert {shot.path.parent.name for shot in strangers} == {"Bob", "Dan"}
    assert not {shot.path for shot in enrolled} & {shot.path for shot in own}, "no photo searches for itself"
    assert [shot.kind == CLEAR for shot in enrolled] == [True, False, False] * 3
    for shots in (own, strangers):
        assert [shot.kind == CLEAR for shot in shots] == [True, False] * (len(shots) // 2)
    with pytest.raises(ConfigError, match=r"benchmark\.root"):
        run(Options())
