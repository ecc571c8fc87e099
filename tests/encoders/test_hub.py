"""Encoders on a stand-in of the Hugging Face Hub: push and pull, pinned, refused when tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from facenet import load
from facenet.encoders import model_card
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder
from facenet.encoders.lookup import read_record, write_calibration
from facenet.errors import ConfigError, DataError
from facenet.training.start import start_of
from tests.helpers.commands import mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.hub import Hub
from tests.helpers.pictures import blob

huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install facenet-triplet[hub]")
FOUND = {"pairs": 600, "accuracy": 0.9, "auc": 0.95, "eer": 0.1, "correct": 540}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield found
    found.close()


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    made = make()
    made.thresholds = {0.01: 1.2}
    save_bundle(made, tmp_path / "encoder")
    model_card.write(tmp_path / "encoder", made, {"verification": FOUND}, {"data": {"kind": "folder"}})
    return made


def test_what_is_pushed_is_what_is_pulled(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    options = ["license=other", "license_name=ours", "license_link=https://a.b/c", "base_model=org/older"]
    pushed = succeed("push", f"encoder={tmp_path / 'encoder'}", "repo=org/faces", *options, out=tmp_path / "run")
    address = pushed["address"]
    commit, files = hub.commits["org/faces"][-1]
    assert address == f"hf:org/faces@{commit}"
    assert hub.private == {"org/faces"}
    assert files.keys() == {"README.md", "encoder.json", "encoder.safetensors"}
    card = huggingface_hub.ModelCard(files["README.md"].decode()).data
    assert (card.license, card.license_name, card.license_link) == ("other", "ours", "https://a.b/c")
    assert (card.base_model, card.library_name) == ("org/older", "facenet")
    assert [(one.metric_type, one.metric_value) for one in card.eval_results] == [("accuracy", 0.9), ("roc_auc", 0.95)]
    for asked in ("hf:org/faces", "hf:org/faces@main", address):
        pulled = load(asked)
        assert pulled.fingerprint == encoder.fingerprint
        assert pulled.training["hub"] == address
        face = blob(1, 1, 64)
        assert (pulled.embed([face]) == encoder.embed([face])).all()
    assert read_record(address)["fingerprint"] == encoder.fingerprint  # type: ignore[index]
    assert start_of(address).fingerprint == encoder.fingerprint
    assert load(write_calibration(load(address), address, tmp_path / "out")).fingerprint == encoder.fingerprint


def test_a_commit_is_pinned_and_needs_no_connection_again(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    given = [f"encoder={tmp_path / 'encoder'}", "repo=org/faces"]
    first = succeed("push", *given, out=tmp_path / "first")["address"]
    load(first)
    newer = make(seed=5)
    save_bundle(newer, tmp_path / "encoder")
    second = succeed("push", *given, out=tmp_path / "second")["address"]
    assert second != first
    assert load("hf:org/faces").fingerprint == newer.fingerprint
    assert load(first).fingerprint == encoder.fingerprint
    hub.close()
    assert load(first).fingerprint == encoder.fingerprint
    with pytest.raises(DataError, match="the hub can not be reached"):
        load("hf:org/faces")


def test_what_was_tampered_with_is_refused(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    succeed("push", f"encoder={tmp_path / 'encoder'}", "repo=org/faces", out=tmp_path / "run")
    files = hub.commits["org/faces"][-1][1]
    weights = bytearray(files["encoder.safetensors"])
    weights[-1] ^= 1
    hub.commit("org/faces", {"encoder.safetensors": bytes(weights)})
    with pytest.raises(DataError, match="do not match the recorded fingerprint"):
        load("hf:org/faces")
    hub.commit("org/faces", {**files, "encoder.json": files["encoder.json"].replace(b"0.01", b"0.02")})
    with pytest.raises(DataError):
        load("hf:org/faces")


def test_what_is_not_there_is_one_line(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    hub.commit("org/other", {"config.json": b"{}"})
    for address, says in (
        ("hf:org/none", "no such repository, or a private one; set HF_TOKEN"),
        ("hf:org/other@v9", "no such branch, tag or commit"),
        ("hf:org/other", "no encoder of facenet in it, which has encoder.json and encoder.safetensors"),
    ):
        with pytest.raises(DataError, match=says) as told:
            load(address)
        assert "\n" not in str(told.value)
    for address in ("hf:faces", "hf:", "hf:org/faces@", "hf:org/faces/more"):
        with pytest.raises(ConfigError, match="expected hf:ORG/NAME"):
            load(address)
    (tmp_path / "encoder" / "README.md").unlink()
    code, error = mistaken("push", f"encoder={tmp_path / 'encoder'}", "repo=org/faces", out=tmp_path / "run")
    assert code == 3
    assert "nothing is pushed without a card" in error
    assert "org/faces" not in hub.commits
