"""Pickles of every protocol are read as Python reads them; whatever else they ask for is refused by name."""

from __future__ import annotations

import collections
import fractions
import os
import pickle
import struct
from typing import Any

import numpy as np
import pytest

from facenet.data.sources import closed_pickle
from facenet.data.sources.closed_pickle import Array, Text, load

PLAIN = ([b"one", b"\x00\xff" * 200, b""], (True, False, None), [0, 255, 256, 70_000, -1], [[], ()])


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    value = PLAIN if protocol > 2 else PLAIN[1:]  # before protocol 3, b"" is a call of bytes
    assert load(pickle.dumps(value, protocol)) == pickle.loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_bytes_arrays_and_scalars_are_read_in_every_protocol(protocol: int) -> None:
    image, labels = b"\xff\xd8" + bytes(range(256)), np.array([True, False, True])
    array = np.frombuffer(image, np.uint8).copy()
    found = load(pickle.dumps([image, array, array[:, None], labels, [np.bool_(True), np.uint8(7)]], protocol))
    assert found[0] == image
    assert found[1:4] == [
        Array("u1", (258,), image),
        Array("u1", (258, 1), image),
        Array("b1", (3,), b"\x01\x00\x01"),
    ]
    assert (found[4], type(found[4][0])) == ([True, 7], bool)


def test_texts_of_python_2_are_bytes() -> None:
    """``pickle.dump((["\xff\xd8", long], [True, False]), file, 2)`` as Python 2 writes it, and an array of it."""
    long = bytes(range(256)) * 2
    written = b"\x80\x02](U\x02\xff\xd8q\x01T" + struct.pack("<i", len(long)) + long + b"q\x02e](\x88\x89e\x86q\x03."
    assert load(written) == pickle.loads(written, encoding="bytes") == ([b"\xff\xd8", long], [True, False])
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
    array = (
        head + b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    )
    assert load(array + b"K\x00tb\x89U\x03abctb.") == Array("u1", (3,), b"abc")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (os.system, "it names posix.system|it names nt.system"),
        (eval, "builtins.eval|__builtin__.eval"),
        (fractions.Fraction(1, 3), "fractions.Fraction"),
        (collections.OrderedDict(), "OrderedDict"),
        ({"a": 1}, "EMPTY_DICT"),
        ({1}, "set|EMPTY_SET"),
        (1.5, "BINFLOAT"),
        (2**70, "more than 64 bits"),
        ("snowman \u2603", "latin-1"),
        (np.array([1.5]), "other items"),
        (np.array([object()]), "other items"),
        (np.zeros((2, 2, 2), np.uint8), "not one of bytes"),
        (np.float64(2), "other items"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_anything_else_is_refused_by_name(value: Any, says: str, protocol: int) -> None:
    with pytest.raises(ValueError, match=says):
        load(pickle.dumps([value], protocol))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "exhausted"),
        (b"\x80\x04", "exhausted"),
        (b".", "not there"),
        (b"\x8e" + struct.pack("<Q", 2**40) + b".", "a piece of"),
        (b"B" + struct.pack("<I", 2**32 - 1) + b".", "a piece of"),
        (b"B" + struct.pack("<I", 99) + b"x.", "expected 99 bytes"),
        (b"h\x05.", "recalls number 5"),
        (b"Na.", "no list|not there"),
        (b"t.", "mark that is not there"),
        (b"NN\x93.", "no text"),
        (b"N)R.", "can not be called"),
        (b"cnumpy\nndarray\n)R.", "calls a type"),
        (b"N)b.", "can not be changed"),
        (b"c_codecs\nencode\nC\x01aC\x05utf-8\x86R.", "no text"),
        (b"cos.path\n..\nN.", "it names os.path"),
    ],
)
def test_damage_and_claims_are_refused(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(content)


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_pickle, "MOST_STEPS", 100)
    assert load(b"N" * 99 + b".") is None
    with pytest.raises(ValueError, match="more than 100 operations"):
        load(b"N" * 100 + b".")


def test_a_list_within_itself_is_one_list() -> None:
    found = load(b"]q\x00h\x00a.")
    assert found[0] is found


def test_a_number_of_the_memo_costs_no_room() -> None:
    assert load(b"Nr" + struct.pack("<I", 2**32 - 1) + b"j" + struct.pack("<I", 2**32 - 1) + b"\x86.") == (None, None)


def test_a_text_is_its_latin_1_bytes() -> None:
    assert load(pickle.dumps("\xff\xd8", 4)) == Text(b"\xff\xd8")
