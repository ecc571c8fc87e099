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
from facenet.training.options import TrainOptions
from facenet.training.start import start_of, take_net
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
    assert sorted(hub.fetched) == ["encoder.json", "encoder.safetensors"], "once, and nothing else"
    assert 'facenet.load("hf:org/faces")' in files["README.md"].decode()
    assert read_record(address)["fingerprint"] == encoder.fingerprint  # type: ignore[index]
    assert start_of(address).fingerprint == encoder.fingerprint
    assert take_net(TrainOptions(init="hf:org/faces")).init == address
    kept = write_calibration(load(address), address, tmp_path / "out")
    assert load(kept).fingerprint == encoder.fingerprint
    assert (kept / "README.md").is_file()
    save_bundle(make(seed=5), kept)
    with pytest.raises(ConfigError, match="it holds another encoder; give another hydra"):
        write_calibration(load(address), address, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"threads=2: .* runs in torch"):
        load(address, threads=2)


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


def test_damaged_files_are_refused(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    succeed("push", f"encoder={tmp_path / 'encoder'}", "repo=org/faces", out=tmp_path / "run")
    files = hub.commits["org/faces"][-1][1]
    weights = bytearray(files["encoder.safetensors"])
    weights[-1] ^= 1
    hub.commit("org/faces", {"encoder.safetensors": bytes(weights)})
    with pytest.raises(DataError, match=r"do not match the recorded fingerprint.*or remove .*, and it is"):
        load("hf:org/faces")
    hub.commit("org/faces", {**files, "encoder.json": files["encoder.json"].replace(b"0.01", b"0.02")})
    with pytest.raises(DataError, match=r"encoder\.json: its SHA-256 is missing or not that"):
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
    assert hub.commits.keys() == {"org/other"}


def test_what_the_hub_says_is_checked(hub: Hub, encoder: Encoder, tmp_path: Path) -> None:
    hub.commit("org/faces", {"encoder.json": b"{}"})
    hub.sha = "../../../elsewhere"
    with pytest.raises(DataError, match=r"the hub calls its commit '\.\./\.\./\.\./elsewhere', expected 40"):
        load("hf:org/faces")
    assert not list(tmp_path.rglob("elsewhere"))
    for options, status, code, says in (
        ([], None, 3, "it is there already, and public; pass private=false"),
        (["license=other", "license_name="], None, 2, "license_name: license=other has to have one"),
        (["license=mit", "license_name=ours"], None, 2, "no other license has"),
        ([], 401, 3, "set HF_TOKEN"),
        ([], 500, 3, "the hub can not be reached, or refuses"),
    ):
        hub.refuses = status
        given = [f"encoder={tmp_path / 'encoder'}", "repo=org/new" if status else "repo=org/faces", *options]
        refused, error = mistaken("push", *given, out=tmp_path / "run")
        assert refused == code
        assert says in error
        assert error.count("\n") == 1
    hub.refuses = None
    (tmp_path / "encoder" / "README.md").write_text("---\na: [\n---\n")
    refused, error = mistaken("push", *given, out=tmp_path / "run")
    assert (refused, error.count("\n")) == (3, 1)
    assert "README.md: its head can not be read" in error
