"""Tar files of images: labels beside keys, folders by person, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from facenet.data.pictures import Unreadable
from facenet.data.sources.tars import FORM, is_tar
from facenet.errors import DataError
from tests.helpers.sets import Face, add_member, faces, jpeg, pictures_of, write_tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@pytest.mark.parametrize("form", FORMATS)
def test_labels_beside_keys(tmp_path: Path, form: int) -> None:
    people = faces()
    write_tar(tmp_path / "set-0000.tar", people[:5], form=form)
    write_tar(tmp_path / "set-0001.tar", people[5:], form=form)
    found, pictures = pictures_of(FORM, tmp_path)
    assert pictures == [face.picture for face in people]
    assert list(found.names) == [f"{face.name}.jpg" for face in people]
    assert np.asarray(found.identities).tolist() == [int(face.identity) for face in people]
    assert found.skipped == ()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("top", ["", "./", "lfw/images/"])
def test_folders_by_person(tmp_path: Path, form: int, top: str) -> None:
    people = faces()
    write_tar(tmp_path / "lfw.tar", people, labelled=False, top=top, form=form)
    found, pictures = pictures_of(FORM, tmp_path / "lfw.tar")
    assert pictures == [face.picture for face in people]
    assert list(found.names) == [f"{face.identity}/{face.name}.jpg" for face in people]
    assert list(found.identities) == [face.identity for face in people]


@pytest.mark.parametrize("form", FORMATS[1:])
def test_long_names(tmp_path: Path, form: int) -> None:
    people = [Face("n" * 200 + str(n), "é" * 60 + "/" + "x" * 90, jpeg(n)) for n in range(2)]
    write_tar(tmp_path / "a.tar", [*people, Face("1", "Ada", jpeg(5))], labelled=False, top="t/", form=form)
    found, pictures = pictures_of(FORM, tmp_path / "a.tar")
    assert list(found.names) == [*(f"{face.identity}/{face.name}.jpg" for face in people), "Ada/1.jpg"]
    assert list(found.identities) == ["é" * 60, "é" * 60, "Ada"]
    assert pictures == [jpeg(0), jpeg(1), jpeg(5)]


def test_a_name_in_two_parts(tmp_path: Path) -> None:
    """The header of ustar holds 100 bytes of a name, and 155 bytes of the folders before them."""
    write_tar(tmp_path / "a.tar", [Face("y" * 90, "x" * 90, jpeg(0))], labelled=False, form=tarfile.USTAR_FORMAT)
    found, pictures = pictures_of(FORM, tmp_path / "a.tar")
    assert list(found.names) == [f"{'x' * 90}/{'y' * 90}.jpg"]
    assert pictures == [jpeg(0)]


def test_sizes_of_pax_and_base_256(tmp_path: Path) -> None:
    for name, form, headers in (
        ("pax", tarfile.PAX_FORMAT, {"size": str(len(jpeg(0)))}),
        ("gnu", tarfile.GNU_FORMAT, {}),
    ):
        with tarfile.open(tmp_path / f"{name}.tar", "w", format=form) as tar:
            member = tarfile.TarInfo("Ada/1.jpg")
            member.size, member.pax_headers = len(jpeg(0)), headers
            tar.addfile(member, io.BytesIO(jpeg(0)))
    content = bytearray((tmp_path / "gnu.tar").read_bytes())
    content[124:136] = b"\x80" + len(jpeg(0)).to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "gnu.tar").write_bytes(content)
    assert pictures_of(FORM, tmp_path / "pax.tar")[1] == pictures_of(FORM, tmp_path / "gnu.tar")[1] == [jpeg(0)]


def test_one_person_alone_keeps_the_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", faces(1), labelled=False, top="x/y/")
    assert list(pictures_of(FORM, tmp_path / "a.tar")[0].identities) == ["0"] * 3


def test_a_name_in_two_files_gets_the_file_in_front(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", faces(1, 2))
    assert list(pictures_of(FORM, tmp_path)[0].names) == ["a/0_0.jpg", "a/0_1.jpg", "b/0_0.jpg", "b/0_1.jpg"]


def test_members_that_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, "Ada/1.jpg", jpeg(0))
        for name in ("../x.jpg", "/etc/x.jpg", "Ada/x.heic", "Ada/1.jpg", "Ada/.x.jpg", "__MACOSX/x.jpg", "Ada/readme"):
            add_member(tar, name, jpeg(1))
        add_member(tar, "Ada/empty.jpg", b"")
        for name, kind in (
            ("Ada/hard.jpg", tarfile.LNKTYPE),
            ("Ada/soft.jpg", tarfile.SYMTYPE),
            ("p.jpg", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "Ada/1.jpg", 0
            tar.addfile(member)
        folder = tarfile.TarInfo("Ada.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        add_member(tar, "Bo/2.JPG", jpeg(2))
        add_member(tar, "top.png", jpeg(3))
    found, pictures = pictures_of(FORM, tmp_path / "a.tar")
    assert list(zip(found.names, found.identities, strict=True)) == [
        ("Ada/1.jpg", "Ada"),
        ("Bo/2.JPG", "Bo"),
        ("top.png", ""),
    ]
    assert pictures == [jpeg(0), jpeg(2), jpeg(3)]
    assert sorted((one.path, one.reason.split(",")[0].split(":")[0].split(";")[0]) for one in found.skipped) == [
        ("a.tar/../x.jpg", "its name is empty or leads outside of this file"),
        ("a.tar//etc/x.jpg", "its name is empty or leads outside of this file"),
        ("a.tar/Ada/1.jpg", "a name that occurs twice in this file"),
        ("a.tar/Ada/empty.jpg", "the file is empty"),
        ("a.tar/Ada/hard.jpg", "a link"),
        ("a.tar/Ada/soft.jpg", "a link"),
        ("a.tar/Ada/x.heic", ".heic is not read"),
        ("a.tar/p.jpg", "a pipe"),
    ]


def test_an_image_without_a_label_and_a_label_that_is_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (
            ("1.jpg", jpeg(0)),
            ("2.jpg", jpeg(1)),
            ("2.cls", b"7\n"),
            ("d/2.face.jpg", jpeg(2)),
            ("d/2.cls", b"-1"),
        ):
            add_member(tar, name, content)
    assert np.asarray(pictures_of(FORM, tmp_path / "a.tar")[0].identities).tolist() == [-1, 7, -1]
    for label in (b"x", b"-2", b"9" * 19, b"", b"1.5"):
        with tarfile.open(tmp_path / "b.tar", "w") as tar:
            add_member(tar, "1.cls", label)
        with pytest.raises(DataError, match=r"'1\.cls' holds no label"):
            FORM.list_images(tmp_path / "b.tar", None)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_packed_ones_are_refused_with_the_command(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        add_member(tar, "Ada/1.jpg", jpeg(0))
    assert is_tar(tmp_path)
    with pytest.raises(DataError, match=rf"unpack it once: gunzip '.*{name}'"):
        FORM.list_images(tmp_path, None)


def test_damaged_and_mixed_ones_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", faces())
    content = (tmp_path / "a.tar").read_bytes()
    for changed, message in (
        (content[:700], "damaged or cut off at byte 0"),
        (content[: 4 * 512 + 9], "damaged or cut off at byte 2560"),
        (content[:130] + b"9" + content[131:], "damaged or cut off at byte 0"),
        (content[:1] + b"?" + content[2:], "damaged or cut off at byte 0"),
        (b"", "damaged or cut off at byte 0"),
        (bytes(10_240), "a tar of nothing"),
        (content + bytes(1 << 20) + content, "after its last member"),
    ):
        (tmp_path / "b.tar").write_bytes(changed)
        with pytest.raises(DataError, match=message):
            FORM.list_images(tmp_path / "b.tar", None)
    (tmp_path / "b.tar").unlink()
    write_tar(tmp_path / "b.tar", faces(), labelled=False)
    with pytest.raises(DataError, match="members in some of the tar files and none in others"):
        FORM.list_images(tmp_path, None)
    shard = FORM.open_shard(tmp_path / "a.tar")
    with pytest.raises(Unreadable):
        shard.read(0, 1 << 40)
    shard.close()
