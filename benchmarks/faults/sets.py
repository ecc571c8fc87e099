"""Damaged and hostile face sets in each form: listed and read, they are refused in one line or read within limits.

A change is a cut, flipped bits, bytes put in, a random block, or an extreme number in a field of the form: a length, an
offset, a count, a kind. Headers of tar files get sums that fit. Payloads that would run a command stand in for files.
"""

from __future__ import annotations

import json
import random
import re
import resource
import struct
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import files
from benchmarks.faults.hostile import pickled
from benchmarks.faults.options import SetFaults
from benchmarks.faults.outcomes import Kind
from benchmarks.gallery import corrupted
from facenet.data.pictures import Unreadable
from facenet.data.sources.forms import FORMS
from facenet.data.sources.listing import Form
from tests.helpers import sets

MOST_MEMORY = 1 << 30  # bytes that a child may hold, with torch
SPACE = 1 << 34  # bytes that it may reserve
SILENCE = 240.0  # seconds without output after which a child counts as hanging: it imports much on a busy machine
CHILD = (
    "import faulthandler, sys; from benchmarks.faults.sets import print_outcomes;"
    " faulthandler.enable(); print_outcomes(*sys.argv[1:])"
)
FIELDS = {  # marks before fields of numbers, and how far these reach
    ".rec": (sets.MAGIC, 48),
    ".zip": (b"PK[\1\3\5\6]", 56),
    ".parquet": (b"PAR1|\x15", 32),
}
NUMBERS = re.compile(rb"\d+")


def run(
    counts: SetFaults, *, folder: str = "", temporary: str = "", seed: int = 0, apart: bool = True
) -> dict[str, dict[str, int]]:
    """Change the files of each set so often, then put payloads in their places; returns {set: {what: count}}.

    `refused` is one line of ours; `same` had no effect; `as_written` was read as another set. `crashes`, `hangs` and
    `executions` are the failures. More than 1 GB of memory counts as a crash.
    """
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="facenet-sets-", dir=folder or None) as name:
        for kind in SETS:
            place, started = Path(name) / kind, time.perf_counter()
            place.mkdir()
            if apart:
                found[kind] = files._apart(place, kind, counts.each, seed, temporary, child=CHILD, silence=SILENCE)
            else:
                outcomes = files.played(place, kind, 0, counts.each, seed, kinds=SETS, change=damaged)
                found[kind] = files._summed(counts.each, Counter(outcome for outcome, _ in outcomes))
            print(f"{kind}: {counts.each} files, {time.perf_counter() - started:.0f} s", flush=True)
        found["pickles"] = pickled(Path(name), SETS, counts.pickles)
    return found


def print_outcomes(place: str, name: str, first: str, count: str, seed: str) -> None:
    """The child: print a line of JSON for every mutation."""
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for outcome, message in files.played(
        Path(place), name, int(first), int(count), int(seed), kinds=SETS, change=damaged
    ):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > MOST_MEMORY:
            outcome, message = "crashes", f"{peak >> 20} MB"
        print(json.dumps([outcome, message[:300]]), flush=True)


def damaged(name: str, content: bytes, rng: random.Random) -> bytes:
    """Return a changed copy of a file of a set."""
    if not content or rng.random() < 0.4:
        return corrupted(content or b"x", rng)
    if rng.random() < 0.2:
        at = rng.randrange(len(content))
        return content[:at] + rng.randbytes(rng.randrange(1, 4096)) + content[at + rng.randrange(4096) :]
    suffix = Path(name).suffix
    if suffix == ".tar":
        return _other_header(content, rng)
    if suffix in FIELDS:
        return _other_field(content, *FIELDS[suffix], rng)
    return _other_number(content, rng)


def _extreme(size: int, rng: random.Random) -> int:
    return rng.choice(
        (0, 1, 2, 3, size - 1, size, size + 1, 1 << 26, (1 << 29) - 1, 1 << 29, (1 << 31) - 1, (1 << 32) - 1)
    )


def _other_field(content: bytes, mark: bytes, reach: int, rng: random.Random) -> bytes:
    """Set one or two numbers of 8 to 64 bits near a mark to something extreme."""
    changed = bytearray(content)
    pattern = re.escape(mark) if mark == sets.MAGIC else mark
    places = [found.start() for found in re.finditer(pattern, content)]
    for _ in range(rng.randrange(1, 3)):
        at = min(rng.choice(places) + rng.randrange(1, reach), len(content) - 8)
        form = rng.choice(("<B", "<H", "<I", "<I", "<I", "<Q"))
        old = struct.unpack_from(form, content, at)[0]
        number = rng.choice((_extreme(len(content), rng), old + 1, old - 1, old ^ 1 << rng.randrange(32)))
        struct.pack_into(form, changed, at, number % (1 << 8 * struct.calcsize(form)))
    return bytes(changed)


def _other_header(content: bytes, rng: random.Random) -> bytes:
    """Change a field of a header of a tar, and give it a sum that fits."""
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    header = bytearray(content[at : at + 512])
    kind = rng.randrange(4)
    if kind == 0:
        header[124:136] = b"%011o\0" % _extreme(len(content), rng)
    elif kind == 1:
        header[124:136] = bytes([rng.choice((0x80, 0xFF))]) + rng.randbytes(11)
    elif kind == 2:
        header[156:157] = rng.choice((b"\0", b"1", b"2", b"3", b"5", b"7", b"S", b"L", b"K", b"x", b"g", b"X", b"?"))
    else:
        field = rng.choice((0, 100, 345)) + rng.randrange(90)
        header[field : field + 8] = rng.choice((rng.randbytes(8), b"../../..", b"/etc/a/b", bytes(8)))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :]


def _other_number(content: bytes, rng: random.Random) -> bytes:
    """Set a number of a text to something extreme, or double, swap or drop lines."""
    if rng.random() < 0.3:
        lines = content.splitlines(keepends=True)
        first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[first] = rng.choice((lines[second], b"", lines[first] * 2, b"\n"))
        return b"".join(lines)
    found = rng.choice(list(NUMBERS.finditer(content)) or [re.compile(b"^").match(content)])
    assert found is not None
    number = rng.choice((_extreme(len(content), rng), -1, 10**17, 10**18, 10**30, 4, 8))
    return content[: found.start()] + str(number).encode() + content[found.end() :]


def _use(form: Form, folder: Path) -> Any:
    """List a set and read all of it; what is unreadable is part of the value."""
    listing = form.list_images(folder, None)
    shards = [form.open_shard(folder / shard) for shard in listing.shards]
    rows = zip(listing.shard.tolist(), listing.offset.tolist(), listing.length.tolist(), strict=True)
    read: list[bytes | str] = []
    try:
        for shard, offset, length in rows:
            try:
                read.append(shards[shard].read(offset, length))
            except Unreadable as error:
                if "\n" in str(error):
                    raise
                read.append("unreadable")
    finally:
        for one in shards:
            one.close()
    return list(listing.names), list(listing.identities), read, listing.skipped


def _people() -> list[sets.Face]:
    """Some faces, one of which holds the magic number of RecordIO."""
    people = sets.faces(4, 4)
    inside = b"ab" + sets.MAGIC + sets.MAGIC + b"c" + sets.MAGIC
    return [*people[:-1], people[-1]._replace(picture=sets.commented(people[-1].picture, inside))]


def _records(folder: Path, *, listed: bool = False, **options: Any) -> None:
    sets.write_recordio(folder / "train.rec", _people(), **options)
    if listed:
        rows = [f"{key}\t{face.identity}/{face.name}.jpg\t{face.identity}\n" for key, face in enumerate(_people(), 1)]
        (folder / "train.tsv").write_text("".join(rows))


def _named(folder: Path) -> None:
    long = [face._replace(name="n" * 120 + face.name) for face in _people()]
    sets.write_tar(folder / "a.tar", long, labelled=False, top="x/", form=tarfile.PAX_FORMAT)


def _kind(form: str, make: Callable[[Path], None]) -> Kind:
    return Kind(make, partial(_use, FORMS[form]))


SETS: dict[str, Kind] = {
    "rec": _kind("recordio", _records),
    "rec_without_idx": _kind("recordio", partial(_records, index=False)),
    "rec_wide": _kind("recordio", partial(_records, layout=sets.WIDE, labels=3, header=False)),
    "rec_with_list": _kind("recordio", partial(_records, listed=True)),
    "tar_labels": _kind("tar", lambda folder: sets.write_tar(folder / "a.tar", _people())),
    "tar_folders": _kind("tar", _named),
    "zip_stored": _kind("zip", lambda folder: sets.write_zip(folder / "a.zip", _people())),
    "zip_deflated": _kind("zip", lambda folder: sets.write_zip(folder / "a.zip", _people(), stored=False)),
    "parquet_nested": _kind("parquet", lambda folder: sets.write_parquet(folder / "a.parquet", _people())),
    "parquet_flat": _kind(
        "parquet", lambda folder: sets.write_parquet(folder / "a.parquet", _people(), nested=False, text=True)
    ),
}
