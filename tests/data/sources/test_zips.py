"""Zip files of images: stored, deflated, of 64 bits, and what is refused."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from facenet.data.pictures import Unreadable
from facenet.data.sources.zips import FORM
from facenet.errors import DataError
from tests.helpers.sets import faces, jpeg, pictures_of, write_zip


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("top", ["", "WebFace260M/0/"])
def test_members_read_byte_equal(tmp_path: Path, stored: bool, top: str) -> None:
    people = faces()
    write_zip(tmp_path / "a.zip", people, stored=stored, top=top)
    found, pictures = pictures_of(FORM, tmp_path / "a.zip")
    assert pictures == [face.picture for face in people]
    assert list(found.names) == [f"{face.identity}/{face.name}.jpg" for face in people]
    assert list(found.identities) == [face.identity for face in people]


def test_each_file_of_a_folder_has_its_own_top(tmp_path: Path) -> None:
    people = faces()
    write_zip(tmp_path / "0.zip", people[:6], top="0/")
    write_zip(tmp_path / "1.zip", people[6:], top="1/")
    found, pictures = pictures_of(FORM, tmp_path)
    assert pictures == [face.picture for face in people]
    assert list(found.identities) == [face.identity for face in people]


@pytest.mark.parametrize("top", ["./", "./set/", "set//"])
def test_one_person_keeps_the_name(tmp_path: Path, top: str) -> None:
    with zipfile.ZipFile(tmp_path / "Ada.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"{top}Ada/{number}.jpg", jpeg(number))
    found, _ = pictures_of(FORM, tmp_path / "Ada.zip")
    assert list(found.identities) == ["Ada", "Ada"]


def test_members_of_64_bits_and_of_unknown_size(tmp_path: Path) -> None:
    """As a writer to a pipe makes them: the sizes follow the data, and stand in 64 bits."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.content += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            with archive.open(f"Ada/{number}.jpg", "w", force_zip64=True) as file:
                file.write(jpeg(number))
    (tmp_path / "a.zip").write_bytes(pipe.content)
    assert pictures_of(FORM, tmp_path / "a.zip")[1] == [jpeg(number) for number in range(3)]


def test_a_list_of_64_bits_and_bytes_before_the_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", faces())
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(b"#!/bin/sh\n" + content)
    assert pictures_of(FORM, tmp_path / "b.zip")[1] == [face.picture for face in faces()]
    at = content.rindex(b"PK\5\6")
    size, offset = struct.unpack_from("<2L", content, at + 12)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 12, 12, size, offset)
    full = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "c.zip").write_bytes(content[:at] + record + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + full)
    assert pictures_of(FORM, tmp_path / "c.zip")[1] == [face.picture for face in faces()]
    first = struct.unpack_from("<L", content, offset + 42)[0]
    assert first == 0
    wide = bytearray(content)
    name, extra = struct.unpack_from("<2H", wide, offset + 28)
    wide[offset + 42 : offset + 46] = b"\xff" * 4
    wide[offset + 30 : offset + 32] = struct.pack("<H", extra + 12)
    wide[offset + 46 + name : offset + 46 + name] = struct.pack("<2HQ", 1, 8, 0)
    wide[at + 24 : at + 28] = struct.pack("<L", size + 12)
    (tmp_path / "d.zip").write_bytes(wide)
    assert pictures_of(FORM, tmp_path / "d.zip")[1] == [face.picture for face in faces()]


def test_a_bomb_is_inflated_no_further_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facenet.data.sources.zips.MOST_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Ada/1.jpg", jpeg(0))
        archive.writestr("Ada/2.jpg", bytes(9 << 20))
    content = (tmp_path / "a.zip").read_bytes()
    found = FORM.list_images(tmp_path / "a.zip", None)
    assert [one.reason for one in found.skipped] == ["an image of more than 1 MB"]
    lying = content.replace(struct.pack("<L", 9 << 20), struct.pack("<L", 1 << 10))
    (tmp_path / "b.zip").write_bytes(lying)
    found, shard = FORM.list_images(tmp_path / "b.zip", None), FORM.open_shard(tmp_path / "b.zip")
    tracemalloc.start()
    with pytest.raises(Unreadable, match="more than 1 MB"):
        shard.read(int(found.offset[1]), int(found.length[1]))
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()
    shard.close()


def test_damage_is_noticed(tmp_path: Path) -> None:
    for stored in (True, False):
        write_zip(tmp_path / "a.zip", faces(), stored=stored)
        content = bytearray((tmp_path / "a.zip").read_bytes())
        found = FORM.list_images(tmp_path / "a.zip", None)
        content[int(found.offset[1]) + 200] ^= 1
        (tmp_path / "a.zip").write_bytes(content)
        shard = FORM.open_shard(tmp_path / "a.zip")
        with pytest.raises(Unreadable, match="damaged"):
            shard.read(int(found.offset[1]), int(found.length[1]))
        for offset, length in ((-1, 5), (0, 0), (1, 100), (1 << 40, 5), (0, 1 << 26)):
            with pytest.raises(Unreadable):
                shard.read(offset, length)
        shard.close()


def test_other_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("Ada")
        archive.writestr("Ada/1.jpg", jpeg(0))
        archive.writestr("Bo\\1.jpg", jpeg(1))
        archive.writestr("__MACOSX/Ada/._1.jpg", b"x")
        archive.writestr("../x.jpg", b"x")
        archive.writestr("Ada/e.jpg", b"")
        archive.writestr("Ada/b.jpg", jpeg(0), zipfile.ZIP_BZIP2)
        archive.writestr("Zoë/1.jpg", jpeg(2))
    found, pictures = pictures_of(FORM, tmp_path / "a.zip")
    assert list(found.names) == ["Ada/1.jpg", "Bo/1.jpg", "Zoë/1.jpg"]
    assert pictures == [jpeg(0), jpeg(1), jpeg(2)]
    assert [(one.path, one.kind) for one in found.skipped] == [
        ("a.zip/../x.jpg", "its name is empty or leads outside of this file"),
        ("a.zip/Ada/e.jpg", "the file is empty"),
        ("a.zip/Ada/b.jpg", "compressed by a method that is not read"),
    ]


def test_encrypted_cut_and_other_files_are_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", faces())
    content = (tmp_path / "a.zip").read_bytes()
    place = content.index(b"PK\1\2")
    locked = bytearray(content)
    locked[place + 8] |= 1
    end = content.rindex(b"PK\5\6")
    for changed, message in (
        (bytes(locked), "is encrypted; unzip the file with its password"),
        (content[:-30], "no zip file, or cut off"),
        (b"", "no zip file, or cut off"),
        (content[:place] + b"?" + content[place + 1 :], "damaged at byte"),
        (content[: end + 12] + b"\xff" * 4 + content[end + 16 :], "damaged at byte"),
        (content[: end + 4] + b"\1" + content[end + 5 :], "one part of a zip in several"),
    ):
        (tmp_path / "b.zip").write_bytes(changed)
        with pytest.raises(DataError, match=message):
            FORM.list_images(tmp_path / "b.zip", None)
