"""Calibrating on one's own faces: what is kept, where, and what is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

import facenet
from facenet.commands.calibrate import warnings
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.evaluation.leakage import people_record
from tests.helpers.commands import mistaken, play
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


def test_the_encoder_keeps_thresholds_and_what_they_were_calibrated_on(tmp_path: Path) -> None:
    faces = write_tree(tmp_path / "faces", 12, 6)
    made = make()
    made.thresholds = {1e-5: 0.1}
    save_bundle(made, tmp_path / "e")
    done = play("calibrate", f"encoder={tmp_path / 'e'}", f"data.root={faces}", out=tmp_path / "run")
    assert done.code == 0, done.errors
    few, lost = done.errors.splitlines()
    assert few == "warning: 12 people are few for a calibration; give 100 or more"
    assert "too few to calibrate far=1e-05, which was calibrated before" in lost
    kept = load_bundle(tmp_path / "e")
    assert {f"{far:g}": at for far, at in kept.thresholds.items()} == done.metrics["thresholds"]
    assert kept.calibration == {"folder": "faces", "people": 12, "faces": 72, "pairs_of_different_people": 2376}
    assert done.metrics["encoder"] == str(tmp_path / "e")
    assert str(tmp_path / "e") in done.text
    assert kept.fingerprint == made.fingerprint
    kept.training["people"] = people_record({"train": ["p000", "p001"]}, kept.fingerprint)
    save_bundle(kept, tmp_path / "e")
    (tmp_path / "some.txt").write_text("8\n" + "".join(f"{path.name}\t6\n" for path in sorted(faces.iterdir())[:8]))
    some = f"data.people={tmp_path / 'some.txt'}"
    done = play("calibrate", f"encoder={tmp_path / 'e'}", f"data.root={faces}", some, out=tmp_path / "some")
    assert done.code == 0, done.errors
    assert done.metrics["calibration"]["people"] == 8
    assert "2 of the 8 people trained the encoder, which makes thresholds too tight" in done.errors
    assert kept.thresholds == facenet.calibrate(made, faces)


def test_a_pretrained_net_is_calibrated_into_a_folder_and_a_file_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(b"")
    code, said = mistaken("calibrate", f"encoder={tmp_path / 'e.onnx'}", f"data.root={tmp_path}", out=tmp_path / "r")
    assert (code, "name the folder that it was made of" in said) == (2, True)


@pytest.mark.parametrize(
    ("before", "after", "people", "says"),
    [
        ({1e-3: 1.0}, {1e-3: 1.1}, 100, []),
        ({1e-3: 1.0}, {1e-3: 0.7}, 100, ["moved from 1.0000 to 0.7000"]),
        ({1e-3: 1.0, 1e-5: 0.9}, {1e-3: 1.0}, 100, ["far=1e-05"]),
        ({}, {1e-3: 1.0}, 30, ["30 people are few"]),
    ],
)
def test_what_became_less_certain_is_said(
    before: dict[float, float], after: dict[float, float], people: int, says: list[str]
) -> None:
    found = warnings(before, after, people)
    assert len(found) == len(says)
    assert all(text in line for text, line in zip(says, found, strict=True))
