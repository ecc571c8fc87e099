"""Walking through a folder as a person left it: links, pipes, names, rights; nothing hangs, nothing goes missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.faults.rights import without_root_power
from facenet.data.records import shown
from facenet.data.sources.walk import walk, why_not

linux = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes, and rights that root lays down")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_images_are_known_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.JPG", "a/2.jpeg", "a/deep/er/3.png", "root.gif", "a/.4.jpg", ".git/5.jpg", "a/notes.txt")
    touch(tmp_path, "a/6.heic", 'a/7,"\n.webp')
    found = walk(tmp_path)
    assert found.paths == ["a/2.jpeg", 'a/7,"\n.webp', "a/deep/er/3.png", "b/1.JPG", "root.gif"]
    assert found.skipped == [("a/6.heic", ".heic is not read; convert it to JPEG or PNG")]


def test_what_is_no_file_is_listed_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty.jpg").parent.mkdir()
    (tmp_path / "a" / "empty.jpg").touch()
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "folder.jpg").mkdir()
    touch(tmp_path, "a/full.jpg/1.jpg")
    found = walk(tmp_path)
    assert found.paths == ["a/full.jpg/1.jpg"], "a folder may be named like an image"
    assert dict(found.skipped) == {
        "a/empty.jpg": "the file is empty",
        "a/pipe.jpg": "a pipe, socket or device, not a file",
        "a/folder.jpg": "a folder, not a file",
    }


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path, "store/1.jpg", "store/2.jpg", "root/a/own.jpg", "root/a/z/3.jpg")
    (root / "a" / "1.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    (root / "b").symlink_to(tmp_path / "store")
    (root / "a" / "again").symlink_to(root / "a" / "z")  # before z in order, and not read in its place
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "self.jpg").symlink_to(root / "a" / "self.jpg")
    (root / "Mr.Gone").symlink_to("/nowhere")
    calls: list[tuple[int, int]] = []
    found = walk(root, lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(calls)) for done in range(1, len(calls) + 1)]
    assert found.paths == ["a/1.jpg", "a/own.jpg", "a/z/3.jpg", "b/1.jpg", "b/2.jpg"]
    reasons = dict(found.skipped)
    assert reasons["a/again"] == "a link to what is read already: a/z"
    assert reasons["a/up"] == "a link to what is read already: ."
    assert reasons["a/self.jpg"].startswith("not accessible (Too many")
    assert reasons["Mr.Gone"] == "a link to nothing"
    assert len(reasons) == 4


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    """Twelve of them have 12! ways through."""
    names = [f"d{i}" for i in range(12)]
    touch(tmp_path, *(f"p/{name}/1.jpg" for name in names))
    for name in names:
        for other in names:
            (tmp_path / "p" / name / f"to-{other}").symlink_to(tmp_path / "p" / other)
    assert walk(tmp_path).paths == sorted(f"p/{name}/1.jpg" for name in names)


@linux
def test_rights_and_names(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "closed/2.jpg")
    (tmp_path / "closed").chmod(0)
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/Ren\xe9.jpg")).write_bytes(b"x")
    with without_root_power():
        found = walk(tmp_path)
        (tmp_path / "closed").chmod(0o700)
        tmp_path.chmod(0)
        with pytest.raises(PermissionError):
            walk(tmp_path)
        tmp_path.chmod(0o700)
    assert found.paths == ["a/1.jpg"]
    assert found.skipped == [
        ("a/Ren\\xe9.jpg", "its name is not UTF-8; rename it"),
        ("closed", "a folder that can not be read (Permission denied)"),
    ]
    assert shown("a/é\udce9") == "a/é\\xe9"


def test_why_not(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    assert why_not(tmp_path / "1.jpg") == ""
    assert why_not(tmp_path / "1.jpg" / "2.jpg") == why_not(tmp_path / "none") == "no such file"
    assert why_not(tmp_path / ("x" * 300)) == "not accessible (File name too long)"
    assert why_not("/dev/null") == "a pipe, socket or device, not a file"
