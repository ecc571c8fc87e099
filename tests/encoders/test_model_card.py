"""The model card: its numbers are those of the run, what is not known is said, and no name or path is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from facenet.data.preprocess import Preprocess
from facenet.encoders import lookup as encoders
from facenet.encoders import model_card
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.evaluation.leakage import people_record
from facenet.faces.alignment import Alignment
from facenet.options import to_dict
from facenet.training.run import train
from tests.helpers.encoders import make
from tests.helpers.training import small_options

PEOPLE = ("Ada_Lovelace", "Alan_Turing")
METRICS: dict[str, Any] = {
    "run": {"batch_size": 1800},
    "train": {"images": 8581, "identities": 3635, "steps": 1600},
    "held_out": {"identities": 403, "accuracy": 0.91312, "step": 1000},
    "verification": {
        "accuracy": 0.895, "sem": 0.00477, "auc": 0.95936, "eer": 0.102, "pairs": 1000,
        "val_at_far": {
            "1e-1": {"val": 0.892, "low": 0.8617, "high": 0.9163, "resolvable": True},
            "1e-3": {"val": None, "low": None, "high": None, "resolvable": False},
        },
    },
    "leakage": {
        "people": 963, "shared_people": 7, "examples": [[*(f"{name}/{name}_0001.jpg" for name in PEOPLE), 0.1]],
    },
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "init": None,
    "data": {
        "kind": "lfw", "root": "/home/someone/lfw", "people": "/home/someone/people.txt", "pairs": "p.txt",
        "held_out": 0.1, "evaluation": 0.2, "fold": None,
    },
}  # fmt: skip


@pytest.fixture
def encoder() -> Encoder:
    made = make(crop=0.52)
    made.thresholds = {0.01: 0.51327, 0.001: 0.28708}
    people = people_record({"train": PEOPLE}, made.fingerprint)
    made.training = {"loss": {"name": "triplet", "margin": 0.2}, "seed": 3, "best": {"step": 1000}, "people": people}
    return made


def changed(**data: Any) -> dict[str, Any]:
    return {**CONFIG, "data": {**CONFIG["data"], **data}}


def rows(text: str) -> dict[str, str]:
    """The two-column tables, by their first column."""
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.M))


def head(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)  # type: ignore[no-any-return]


def test_numbers_are_those_of_the_run(encoder: Encoder) -> None:
    text = model_card.card(encoder, METRICS, CONFIG)
    found = rows(text)
    assert found["network"] == "small (norm batch, dropout 0.1)"
    assert found["output"] == "16 numbers, a vector of length 1"
    assert found["input"] == "RGB, 32x32 pixels; the central 52% of the picture"
    assert found["alignment"] == "none: a picture shows one face"
    assert found["mirror image"] == "averaged in"
    assert found["fingerprint"] == f"`{encoder.fingerprint}`"
    assert found["loss"] == "triplet, margin 0.2"
    assert found["steps, images a step"] == "1,600, 1,800"
    assert found["checkpoint"] == "best on held-out people, step 1000"
    assert found["seed"] == "3"
    assert found["trained on"] == "3,635 people, 8,581 images"
    assert found["held out: chose checkpoint and thresholds"] == "403 people"
    assert found["reported"] == "963 people"
    assert found["accuracy"] == "0.8950 +- 0.0048 (standard error of the mean over folds)"
    assert (found["AUC"], found["EER"]) == ("0.9594", "0.1020")
    assert found["VAL at FAR 1e-1"] == "0.8920 (95 %: 0.8617 to 0.9163)"
    assert found["VAL at FAR 1e-3"] == "too few pairs of different people to say"
    assert (found["0.001"], found["0.01"]) == ("0.2871", "0.5133")
    for part in (
        "which chose the checkpoint: 0.9131.",
        "7 bear a name that was trained on",
        "trained on 3,635 people; the paper's networks saw about 8 million",
        "encoder.threshold(0.001)",
        "A list of the protocol names the training people; held out of them: 10%.",
        "under-represented in its data is unknown",
        "without their consent",
        "does not transfer",
        "no score on it shows fitness for a commercial purpose",
    ):
        assert part in text, part


def test_the_head_is_yaml_that_says_the_same(encoder: Encoder) -> None:
    found = head(model_card.card(encoder, METRICS, CONFIG))
    assert (found["library_name"], found["license"], found["metrics"]) == ("facenet", "other", ["accuracy", "roc_auc"])
    assert "face-verification" in found["tags"]
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "1,000 pairs of faces (lfw)", "type": "lfw"}
    assert [entry["value"] for entry in result["metrics"]] == [0.895, 0.9594]
    assert head(model_card.card(encoder, METRICS, changed(kind="synthetic")))["license"] == "mit"
    started = {**changed(kind="synthetic"), "init": "/runs/x"}
    assert head(model_card.card(encoder, METRICS, started))["license"] == "other"


def test_no_name_no_path_and_no_chance(encoder: Encoder) -> None:
    text = model_card.card(encoder, METRICS, {**CONFIG, "init": "/home/someone/old"})
    for word in (*PEOPLE, *" ".join(PEOPLE).replace("_", " ").split(), "someone", "people.txt", "hashes"):
        assert word not in text
    assert not re.search(r"(?<![\w:/])/\w", re.sub(r"</?|value / 255", "", text)), "an absolute path"
    assert text == model_card.card(encoder, METRICS, {**CONFIG, "init": "/another/place"})
    assert "$" not in text
    assert "started from the weights of another encoder" in text


def test_what_is_unknown_is_called_so() -> None:
    text = model_card.card(make(mirror=False), {}, {})
    found = rows(text)
    assert found["loss"] == "unknown, margin unknown"
    assert found["trained on"] == "unknown people, unknown images"
    assert found["mirror image"] == "not used"
    for part in (
        "Kind: unknown.",
        "How people were divided is unknown.",
        "how it does on other people is unknown",
        "None was calibrated.",
        "trained on a number of people that is unknown",
        "chose the checkpoint: unknown.",
        "same = sq_dist <= ...",
    ):
        assert part in text, part
    assert "model-index" not in head(text)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"fold": 4}, "The people of fold 4 of the protocol are reported"),
        ({"kind": "synthetic", "people": None, "pairs": None}, "consecutive people of the generator"),
        ({"kind": "csv", "people": None}, "People of the reported pairs do not train; held out of the others: 10%"),
        ({"kind": "folder", "people": None, "pairs": None}, "reported: 20%, held out of the others: 10%"),
    ],
)
def test_how_people_were_divided(data: dict[str, Any], said: str, encoder: Encoder) -> None:
    text = model_card.card(encoder, METRICS, changed(**data))
    assert said in text
    assert ("drawn faces alone" in text) == (data.get("kind") == "synthetic")
    assert ("commercial" in text) == ("kind" not in data)


def test_one_fold_and_aligned_faces(encoder: Encoder) -> None:
    score = {"accuracy": 0.9, "correct": 540, "pairs": 600, "auc": 0.95, "eer": 0.1, "threshold": 1.1}
    encoder.preprocess = Preprocess(size=(32, 32), align=Alignment())
    text = model_card.card(encoder, {**METRICS, "verification": score}, changed(fold=1))
    assert rows(text)["accuracy"] == "0.9000 (540 of 600 pairs)"
    assert "at the one threshold that is best on held-out people" in text
    assert rows(text)["alignment"] == "yunet, template arcface, margin 2"


def test_calibrating_again_changes_the_thresholds_alone(encoder: Encoder, tmp_path: Path) -> None:
    save_bundle(encoder, tmp_path)
    model_card.write(tmp_path, encoder, METRICS, CONFIG)
    before = (tmp_path / "README.md").read_text()
    again = encoders.load(tmp_path)
    again.thresholds = {0.1: 1.25}
    encoders.write_calibration(again, tmp_path, tmp_path / "run")
    assert (tmp_path / "README.md").read_text() == before, "a record alone does not change what was calibrated"
    model_card.recalibrate(tmp_path, again)
    after = (tmp_path / "README.md").read_text()
    outside = re.compile(f"{model_card.BEGIN}.*{model_card.END}", re.S)
    assert outside.sub("", after) == outside.sub("", before)
    assert rows(after)["0.1"] == "1.2500"
    assert "0.01" not in rows(after)
    assert "last given to `facenet calibrate`" in after
    for text in ("mine\n", before.replace(model_card.END, ""), f"{model_card.END}{model_card.BEGIN}"):
        (tmp_path / "README.md").write_text(text)
        model_card.recalibrate(tmp_path, again)
        assert (tmp_path / "README.md").read_text() == text, "a card of somebody's own stays"
    (tmp_path / "README.md").unlink()
    model_card.recalibrate(tmp_path, again)
    assert not (tmp_path / "README.md").exists()


def test_the_lines_of_python_run(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(encoder, tmp_path / "encoder")
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 40), {"a.jpg": "red", "b.jpg": "blue"}[name]).save(tmp_path / name)
    text = model_card.card(encoder, METRICS, CONFIG)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    assert found["same"] == (found["sq_dist"] <= 0.28708)


@pytest.mark.slow  # a training; cards are written from records in every run
def test_a_run_writes_the_card_of_its_encoder(tmp_path: Path) -> None:
    options = small_options(tmp_path / "cache")
    metrics = train(options, tmp_path / "run")
    folder = tmp_path / "run" / "encoder"
    text = (folder / "README.md").read_text()
    assert text == model_card.card(load_bundle(folder), metrics, to_dict(options))
    assert rows(text)["trained on"] == f"{metrics['train']['identities']} people, {metrics['train']['images']} images"
    assert f"{metrics['verification']['accuracy']:.4f}" in rows(text)["accuracy"]
    assert str(tmp_path) not in text
