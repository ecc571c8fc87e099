"""pairs: LFW's formats and ours, read and written; what is malformed is named; drawn pairs keep their promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.options import PairColumns
from facenet.data.pairs import pair_rows, read_pairs, read_people, write_pairs
from facenet.errors import DataError
from facenet.types import Pairs

VIEW2 = "2\t1\nAda\t1\t2\nAda\t1\tBob\t3\nCy\t4\t12\nCy\t1\tDora_Eve\t10000\n"


def write(folder: Path, text: str | bytes, name: str = "pairs.txt") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def equal(one: Pairs, two: Pairs) -> bool:
    arrays = np.array_equal(one.same, two.same) and np.array_equal(one.fold, two.fold)
    return arrays and (one.first, one.second) == (two.first, two.second)


@pytest.mark.parametrize("text", [VIEW2, VIEW2.replace("\n", "\r\n"), VIEW2 + "\n\n  \n", "\ufeff" + VIEW2, VIEW2[:-1]])
def test_view_2(tmp_path: Path, text: str) -> None:
    pairs = read_pairs(write(tmp_path, text))
    assert pairs.first == ("Ada/Ada_0001", "Ada/Ada_0001", "Cy/Cy_0004", "Cy/Cy_0001")
    assert pairs.second == ("Ada/Ada_0002", "Bob/Bob_0003", "Cy/Cy_0012", "Dora_Eve/Dora_Eve_10000")
    assert (pairs.same.tolist(), pairs.fold.tolist()) == ([True, False] * 2, [0, 0, 1, 1])
    assert (pairs.same.dtype, pairs.fold.dtype) == (np.bool_, np.int64)


def test_view_1_is_cut_into_ten_equal_parts(tmp_path: Path) -> None:
    lines = ["20", *(f"A\t{i}\t{i + 1}" for i in range(1, 21)), *(f"A\t{i}\tB\t{i}" for i in range(1, 21))]
    pairs = read_pairs(write(tmp_path, "\n".join(lines)))
    for fold in range(10):
        assert pairs.same[pairs.fold == fold].tolist() == [True, True, False, False]
    assert pairs.fold[:20].tolist() == [i // 2 for i in range(20)]
    few = read_pairs(write(tmp_path, "2\nA\t1\t2\nA\t3\t4\nA\t1\tB\t2\nA\t1\tC\t1\n"))
    assert few.fold.tolist() == [0, 1, 0, 1]


def test_csv_with_and_without_folds(tmp_path: Path) -> None:
    text = "first,second,same,fold\na/1.jpg,a/2.png,1,3\nb/1.jpg,a/2.png,no,4\n"
    pairs = read_pairs(write(tmp_path, text))
    assert (pairs.first, pairs.second) == (("a/1", "b/1"), ("a/2", "a/2"))
    assert (pairs.same.tolist(), pairs.fold.tolist()) == ([True, False], [3, 4])
    lines = [f"a/{i}.jpg,a/{i + 1}.jpg,true\na/{i}.jpg,b/{i}.jpg,false" for i in range(10)]
    cut = read_pairs(write(tmp_path, "\r\n".join(["First, Second, Same", *lines])))
    assert cut.fold.tolist() == [i // 2 for i in range(20)]


def test_a_table_of_another_tool_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path, "file_x,file_y,Decision,Note\nimg1.jpg,img2.jpg,Yes,\nimg1.jpg,img3.jpg,No,x\n", "master.csv"
    )
    names = {"first": "file_x", "second": "file_y", "same": "Decision"}
    for columns in (PairColumns(**names), PairColumns(**names, yes="yes")):
        pairs = read_pairs(path, columns)
        assert (pairs.first, pairs.second) == (("img1", "img1"), ("img2", "img3"))
        assert pairs.same.tolist() == [True, False]
    assert read_pairs(path, PairColumns(**names, yes="no")).same.tolist() == [False, True]
    with pytest.raises(DataError, match=r"data\.pair_columns\.first=NAME"):
        read_pairs(path)
    with pytest.raises(DataError, match="expected 'ja' and one other word under 'Decision', got no, yes"):
        read_pairs(path, PairColumns(**names, yes="ja"))
    path.write_text("file_x,file_y,Decision\na,b,Yes\na,c,No\na,d,Perhaps\n")
    with pytest.raises(DataError, match="one other word"):
        read_pairs(path, PairColumns(**names, yes="yes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("ten\t300\n", "line 1: expected the number of folds"),
        ("0\t3\n", "line 1: expected the number of folds"),
        ("a b c d e\n", "line 1: expected folds<TAB>pairs"),
        (VIEW2.replace("2\t1", "2\t2", 1), "line 1: expected 8 pairs below the header, got '4 lines'"),
        (VIEW2 + "Ada\t1\t2\n", "line 1: expected 4 pairs below"),
        (VIEW2.replace("Ada\t1\t2", "Ada\t1\tBob\t2"), "line 2: expected a same pair"),
        (VIEW2.replace("Ada\t1\tBob\t3", "Ada\t1\t3"), "line 3: expected a different pair"),
        (VIEW2.replace("Ada\t1\tBob\t3", "Ada\t1\tAda\t3"), "line 3: expected a different pair"),
        (VIEW2.replace("Cy\t4\t12", "Cy\tx\t12"), "line 4: expected a same pair.*image numbers"),
        (VIEW2.replace("Cy\t4\t12", "Cy\t0\t12"), "line 4"),
        (VIEW2.replace("Cy\t4\t12", "Cy\t4\t-1"), "line 4"),
        (VIEW2.replace("Cy\t4\t12", "\t4\t12"), "line 4"),
        (VIEW2.replace("Cy\t4\t12", ""), "line 4"),
        ("first,second\na,b\n", "line 1: expected the header first,second,same"),
        ("first,second,same\n", "a header but no pairs"),
        ("first,second,same\na,b,1\na,b,maybe\n", "line 3: expected first,second,same"),
        ("first,second,same\na,b,1,2\n", "line 2"),
        ("first,second,same\na,b\n", "line 2"),
        ("first,second,same\n,b,1\n", "line 2: expected a relative image path"),
        ("first,second,same,fold\na,b,1,-1\n", "line 2"),
        ('first,second,same\n"a,b,1\n', "expected a line of CSV"),
        (b"\xff\xfe\x00", "not readable as text"),
    ],
)
def test_malformed_files_name_line_and_remedy(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        read_pairs(path)
    assert str(path) in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    for read in (read_pairs, read_people):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none.txt")
        with pytest.raises(DataError, match="not readable"):
            read(tmp_path)


def test_written_pairs_come_back_as_they_were(tmp_path: Path) -> None:
    lfw = read_pairs(write(tmp_path, VIEW2))
    write_pairs(tmp_path / "again.txt", lfw)
    assert (tmp_path / "again.txt").read_text() == VIEW2
    turned = Pairs(lfw.first[::-1], lfw.second[::-1], lfw.same[::-1], lfw.fold[::-1])
    names = Pairs(("x/a.b", "1"), ("x/c", "d e/f,g"), np.asarray([True, False]), np.asarray([7, 7]))
    nameless = Pairs(("Ada/1", "Ada/1"), ("Ada/2", "Bob/1"), lfw.same[:2], lfw.fold[:2])
    two_people = Pairs(("Ada/Ada_0001",) * 2, ("Bob/Bob_0001",) * 2, lfw.same[:2], lfw.fold[:2])
    uneven = Pairs(lfw.first[:3], lfw.second[:3], lfw.same[:3], lfw.fold[:3])
    for pairs in (turned, names, nameless, two_people, uneven):
        write_pairs(tmp_path / "pairs.txt", pairs)
        assert (tmp_path / "pairs.txt").read_text().startswith("first,second,same,fold\n")
        assert equal(read_pairs(tmp_path / "pairs.txt"), pairs)
    write_pairs(tmp_path / "pairs.csv", lfw)
    assert (tmp_path / "pairs.csv").read_text().startswith("first,")
    assert equal(read_pairs(tmp_path / "pairs.csv"), lfw)
    with pytest.raises(DataError, match="at least one pair"):
        write_pairs(tmp_path / "pairs.csv", Pairs((), (), lfw.same[:0], lfw.fold[:0]))


def test_people(tmp_path: Path) -> None:
    assert read_people(write(tmp_path, "2\n1\nAda\t3\n2\nBob\t1\nCy\t2\n")) == [["Ada"], ["Bob", "Cy"]]
    assert read_people(write(tmp_path, "Ada\nBob Bo\n\n")) == [["Ada", "Bob Bo"]]
    assert read_people(write(tmp_path, "\ufeff2\r\nAda\t3\r\nBob Bo\t1\r\n\r\n")) == [["Ada", "Bob Bo"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("x\nAda\t1\n", "line 1: expected the number of people"),
        ("2\nAda\t1\n", "line 1: expected 2 people below, got '1 lines'"),
        ("1\nAda\t1\nBob\t1\n", "line 3: expected the end"),
        ("2\n1\nAda\t3\n", "line 4: expected 2 lists"),
        ("2\n1\nAda\t3\n1\n", "line 4: expected 1 people below"),
        ("1\nAda\t1\t2\n", "line 2: expected name<TAB>images"),
        ("2\n2\nAda\t3\n1\nBob\t1\n", "line 4: expected name<TAB>images"),
    ],
)
def test_malformed_people(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_people(write(tmp_path, text))


def test_rows_of_pairs() -> None:
    pairs = Pairs(("a", "c", "x"), ("b", "a", "c"), np.zeros(3, bool), np.zeros(3, np.int64))
    first, second, missing = pair_rows(pairs, ["c", "b", "a", "z", "z"])
    assert (first.tolist(), second.tolist(), missing) == ([2, 0, -1], [1, 2, 0], ["x"])
    assert first.dtype == np.int64
    with pytest.raises(DataError, match="several images have the key 'a'"):
        pair_rows(pairs, ["a", "b", "a"])


@pytest.mark.lfw
def test_lfw_itself(lfw_root: Path, tmp_path: Path) -> None:
    protocol = lfw_root / "protocol"
    pairs = read_pairs(protocol / "pairs.txt")
    assert (len(pairs), int(pairs.same.sum()), np.bincount(pairs.fold).tolist()) == (6000, 3000, [600] * 10)
    write_pairs(tmp_path / "pairs.txt", pairs)
    assert (tmp_path / "pairs.txt").read_bytes() == (protocol / "pairs.txt").read_bytes()
    for name, count in (("pairsDevTrain.txt", 2200), ("pairsDevTest.txt", 1000)):
        dev = read_pairs(protocol / name)
        assert (len(dev), np.bincount(dev.fold, dev.same).tolist()) == (count, [count / 20] * 10)
    people = read_people(protocol / "people.txt")
    assert (len(people), len({name for fold in people for name in fold})) == (10, 5749)
    train, test = (read_people(protocol / f"peopleDev{part}.txt")[0] for part in ("Train", "Test"))
    assert (len(train), len(test), len({*train, *test})) == (4038, 1711, 5749)
    for row in range(0, 6000, 50):
        assert (lfw_root / "images" / f"{pairs.first[row]}.jpg").is_file()
        assert pairs.first[row].split("/")[0] in people[pairs.fold[row]]


@pytest.mark.parametrize(
    "text",
    [
        "first,second,same,fold\na/1,b/1,0," + "9" * 30 + "\n",
        "first,second,same,fold\na/1,b/1,0," + "9" * 5000 + "\n",
        "9" * 5000 + "\n",
        "2\t" + "9" * 30 + "\nA\t1\t2\n",
        "1\nA\t" + "9" * 5000 + "\t2\nA\t1\tB\t2\n",
    ],
)
def test_numbers_that_nothing_holds_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match="line ") as raised:
        read_pairs(tmp_path / "pairs.txt")
    assert "\n" not in str(raised.value)
