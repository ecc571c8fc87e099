"""Zip files of images, stored or deflated, read in place (APPNOTE.TXT 6.3.10 of PKWARE, also its 64-bit form).

The list of members is read here and not by ``zipfile``, which keeps an object of about a kilobyte for each of them: a
zip of WebFace42M holds four million.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from facenet.data.pictures import Unreadable
from facenet.data.sources.listing import Form, Listing
from facenet.data.sources.shards import MOST_BYTES, Members, RangeFile, is_packed, shards_of
from facenet.errors import DataError
from facenet.types import Progress

SUFFIX = (".zip",)
END, LOCATOR, END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"
ENTRY, LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
ENTRY_MARK, LOCAL_MARK = b"PK\1\2", b"PK\3\4"
ENCRYPTED, LATER_SUM, UTF8 = 1, 8, 1 << 11  # bits of the flags
STORED, DEFLATED = 0, 8
METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstandard", 95: "xz", 98: "PPMd", 99: "AES"}
WINDOW = 1 << 20  # bytes of the list that are read at a time
AHEAD = 256  # bytes that are read with an image for the name before it
FULL = (1 << 32) - 1  # a field whose value stands in the 64-bit extra field


class Member(NamedTuple):
    """A file in a zip."""

    name: str
    flags: int
    method: int
    size: int  # bytes as they lie in the file
    inflated: int  # bytes
    offset: int  # of its local header


def is_zip(path: Path) -> bool:
    """Return whether a path is a .zip, or a folder of them and of no folders."""
    return is_packed(path, SUFFIX)


def list_images(root: Path, progress: Progress | None = None) -> Listing:
    """List the images of a zip file, or of the zip files of a folder; `progress` counts thousandths of the files.

    The identity is told by the folder, see :class:`facenet.data.sources.shards.Members`.

    Raises:
        DataError: a damaged or encrypted file, or no image.
    """
    shards = shards_of(root, SUFFIX)
    if not shards:
        raise DataError(f"{root}: no .zip file in it; give a .zip file or a folder of them")
    members = Members(root, shards)
    for number, path in enumerate(shards):
        found: list[tuple[str, int, int]] = []
        file = RangeFile(path)
        try:
            for member in _members(file):
                if not member.name.endswith("/") and members.judge(number, member.name):
                    reason = _why_not(file, member)
                    if reason:
                        members.skip(number, member.name, reason)
                    else:
                        found.append((member.name, member.offset, member.size))
        finally:
            file.close()
        members.add(number, found)
        if progress:
            progress((number + 1) * 1000, len(shards) * 1000)
    return members.listing("<identity>/<image>")


class ZipShard:
    """A zip file; offsets are those of local headers, lengths those of the images as they lie there."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises DataError."""
        self._file = RangeFile(path)

    def read(self, offset: int, length: int) -> bytes:
        """Return the image at a place of the listing; raises Unreadable.

        Its checksum is looked at if the local header has one.
        """
        file, where = self._file, f"{self._file.path}: byte {offset}"
        if not 0 <= offset < file.size or not 0 < length <= MOST_BYTES:
            raise Unreadable(f"{where}: an image of {length} bytes")
        data = file.read(offset, min(LOCAL.size + AHEAD + length, file.size - offset))
        if len(data) < LOCAL.size or data[:4] != LOCAL_MARK:
            raise Unreadable(f"{where}: no member begins there")
        _, _, flags, method, _, _, total, _, _, name, extra = LOCAL.unpack_from(data)
        start = LOCAL.size + name + extra
        data = data[start : start + length]
        if len(data) < length:
            data = file.read(offset + start, length)
        if flags & ENCRYPTED:
            raise Unreadable(f"{where}: encrypted")
        if method == DEFLATED:
            data = _inflated(data, where)
        elif method != STORED:
            raise Unreadable(f"{where}: compressed by {METHODS.get(method, f'method {method}')}")
        if not flags & LATER_SUM and zlib.crc32(data) != total:
            raise Unreadable(f"{where}: damaged (its checksum is another)")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


FORM = Form(list_images, ZipShard)


def _inflated(data: bytes, where: str) -> bytes:
    """Inflate at most 64 MB."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        image = inflate.decompress(data, MOST_BYTES + 1)
    except zlib.error as error:
        raise Unreadable(f"{where}: damaged ({error})") from error
    if len(image) > MOST_BYTES:
        raise Unreadable(f"{where}: an image of more than {MOST_BYTES >> 20} MB")
    if not inflate.eof or not image:
        raise Unreadable(f"{where}: damaged (its end is missing, or it is empty)")
    return image


def _why_not(file: RangeFile, member: Member) -> str:
    if member.flags & ENCRYPTED:
        raise DataError(f"{file.path}: {member.name[:80]!r} is encrypted; unzip the file with its password, once")
    if member.method not in (STORED, DEFLATED):
        return f"compressed by a method that is not read ({METHODS.get(member.method, member.method)})"
    if max(member.size, member.inflated) > MOST_BYTES:
        return f"an image of more than {MOST_BYTES >> 20} MB"
    if member.offset + LOCAL.size + member.size > file.size:
        return "it reaches beyond the end of the file"
    return "" if member.size and member.inflated else "the file is empty"


def _members(file: RangeFile) -> Iterator[Member]:
    """Yield the members of a zip, as the list at its end has them.

    Raises:
        DataError: no such list, or a damaged one.
    """
    start, size, shift = _list_place(file)
    place, end = start, start + size
    window, begun = b"", start
    while place < end:
        if place - begun + ENTRY.size + 3 * 0xFFFF > len(window) and begun + len(window) < end:
            begun, window = place, file.read(place, min(WINDOW, end - place))
        at = place - begun
        if len(window) - at < ENTRY.size or window[at : at + 4] != ENTRY_MARK:
            raise _damaged(file, place)
        values = ENTRY.unpack_from(window, at)
        flags, method, packed, inflated, name, extra, note, offset = *values[3:5], *values[8:13], values[16]
        text = window[at + ENTRY.size : at + ENTRY.size + name]
        more = window[at + ENTRY.size + name : at + ENTRY.size + name + extra]
        place += ENTRY.size + name + extra + note
        if place > end:
            raise _damaged(file, place)
        if FULL in (packed, inflated, offset):
            inflated, packed, offset = _wide(file, place, more, (inflated, packed, offset))
        yield Member(_name(text, flags), flags, method, packed, inflated, offset + shift)


def _name(text: bytes, flags: int) -> str:
    """Return a member's name with slashes; without the mark of UTF-8 it is in the code page of the first PCs."""
    try:
        return text.decode("utf-8" if flags & UTF8 or text.isascii() else "cp437").replace("\\", "/")
    except UnicodeDecodeError:
        return text.decode("utf-8", "surrogateescape").replace("\\", "/")


def _wide(file: RangeFile, place: int, more: bytes, values: tuple[int, int, int]) -> list[int]:
    """Return sizes and offset with those that are full taken from the 64-bit extra field."""
    at = 0
    while at + 4 <= len(more):
        kind, size = struct.unpack_from("<2H", more, at)
        if kind == 1:
            field = more[at + 4 : at + 4 + size]
            numbers = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            try:
                return [next(numbers) if value == FULL else value for value in values]
            except StopIteration:
                break
        at += 4 + size
    raise _damaged(file, place)


def _list_place(file: RangeFile) -> tuple[int, int, int]:
    """Return where the list of members begins, its bytes, and by how much offsets are off (bytes before the zip)."""
    tail_start = max(0, file.size - 0xFFFF - 22)
    tail = file.read(tail_start, file.size - tail_start)
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < 22:
        raise DataError(f"{file.path}: no zip file, or cut off: the list of its members is missing; download it again")
    disk, first, _, _, size, offset = struct.unpack_from("<4H2L", tail, at + 4)
    place = tail_start + at
    if place >= 20:
        locator = file.read(place - 20, 20)
        if locator[:4] == LOCATOR:
            (wide,) = struct.unpack_from("<Q", locator, 8)
            record = file.read(wide, 56) if wide + 56 <= place - 20 else b""
            if record[:4] != END64:
                raise _damaged(file, place)
            disk, first, _, _, size, offset = struct.unpack_from("<2L4Q", record, 16)
            place = wide
    if disk or first:
        raise DataError(f"{file.path}: one part of a zip in several; join them (zip -s 0 PART --out WHOLE.zip)")
    shift = place - size - offset
    if shift < 0:
        raise _damaged(file, place)
    return place - size, size, shift


def _damaged(file: RangeFile, place: int) -> DataError:
    return DataError(f"{file.path}: damaged at byte {place}; copy or download it again")
