"""Tar files of images that are not compressed, read in place through an index of offsets that is made once.

The headers are read here and not by ``tarfile``, which keeps an object of about a kilobyte for each member. Formats:
ustar, GNU (long names, numbers in base 256) and pax (POSIX.1-2001).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from facenet.data.pictures import Unreadable
from facenet.data.sources.listing import Form, Listing
from facenet.data.sources.shards import MOST_BYTES, Members, RangeFile, is_packed, shards_of
from facenet.errors import DataError
from facenet.texts import CODEC
from facenet.types import Progress

SUFFIX = (".tar",)
PACKED = {".tar.gz": "gunzip", ".tgz": "gunzip", ".tar.bz2": "bunzip2", ".tar.xz": "unxz", ".tar.zst": "unzstd"}
BLOCK = 512  # bytes of a header; members are padded to it
WINDOW = 4096  # bytes that are read at a time: a label with the headers around it
MOST_META = 1 << 20  # bytes of a long name or of a pax header
MOST_END = 1 << 20  # bytes of zeros that writers lay after the last member
MOST_DIGITS = 18  # of a label, so that it fits into 64 bits
LABEL = ".cls"  # of a member that holds the label of the image of the same key
FILE, LINKS, FOLDER, SPARSE = b"07\x00", b"12", b"5", b"S"  # kinds of members
LONG_NAME, LONG_LINK, PAX, PAX_ALL = b"L", b"K", b"xX", b"g"


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    kind: bytes
    offset: int  # of its content, bytes
    size: int  # bytes
    next: int  # where the header after it begins


def is_tar(path: Path) -> bool:
    """Return whether a path is a .tar (or a packed one, which is refused), or a folder of them and of no folders."""
    return is_packed(path, (*SUFFIX, *PACKED))


def list_images(root: Path, progress: Progress | None = None) -> Listing:
    """List the images of a tar file, or of the tar files of a folder; `progress` counts members or thousandths.

    Where a file holds ``<key>.cls`` members (webdataset), these hold the label of ``<key>.jpg``, an ASCII integer; an
    image without one has the label -1. Otherwise the identity is told by the folder, see
    :class:`facenet.data.sources.shards.Members`.

    Raises:
        DataError: a packed or damaged file, no image, or labels in some files and folders in others.
    """
    shards = shards_of(root, (*SUFFIX, *PACKED))
    for path in shards:
        for suffix, command in PACKED.items():
            if path.name.lower().endswith(suffix):
                raise DataError(
                    f"{path}: a packed tar can not be read at any place; unpack it once: {_unpack(command, path)}"
                )
    if not shards:
        raise DataError(f"{root}: no .tar file in it; give a .tar file or a folder of them")
    members = Members(root, shards)
    labelled: bool | None = None
    for number, path in enumerate(shards):
        found, labels = _list_file(path, number, members, progress, len(shards))
        if found and labelled is not None and labelled != bool(labels):
            raise DataError(f"{path}: {LABEL} members in some of the tar files and none in others; give them apart")
        labelled = bool(labels) if found else labelled
        if labels:
            known = {name: labels.get(_key(name), -1) for name, _, _ in found}
            members.add(number, found, known)
        else:
            members.add(number, found)
    return members.listing("<key>.jpg with <key>.cls, or <identity>/<image>")


class TarShard:
    """A tar file; offsets are those of the images."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises DataError."""
        self._file = RangeFile(path)

    def read(self, offset: int, length: int) -> bytes:
        """Return the image at a place of the listing; raises Unreadable."""
        if not 0 < length <= MOST_BYTES:
            raise Unreadable(f"{self._file.path}: byte {offset}: an image of {length} bytes")
        return self._file.read(offset, length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


FORM = Form(list_images, TarShard)


def _unpack(command: str, path: Path) -> str:
    return f"{command} '{path}'"


def _list_file(
    path: Path, number: int, members: Members, progress: Progress | None, files: int
) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """Return the images (name, offset, length) of a file, and the label of each key."""
    found: list[tuple[str, int, int]] = []
    labels: dict[str, int] = {}
    file = RangeFile(path)
    try:
        for count, member in enumerate(_members(file)):
            if progress and not count % 10_000:
                progress(number * 1000 + 1000 * member.offset // max(1, file.size), files * 1000)
            if member.kind in FILE and member.name.endswith(LABEL):
                labels[_key(member.name)] = _label(file, member)
            elif member.kind not in FOLDER and members.judge(number, member.name):
                reason = _why_not(member)
                if reason:
                    members.skip(number, member.name, reason)
                else:
                    found.append((member.name, member.offset, member.size))
    finally:
        file.close()
    if progress:
        progress((number + 1) * 1000, files * 1000)
    return found, labels


def _why_not(member: Member) -> str:
    if member.kind in LINKS:
        return "a link, not an image: pack the image itself (tar --dereference --hard-dereference)"
    if member.kind in SPARSE:
        return "a sparse file: pack it again without --sparse"
    if member.kind not in FILE:
        return "a pipe, device or other member, not a file"
    if member.size > MOST_BYTES:
        return f"an image of more than {MOST_BYTES >> 20} MB"
    return "" if member.size else "the file is empty"


def _key(name: str) -> str:
    """Return what an image and its label share: the name up to the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.split('.', 1)[0]}"


def _label(file: RangeFile, member: Member) -> int:
    text = file.read(member.offset, member.size).strip() if member.size <= 20 else b""
    if text == b"-1" or (text.isdigit() and len(text) <= MOST_DIGITS):
        return int(text)
    raise DataError(f"{file.path}: {member.name[:80]!r} holds no label, an integer of at least -1; pack the set again")


def _members(file: RangeFile) -> Iterator[Member]:
    """Yield the members of a tar, with the names that headers before them gave.

    Raises:
        DataError: a damaged header, or a member that reaches beyond the end of the file.
    """
    position, start, window = 0, 0, b""
    name: str | None = None
    size: int | None = None
    sparse = False
    while position + BLOCK <= file.size:
        if not start <= position <= start + len(window) - BLOCK:
            window, start = file.read(position, min(WINDOW, file.size - position)), position
        header = window[position - start : position - start + BLOCK]
        if not header[0] and not any(header):
            break
        member = _parsed(file, header, position, size)
        if member.kind in LONG_NAME + LONG_LINK + PAX + PAX_ALL:
            content = _meta(file, member)
            if member.kind in LONG_NAME:
                name = content.rstrip(b"\0").decode(*CODEC)
            elif member.kind in PAX:
                name, size, sparse = _pax(file, member, content, name)
            position = member.next
            continue
        if sparse:
            member = member._replace(kind=SPARSE)
        yield member if name is None else member._replace(name=name)
        name, size, sparse = None, None, False
        position = member.next
    else:
        raise _damaged(file, position)  # every tar ends with zeros
    if not position or file.size - position > MOST_END:
        more = f"{file.size - position:,} bytes after its last member (tar files joined by cat?)"
        raise DataError(f"{file.path}: {more if position else 'a tar of nothing'}; pack the set again")


def _parsed(file: RangeFile, header: bytes, position: int, size: int | None) -> Member:
    try:
        stated = _number(header[148:156])
        if stated != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise ValueError("checksum")
        size = _number(header[124:136]) if size is None else size
    except ValueError:
        raise _damaged(file, position) from None
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    kind = header[156:157]
    if kind in SPARSE:
        raise DataError(f"{file.path}: byte {position}: a sparse file; pack the set again without --sparse")
    if kind in b"123456":  # links, devices and folders have no content, whatever their size says
        size = 0
    start = position + BLOCK
    if size < 0 or start + size > file.size:
        raise _damaged(file, position)
    if kind in FILE and name.endswith(b"/"):
        kind = FOLDER
    return Member(name.decode(*CODEC), kind, start, size, start + (size + BLOCK - 1) // BLOCK * BLOCK)


def _number(field: bytes) -> int:
    """Parse a number in octal digits, or in base 256 if its first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if field[0] == 0x80 else -1
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError("no octal digits")
    return int(digits or b"0", 8)


def _meta(file: RangeFile, member: Member) -> bytes:
    if member.size > MOST_META:
        raise _damaged(file, member.offset - BLOCK)
    return file.read(member.offset, member.size)


def _pax(file: RangeFile, member: Member, content: bytes, name: str | None) -> tuple[str | None, int | None, bool]:
    """Return the name and the size that a pax header gives the next member, and whether that is sparse."""
    size, sparse, place = None, False, 0
    while place < len(content) and content[place]:
        digits, space, _ = content[place : place + 20].partition(b" ")
        end = place + int(digits) if digits.isdigit() and space else place
        key, equals, value = content[place + len(digits) + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= place + len(digits) + 1 or not equals:
            raise _damaged(file, member.offset - BLOCK)
        if key == b"path":
            name = value.decode(*CODEC)
        elif key == b"size":
            size = int(value) if value.isdigit() and len(value) < 20 else -1
        sparse = sparse or key.startswith(b"GNU.sparse.")
        place = end
    return name, size, sparse


def _damaged(file: RangeFile, position: int) -> DataError:
    return DataError(f"{file.path}: damaged or cut off at byte {position}; copy or download it again")
