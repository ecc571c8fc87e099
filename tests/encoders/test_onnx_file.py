"""The record in an ONNX file: read by others as metadata, and every changed byte noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.onnx_graphs import ATTACKS, _tagged
from facenet.encoders.lookup import read_record
from facenet.encoders.onnx_file import KEY, METADATA, START, _text, seal, unseal
from facenet.errors import DataError
from facenet.files import write_sealed
from facenet.foreign import plain_graph
from tests.helpers.onnx_graphs import quantised

RECORD = {"schema": 1, "text": 'a "quoted" ä', "sizes": [1, 2], "none": None, "deep": {"sha256": "0" * 64}}


def model() -> bytes:
    return plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)})


def test_a_record_comes_back_and_the_package_onnx_reads_it_too() -> None:
    onnx = pytest.importorskip("onnx")
    data = seal(model(), RECORD)
    assert unseal(data, "f.onnx") == RECORD
    assert data == seal(model(), RECORD)
    read = onnx.load_from_string(data)
    onnx.checker.check_model(read)
    assert [item.key for item in read.metadata_props] == [KEY]
    assert read.graph == onnx.load_from_string(model()).graph


def test_metadata_of_others_stays() -> None:
    onnx = pytest.importorskip("onnx")
    read = onnx.load_from_string(model())
    read.metadata_props.add(key="author", value="x" * 300)
    assert unseal(seal(read.SerializeToString(), RECORD), "f.onnx") == RECORD


def test_every_flipped_bit_cut_and_addition_is_noticed() -> None:
    good, rng = seal(model(), RECORD), np.random.default_rng(0)
    start = good.index(b"sha256")
    places = [*rng.integers(len(good), size=300), *range(len(good) - 40, len(good)), *range(start - 40, start + 80)]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << rng.integers(8)
        with pytest.raises(DataError, match=r"^f\.onnx: .*(damaged|without a record)") as raised:
            unseal(bytes(data), "f.onnx")
        assert "\n" not in str(raised.value)
    for cut in (*rng.integers(len(good), size=50), len(good) - 1):
        with pytest.raises(DataError, match=r"^f\.onnx: "):
            unseal(good[:cut], "f.onnx")
    for more in (b"\0", b"x", b"\x72\x00", good, seal(model(), {"schema": 2})):
        with pytest.raises(DataError, match=r"^f\.onnx: "):
            unseal(good + more, "f.onnx")
    with pytest.raises(DataError, match="damaged"):
        unseal(seal(good, RECORD), "f.onnx")  # whole, but of two records none is the one


def test_files_of_others_are_refused() -> None:
    with pytest.raises(DataError, match="without a record of model and preprocessing; use one that facenet export"):
        unseal(model(), "f.onnx")
    for content in (b"", b"no model", bytes(100), b"\xff" * 100, b"\x07"):
        with pytest.raises(DataError, match=r"^f\.onnx: "):
            unseal(content, "f.onnx")
    with pytest.raises(ValueError, match="JSON"):
        seal(model(), {"x": float("nan")})


def test_a_record_is_read_from_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f.onnx").write_bytes(seal(model(), RECORD))
    write_sealed(tmp_path / "e" / "encoder.json", RECORD)
    assert read_record(tmp_path / "f.onnx") == read_record(tmp_path / "e") == RECORD
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"encoder\.json: no such file"):
        read_record(tmp_path / "none")


def moved(where: str) -> bytes:
    """A model with a tensor whose values lie in another file: an initialiser, a constant, or a sparse one."""
    onnx = pytest.importorskip("onnx")
    read = onnx.load_from_string(model())
    tensor = onnx.helper.make_tensor("moved", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    if where == "initialiser":
        read.graph.initializer.append(tensor)
    elif where == "constant":
        read.graph.node.append(constant)
    else:
        read.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return bytes(read.SerializeToString())


@pytest.mark.parametrize("where", ["initialiser", "constant", "sparse"])
def test_weights_in_other_files_are_refused_whatever_the_seal(where: str) -> None:
    with pytest.raises(DataError, match="its weights lie in another file"):
        unseal(seal(moved(where), RECORD), "f.onnx")


def looped() -> bytes:
    onnx = pytest.importorskip("onnx")
    read = onnx.load_from_string(model())
    body = onnx.helper.make_graph([], "body", [], [])
    read.graph.node.append(onnx.helper.make_node("Loop", ["n", "c"], ["out"], body=body))
    return bytes(read.SerializeToString())


def test_loops_are_refused_whatever_the_seal() -> None:
    with pytest.raises(DataError, match="it has loops or branches"):
        unseal(seal(looped(), RECORD), "f.onnx")


def test_functions_are_refused_whatever_the_seal() -> None:
    onnx = pytest.importorskip("onnx")
    read = onnx.load_from_string(model())
    read.functions.add(name="f", domain="d")
    with pytest.raises(DataError, match="it has functions, which no file of ours has"):
        unseal(seal(read.SerializeToString(), RECORD), "f.onnx")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tag_that_readers_take_for_another_is_refused(seed: int) -> None:
    assert _tagged(model(), (7, 5, 9), b"\x4a") == model(), "as it was, with the tag it had"
    with pytest.raises(DataError, match="a tag of too many bytes"):
        unseal(seal(ATTACKS["loop"](seed), RECORD), "f.onnx")


def test_more_parts_than_a_net_has_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="more than 200000 parts"):
        unseal(seal(model() + b"\x08\x01" * 300_000, RECORD), "f.onnx")


@pytest.mark.parametrize("inner", ["[" * 100_000, '"open', '"n": NaN}', "1e999}", "9" * 5000 + "}"])
def test_a_sealed_record_that_is_no_json_is_one_line(inner: str) -> None:
    good = seal(model(), {"x": "@"})
    text = good[good.index(START) :]
    bad = text.replace(b'"x": "@"}', f'"x": {inner}'.encode())
    with pytest.raises(DataError, match=r"^f\.onnx: its record is not JSON") as raised:
        unseal(resealed(bad), "f.onnx")
    assert "\n" not in str(raised.value)


def resealed(text: bytes) -> bytes:
    """Put a record that is no JSON behind the model, with a seal that fits."""
    zeros = START + b"0" * 64 + text[len(START) + 64 :]
    entry = _text(1, KEY.encode()) + _text(2, zeros)
    whole = model() + _text(METADATA, entry)
    digest = hashlib.sha256(whole).hexdigest().encode()
    return whole.replace(zeros, START + digest + zeros[len(START) + 64 :])
