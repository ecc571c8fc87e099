"""RecordIO files written from the format's description are read byte-equal, and odd ones refused."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from facenet.data.pictures import Unreadable
from facenet.data.sources.listing import Listing
from facenet.data.sources.recordio import FORM, is_recordio
from facenet.errors import DataError
from tests.helpers.sets import (
    MAGIC,
    NARROW,
    PACKED,
    WIDE,
    Face,
    commented,
    faces,
    headed,
    jpeg,
    pictures_of,
    record,
    write_recordio,
    write_records,
)


def pictures(listing: Listing, root: Path) -> list[bytes]:
    return pictures_of(FORM, root)[1]


def listed(root: Path) -> Listing:
    return FORM.list_images(root, None)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize(("layout", "extra"), [(NARROW, ""), (WIDE, ""), (WIDE, "<f"), (PACKED, ""), (PACKED, "<f")])
def test_every_way_of_writing_reads_byte_equal(
    tmp_path: Path, header: bool, index: bool, labels: int, layout: str, extra: str
) -> None:
    people = faces()
    write_recordio(
        tmp_path / "train.rec", people, header=header, index=index, labels=labels, layout=layout, extra=extra
    )
    found = listed(tmp_path)
    assert found.shards == ("train.rec",)
    assert np.asarray(found.names).tolist() == list(range(int(header), len(people) + header))
    assert np.asarray(found.identities).tolist() == [int(face.identity) for face in people]
    assert pictures(found, tmp_path) == [face.picture for face in people]
    assert found.length.tolist() == [len(face.picture) for face in people]
    assert found.skipped == ()


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("layout", [NARROW, WIDE, PACKED])
def test_records_split_at_the_magic_number(tmp_path: Path, layout: str, index: bool) -> None:
    """The comment of a JPEG holds it twice in a row at a multiple of 4, once beside one, and at the end."""
    inside = b"ab" + MAGIC + MAGIC + b"c" + MAGIC + b"efg" + MAGIC
    odd = [Face(str(n), str(n), commented(jpeg(n), b"." * n + inside)) for n in range(4)]
    at_the_end = [Face("4", "4", jpeg(4) + bytes(-len(jpeg(4)) % 4) + MAGIC)]
    people = [*faces(), *odd, *at_the_end]
    write_recordio(tmp_path / "train.rec", people, layout=layout, index=index)
    found = listed(tmp_path)
    assert pictures(found, tmp_path) == [face.picture for face in people]
    assert np.asarray(found.identities).tolist() == [int(face.identity) for face in people]
    assert (found.offset % 2 == 1).sum() == 3  # the magic number lies at a multiple of 4 in two comments and the end


def test_a_split_within_the_header(tmp_path: Path) -> None:
    """The record's own number is the magic number."""
    picture = jpeg(0)
    data = headed(picture, [7.0], 0xCED7230A)
    write_records(tmp_path / "a.rec", [(0, headed(jpeg(1), [6.0], 0)), (1, data), (2, headed(jpeg(2), [8.0], 2))])
    found = listed(tmp_path)
    assert record(data).count(MAGIC) == 2
    assert pictures(found, tmp_path) == [jpeg(1), picture, jpeg(2)]
    assert np.asarray(found.identities).tolist() == [6, 7, 8]


@pytest.mark.parametrize("layout", [NARROW, WIDE])
def test_the_header_of_a_set_of_42_million(tmp_path: Path, layout: str) -> None:
    """As a float32 its first record says 42,474,560: one more than there are; keys are those of the index."""
    first = 42_474_559
    records = [(0, headed(b"", (first, first + 1), 0, layout))]
    records += [(key, headed(jpeg(key % 100), [5.0], key, layout)) for key in (1, first - 1)]
    records += [(first, headed(b"", (1, first), first, layout))]
    write_records(tmp_path / "train.rec", records)
    found = listed(tmp_path)
    assert np.asarray(found.names).tolist() == [1, first - 1]
    assert np.asarray(found.identities).tolist() == [5, 5]
    # of float32 the next one below is taken, so that a set that is whole lacks none
    missing = f"{first - 3} of {first - 1}" if layout == WIDE else f"{first - 5} of {first - 4}"
    assert [one.reason for one in found.skipped] == [
        f"fewer images than its header record counts ({missing} are missing)"
    ]


def test_labels_that_a_float32_can_not_hold(tmp_path: Path) -> None:
    people = [Face("a", "42474559", jpeg(0)), Face("b", "42474560", jpeg(1)), Face("c", "3", jpeg(2))]
    write_recordio(tmp_path / "wide.rec", people, header=False, layout=WIDE)
    assert np.asarray(listed(tmp_path / "wide.rec").identities).tolist() == [42474559, 42474560, 3]
    write_recordio(tmp_path / "narrow.rec", people, header=False)
    with pytest.raises(DataError, match=r"key 0: its label 42474560 is a float of 32 bits, .*exact below 16,777,216"):
        listed(tmp_path / "narrow.rec")
    write_recordio(tmp_path / "ranges.rec", people)
    assert np.asarray(listed(tmp_path / "ranges.rec").identities).tolist() == [0, 1, 2]
    lines = [f"{key}\t{face.identity}\t{face.name}.jpg\n" for key, face in enumerate(people)]
    (tmp_path / "narrow.lst").write_text("".join(lines))
    found = listed(tmp_path / "narrow.rec")
    assert np.asarray(found.identities).tolist() == [42474559, 42474560, 3]
    assert list(found.names) == ["a.jpg", "b.jpg", "c.jpg"]


def test_empty_records_and_odd_labels_are_listed_as_skipped(tmp_path: Path) -> None:
    good = [(key, headed(jpeg(key), [float(key)], key)) for key in range(20)]
    odd = [(20, headed(b"", [1.0], 20)), (21, headed(jpeg(1), [1.5], 21)), (22, headed(jpeg(1), [float("nan")], 22))]
    write_records(tmp_path / "train.rec", [*good, *odd, (23, b""), (24, headed(jpeg(1), [-1.0], 24))])
    found = listed(tmp_path)
    assert [(one.path, one.reason) for one in found.skipped] == [
        ("train.rec/20", "an empty record"),
        ("train.rec/21", "its label is no whole number of at least -1"),
        ("train.rec/22", "its label is no whole number of at least -1"),
        ("train.rec/23", "it is too short for its header"),
    ]
    assert np.asarray(found.identities).tolist() == [*range(20), -1]
    assert pictures(found, tmp_path) == [*(jpeg(key) for key in range(20)), jpeg(1)]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("file.lst", "{key}\t{label}.000000\t{path}"),
        ("file.tsv", "{key}\t{path}\t{label}"),
        ("list.txt", "{key}\t{path}"),
    ],
)
def test_lists_name_records(tmp_path: Path, name: str, line: str) -> None:
    """DCFace's headers all say 0: who is on an image is told by the folder of its path."""
    people = faces()
    write_recordio(tmp_path / "file.rec", [face._replace(identity="0") for face in people], header=False)
    rows = [
        line.format(key=key, label=face.identity, path=f"id{face.identity}/{face.name}.jpg")
        for key, face in reversed(list(enumerate(people)))
    ]
    (tmp_path / name).write_text("\n".join([*rows, "99\t" + rows[0].split("\t", 1)[1].replace("jpg", "x.jpg")]))
    found = listed(tmp_path)
    assert list(found.names) == [f"id{face.identity}/{face.name}.jpg" for face in people]
    expected = [f"id{f.identity}" for f in people] if name == "list.txt" else [int(f.identity) for f in people]
    assert list(found.identities) == expected
    (tmp_path / name).write_text("\n".join(rows[:-1]))
    with pytest.raises(DataError, match=r"does not name 1 of 12 images, such as key 0"):
        listed(tmp_path)


def test_a_list_of_what_was_packed_names_no_record(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    (tmp_path / "train.lst").write_text("".join(f"1\t/mnt/{face.name}.jpg\t9\n" for face in faces()))
    found = listed(tmp_path)
    assert np.asarray(found.identities).tolist() == [int(face.identity) for face in faces()]
    assert isinstance(found.names, np.ndarray)


@pytest.mark.parametrize("lines", ["1\ta.jpg\n1\tb.jpg\n2\tc.jpg\n", "x\ta.jpg\n", "1\n", "1\t2.5\ta\n", "1\t-2\ta\n"])
def test_damaged_lists_are_refused(tmp_path: Path, lines: str) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    (tmp_path / "train.lst").write_text(lines)
    with pytest.raises(DataError, match=r"train\.lst: "):
        listed(tmp_path)


def test_several_files(tmp_path: Path) -> None:
    people = faces()
    write_recordio(tmp_path / "part1.rec", people[:5])
    write_recordio(tmp_path / "part2.rec", people[5:], layout=WIDE)
    found = listed(tmp_path)
    assert found.shards == ("part1.rec", "part2.rec")
    assert list(found.names)[:2] + list(found.names)[-1:] == ["part1/1", "part1/2", "part2/7"]
    assert pictures(found, tmp_path) == [face.picture for face in people]
    assert np.asarray(found.identities).tolist() == [int(face.identity) for face in people]
    write_recordio(tmp_path / "train.rec", people[:2])
    assert listed(tmp_path).shards == ("train.rec",)


@pytest.mark.parametrize(
    "lines",
    [
        "0\t0\n1",
        "a\tb\n",
        "0 0 0\n",
        "0\t0\n\n",
        "0\t-8\n",
        "0\t0\n1 \t5\n",
        "0\n0\n",
        "0\t1234567890123456789\n",
        "\0" * 70_000,
    ],
)
def test_an_index_that_is_none(tmp_path: Path, lines: str) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    (tmp_path / "train.idx").write_text(lines)
    with pytest.raises(DataError, match=r"train\.idx: .*(copy it again, or delete it)"):
        listed(tmp_path)


def test_an_index_in_another_order_with_other_line_ends(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    before, lines = listed(tmp_path), (tmp_path / "train.idx").read_text().split("\n")
    (tmp_path / "train.idx").write_bytes("\r\n".join(reversed(lines)).strip().encode())
    after = listed(tmp_path)
    for name in ("names", "identities", "offset", "length"):
        assert (getattr(after, name) == getattr(before, name)).all()


@pytest.mark.parametrize(
    "change", [lambda text: text.replace("\t0\n", "\t4\n"), lambda text: text + text.split("\n")[-2] + "\n"]
)
def test_an_index_of_another_file(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    write_recordio(tmp_path / "train.rec", faces(2, 2))
    path = tmp_path / "train.idx"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=r"(no record begins at its offset|occurs twice)"):
        listed(tmp_path)


@pytest.mark.parametrize("cut", [1, 100, 10_000])
def test_a_cut_file_without_an_index(tmp_path: Path, cut: int) -> None:
    write_recordio(tmp_path / "train.rec", faces(), index=False)
    content = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(content[:-cut] if cut < len(content) else content[:3])
    with pytest.raises(DataError, match=r"train\.rec: damaged at byte \d+"):
        listed(tmp_path)


def test_a_cut_file_with_its_index_loses_the_last_records(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces(10, 3), header=False)
    content = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(content[:-900])
    found = listed(tmp_path)
    assert found.skipped
    assert len(found.offset) + len(found.skipped) == 30
    assert pictures(found, tmp_path) == [face.picture for face in faces(10, 3)][: len(found.offset)]


def test_what_is_no_set_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.rec").write_bytes(b"")
    write_records(tmp_path / "arrays.rec", [(key, headed(bytes(64), [1.0], key)) for key in range(3)])
    write_records(tmp_path / "labels.rec", [(0, headed(b"", (1, 1), 0))])
    for name, message in (
        ("empty", "no record in it"),
        ("arrays", "none of 3 records holds a picture"),
        ("labels", "no usable image"),
        ("missing", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            listed(tmp_path / f"{name}.rec")


def test_places_that_are_none_are_unreadable(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    shard = FORM.open_shard(tmp_path / "train.rec")
    size = (tmp_path / "train.rec").stat().st_size
    for offset, length in ((0, 0), (0, size + 1), (-4, 8), (size, 1), (1, 10), (size + 1, 4), (0, 1 << 40), (0, -1)):
        with pytest.raises(Unreadable, match=r"train\.rec: "):
            shard.read(offset, length)
    shard.close()
    with pytest.raises(Unreadable):
        shard.read(0, 8)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    found, shard = listed(tmp_path), FORM.open_shard(tmp_path / "train.rec")
    with (tmp_path / "train.rec").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Unreadable, match="it ends before byte"):
        shard.read(int(found.offset[-1]), int(found.length[-1]))
    shard.close()


def test_threads_read_together(tmp_path: Path) -> None:
    people = faces(10, 3)
    write_recordio(tmp_path / "train.rec", people)
    found, shard = listed(tmp_path), FORM.open_shard(tmp_path / "train.rec")
    rows = list(range(30)) * 20
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: shard.read(int(found.offset[row]), int(found.length[row])), rows))
    shard.close()
    assert read == [people[row].picture for row in rows]


def test_progress_ends_with_all(tmp_path: Path) -> None:
    write_recordio(tmp_path / "train.rec", faces())
    told: list[tuple[int, int]] = []
    FORM.list_images(tmp_path, lambda done, total: told.append((done, total)))
    assert told[-1] == (17, 17)


def test_which_paths_are_recordio(tmp_path: Path) -> None:
    assert not is_recordio(tmp_path)
    write_recordio(tmp_path / "x.rec", faces())
    (tmp_path / "lfw").mkdir()
    assert is_recordio(tmp_path)
    assert is_recordio(tmp_path / "x.rec")
    assert not is_recordio(tmp_path / "x.idx")
    assert struct.calcsize(WIDE) == 32
    assert struct.calcsize(PACKED) == 28


def test_the_builder_writes_what_mxnet_writes(tmp_path: Path) -> None:
    """Bytes that mxnet 1.9.1 wrote: a header record, one that is split once, and an empty one."""
    written = bytes.fromhex(
        "0a23d7ce 20000000 02000000 00000000 00000000 00000000 00000000 00000000 00004040 0000a040 0a23d7ce 1c000020"
        "00000000 0000e040 01000000 00000000 00000000 00000000 61626364 0a23d7ce 0e000060 65666768 690a23d7 ce0a23d7"
        "ce6a0000 0a23d7ce 18000000 00000000 00000041 01000000 00000000 00000000 00000000"
    )
    records = [
        (0, headed(b"", (3, 5), 0)),
        (1, headed(b"abcd" + MAGIC + b"efghi" + MAGIC + MAGIC + b"j", [7.0], 1)),
        (2, headed(b"", [8.0], 1)),
    ]
    write_records(tmp_path / "a.rec", records)
    assert (tmp_path / "a.rec").read_bytes() == written
    assert (tmp_path / "a.idx").read_text() == "0\t0\n1\t40\n2\t100\n"
