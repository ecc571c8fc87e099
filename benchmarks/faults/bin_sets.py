"""Hostile and damaged .bin sets, which are pickles: programs, bombs of memory and time, and bytes that were changed.

`KIND` is played by :mod:`benchmarks.faults.files` as every kind of file; :func:`campaign` adds files made on purpose.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.image_files import grey_png
from benchmarks.faults.mutate import mutated
from benchmarks.faults.outcomes import Kind, fresh_copy, outcome_of, value_digest
from facenet.data.pairs import read_pairs
from facenet.data.sources.bin_pairs import TABLE, convert_bin, source_of

PAIRS, NAME = 12, "set.bin"
MODULES = ("os", "posix", "builtins", "__builtin__", "subprocess", "numpy", "numpy.core.multiarray", "_codecs", "sys")
FUNCTIONS = ("system", "mkdir", "eval", "exec", "getattr", "Popen", "load", "fromfile", "open", "modules", "encode")
END = b"."


def sound(protocol: int = 4) -> bytes:
    """A small set that is as it should be."""
    return pickle.dumps((_images(), [place % 2 == 0 for place in range(PAIRS)]), protocol)


def _images(count: int = 2 * PAIRS) -> list[bytes]:
    found = []
    for number in range(count):
        file = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(file, ("PNG", "JPEG")[number % 2])
        found.append(file.getvalue())
    return found


class Call:
    """An object that a pickle makes by a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what an unpickler would call."""
        return self.call


def _call(rng: random.Random, marker: Path) -> bytes:
    """A set whose images, labels or whole are made by a call that leaves a folder behind."""
    made = rng.choice(
        [
            Call(os.mkdir, str(marker)),
            Call(os.system, f"mkdir {marker}"),
            Call(eval, f"__import__('os').mkdir({str(marker)!r})"),
            Call(exec, f"import os; os.mkdir({str(marker)!r})"),
            Call(subprocess.call, ["mkdir", str(marker)]),
        ]
    )
    labels = [True] * PAIRS
    whole = rng.choice([made, (made, labels), (_images(), made), ([made, *_images()[1:]], labels), [made, [made]]])
    return pickle.dumps(whole, rng.randrange(6))


def _named(rng: random.Random, marker: Path) -> bytes:
    """A name, called with a text in one of the ways that pickles know."""
    module, name = rng.choice(MODULES), rng.choice((*FUNCTIONS, "_reconstruct.__globals__", "dtype.__class__"))
    text = b"X" + struct.pack("<I", len(f"mkdir {marker}")) + f"mkdir {marker}".encode()
    both = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    plain = f"c{module}\n{name}\n".encode()
    start = b"\x80" + bytes([rng.randrange(2, 6)])
    return start + rng.choice(
        [
            plain + text + b"\x85R" + END,
            both + b"\x93" + text + b"\x85R" + END,
            plain + text + b"\x85\x81" + END,
            plain + b")}" + b"\x92" + END,
            b"(" + text + f"i{module}\n{name}\n".encode() + END,
            b"(" + plain + text + b"o" + END,
            plain + b"}" + text + text + b"sb" + END,
            b"Pid\n" + END,
            text + b"Q" + END,
            b"\x82\x01" + END,
            b"\x97\x98" + END,
        ]
    )


def _huge(rng: random.Random, marker: Path) -> bytes:
    """A size or a number that is not there."""
    much = rng.choice((2**31 - 1, 2**31, 2**32 - 1))
    more = rng.choice((2**40, 2**62, 2**63, 2**64 - 1))
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\n\x8c\x02" + rng.choice((b"u1", b"O8", b"f8", b"V9")) + b"\x89\x88\x87R"
    return b"\x80\x04" + rng.choice(
        [
            b"B" + struct.pack("<I", much) + b"x" + END,
            b"T" + struct.pack("<I", much) + b"x" + END,
            b"X" + struct.pack("<I", much) + b"x" + END,
            b"\x8e" + struct.pack("<Q", more) + b"x" + END,
            b"\x8d" + struct.pack("<Q", more) + b"x" + END,
            b"\x96" + struct.pack("<Q", more) + b"x" + END,
            b"\x95" + struct.pack("<Q", more) + END,
            b"\x8b" + struct.pack("<I", much) + b"x" + END,
            b"Nr" + struct.pack("<I", much) + b"j" + struct.pack("<I", much) + END,
            b"L" + b"9" * 100_000 + b"L\n" + END,
            b"I" + b"9" * 1000 + b"\n" + END,
            array + b"(K\x01J" + struct.pack("<i", 2**31 - 1) + b"\x85" + kind + b"\x89C\x01xtb" + END,
            array
            + b"(K\x01\x8a\x08"
            + struct.pack("<q", 2**62)
            + b"\x8a\x08"
            + struct.pack("<q", -4)
            + b"\x86"
            + kind
            + b"\x89C\x00tb"
            + END,
            array + b"(K\x01)" + kind + b"\x89]tb" + END,
        ]
    )


def _bomb(rng: random.Random, marker: Path) -> bytes:
    """What doubles with each operation, lies within itself, is deep, or is only long."""
    turns = rng.choice((30, 200))
    doubled = b"".join(b"]q" + bytes([n]) + b"(" + (b"h" + bytes([n - 1])) * 2 + b"e" for n in range(1, turns))
    tuples = b"".join(b"h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"\x86q" + bytes([n]) for n in range(1, turns))
    image = b"B" + struct.pack("<I", 60_000) + rng.randbytes(60_000) + b"q\x00"
    text = b"X" + struct.pack("<I", 90_000) + b"\xc3\xbf" * 45_000 + b"q\x00"
    encoded = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02]("
    labels = b"](" + b"\x88" * 5_000 + b"e\x86"
    return b"\x80\x04" + rng.choice(
        [
            b"]q\x00" + doubled + END,
            b"]q\x00" + doubled + b"](\x88e\x86" + END,
            b"K\x01q\x00" + tuples + END,
            b"}(K\x01q\x00" + tuples + b"Nu" + END,
            b"\x8f(K\x01q\x00" + tuples + b"\x90" + END,
            b"]q\x00h\x00a" + b"]\x86" + END,
            b"]q\x00(h\x00h\x00e" + b"](\x88\x88e\x86" + END,
            b"N" + b"\x85" * 200_000 + END,
            b"]" * 100_000 + b"a" * 99_999 + END,
            b"(" * 200_000 + b"t" * 199_999 + END,
            b"](" + image + b"h\x00" * 9_999 + b"e" + labels + END,
            text + encoded + b"h\x01h\x00h\x02\x86R" * 10_000 + b"e" + labels + END,
            b"]" + b"Na" * rng.choice((1_000, 1_100_000)) + labels + END,
            b"0" * 10 + END,
        ]
    )


def _pictures(rng: random.Random, marker: Path) -> bytes:
    """A set with images or labels that are none, or too many pixels."""
    images: list[Any] = _images()
    images[rng.randrange(len(images))] = rng.choice(
        [b"", b"\xff\xd8\xff", grey_png(60_000, 59_999), grey_png(9_000, 9_000), os.urandom(99), 7, None, images, "x"]
    )
    labels: list[Any] = [True] * rng.choice((PAIRS, PAIRS, PAIRS - 1, 0))
    if rng.random() < 0.3:
        labels[-1:] = [rng.choice((2, -1, None, b"1", 2**40, [True]))]
    return pickle.dumps((images, labels), rng.randrange(1, 6))


HOSTILE: tuple[Callable[[random.Random, Path], bytes], ...] = (_call, _named, _huge, _bomb, _pictures)


def _make(folder: Path) -> None:
    (folder / NAME).write_bytes(sound())


def _use(folder: Path) -> Any:
    out = convert_bin(folder / NAME, folder / "out")
    pairs, source = read_pairs(out / TABLE), source_of(out / TABLE)
    return pairs.first, pairs.second, pairs.same, pairs.fold, source


KIND = Kind(_make, _use, None, NAME)


def campaign(place: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Use `count` sets in a folder, every second one changed and the others hostile: {outcome: count}.

    `executions` counts calls that happened, `megabytes` is the most memory that this process has ever had. Of the
    outcomes, "crashes", "hangs" and "executions" are failures; a changed set may be read ("as_written").
    """
    found: Counter[str] = Counter()
    (place / "sound").mkdir(parents=True)
    expected = value_digest(_use_of(place, sound()))
    for number in range(count):
        rng, marker = random.Random(f"{seed} bin {number}"), place / f"executed{number}"
        form = HOSTILE[number // 2 % len(HOSTILE)]
        content = form(rng, marker) if number % 2 else mutated(NAME, sound(rng.randrange(1, 6)), rng)
        (place / "sound" / NAME).write_bytes(content)
        outcome, message = outcome_of(KIND, fresh_copy(place / "sound", place / "tried"), expected, True)
        outcome = "as_written" if outcome == "resealed" else outcome
        found[outcome] += 1
        found["executions"] += marker.exists()
        if outcome in ("crashes", "hangs") or marker.exists():
            print(f"bin sets: {outcome}: {number} {form.__name__}: {message[:200]}", flush=True)
    names = ("refused", "same", "as_written", "crashes", "hangs", "executions")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"files": count, **{name: found[name] for name in names}, "megabytes": peak}


def _use_of(place: Path, content: bytes) -> Any:
    (place / "sound" / NAME).write_bytes(content)
    return _use(fresh_copy(place / "sound", place / "tried"))


if __name__ == "__main__":  # python -m benchmarks.faults.bin_sets 5000
    with tempfile.TemporaryDirectory() as name:
        print(campaign(Path(name), int(sys.argv[1])))
