"""cluster_sheets: which clusters are shown, against loops, and pages whose pixels are the faces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facenet.clustering.sheets import _some_of_each, pick, write_sheets
from facenet.evaluation.sheets import SIDE

COLOURS = {"a": (200, 0, 0), "b": (0, 160, 0), "c": (0, 0, 220), "d": (200, 160, 0)}
#          cluster 0: a a a a b   1: c c c    2: c d   3: unknown
LABELS = np.array([0] * 5 + [1] * 3 + [2] * 2 + [3])
NAMES = [*"aaaabccccd", ""]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=40))
def test_pick_against_loops(faces: list[tuple[int, str]]) -> None:
    labels, names = np.array([label for label, _ in faces]), [name for _, name in faces]
    found = pick(labels, names, 3)
    groups = {label: [i for i in range(len(faces)) if labels[i] == label] for label in range(6)}
    foreign = {}
    for label, rows in groups.items():
        counts = Counter(names[i] for i in rows if names[i])
        foreign[label] = sum(counts.values()) - max(counts.values(), default=0)
    parts = {name: len({label for label, other in faces if other == name}) for name in "abc"}
    largest = sorted((label for label in groups if len(groups[label]) > 1), key=lambda i: (-len(groups[i]), i))[:3]
    mixed = sorted((label for label in groups if foreign[label]), key=lambda i: (-foreign[i], i))[:3]
    split = sorted((name for name in "abc" if parts[name] > 1), key=lambda name: (-parts[name], name))[:3]
    assert [rows.tolist() for rows in found.largest] == [groups[label] for label in largest]
    assert [rows.tolist() for rows in found.mixed] == [groups[label] for label in mixed]
    expected = [sorted((i for i in range(len(faces)) if names[i] == name), key=lambda i: labels[i]) for name in split]
    assert [rows.tolist() for rows in found.split] == expected


def test_some_of_each_takes_turns() -> None:
    by = np.array(["x", "y", "x", "x", "z", "y", "x"])
    assert _some_of_each(np.arange(7), by, 3) == [0, 1, 4]
    assert _some_of_each(np.arange(7), by, 4) == [0, 2, 1, 4]
    assert sorted(_some_of_each(np.arange(7), by, 99)) == list(range(7))


def write_faces(folder: Path) -> list[Path]:
    files = []
    for i, name in enumerate(NAMES):
        files.append(folder / f"{i}.png")
        Image.new("RGB", (120, 60), COLOURS.get(name, (90, 90, 90))).save(files[-1])
    return files


def test_pages_show_the_faces_of_the_chosen_clusters(tmp_path: Path) -> None:
    files = write_faces(tmp_path)
    pages = write_sheets(LABELS, NAMES, files, tmp_path / "sheets", count=2, members=4)
    assert [page.name for page in pages] == ["largest.png", "mixed.png", "split.png"]
    seen = [_colours(page) for page in pages]
    assert [COLOURS[name] in seen[0] for name in "abcd"] == [True, True, True, False]
    assert [COLOURS[name] in seen[1] for name in "abcd"] == [True, True, True, True]
    assert [COLOURS[name] in seen[2] for name in "abcd"] == [False, False, True, False]
    assert _colours(pages[0])[COLOURS["c"]] == 3 * SIDE * SIDE, "three faces, cut as the encoder does"


def _colours(file: Path) -> Counter[tuple[int, ...]]:
    with Image.open(file) as page:
        return Counter({colour: count for count, colour in page.convert("RGB").getcolors(page.width * page.height)})


def test_sorts_without_members_have_no_page(tmp_path: Path) -> None:
    files = write_faces(tmp_path)
    pure = write_sheets(np.array([0, 0, 1]), ["a", "a", "b"], files[:3], tmp_path / "pure")
    assert [page.name for page in pure] == ["largest.png"]
    unknown = write_sheets(np.array([0, 0, 0]), ["", "", ""], files[:3], tmp_path / "unknown")
    assert [page.name for page in unknown] == ["largest.png"]
    assert write_sheets(np.arange(3), ["a", "b", "c"], files[:3], tmp_path / "apart") == []


@pytest.mark.parametrize("damage", ["missing", "empty", "text"])
def test_an_image_that_can_not_be_read_is_a_grey_tile(damage: str, tmp_path: Path) -> None:
    files = write_faces(tmp_path)
    if damage == "missing":
        files[0].unlink()
    else:
        files[0].write_bytes(b"" if damage == "empty" else b"\x89PNG no picture")
    page = write_sheets(np.zeros(2, int), ["a", "a"], files[:2], tmp_path)[0]
    counts = _colours(page)
    assert SIDE * SIDE * 0.7 < counts[(221, 221, 221)] < SIDE * SIDE, "grey, with a note on it"
    assert counts[COLOURS["a"]] > 0
