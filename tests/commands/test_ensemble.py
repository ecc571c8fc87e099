"""facenet ensemble, and facenet verify of one fold: the held fold's images touch nothing before they are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.evaluation import evaluate
from facenet.evaluation.leakage import people_record
from tests.helpers.commands import play
from tests.helpers.encoders import make


def test_the_held_fold_is_opened_last(view2_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    face, best = Preprocess.face, evaluate.best_threshold

    def noted_face(self: Preprocess, source: Any, *rest: Any) -> Any:
        opened.append(Path(source).stem)
        return face(self, source, *rest)

    def noted_threshold(*arguments: Any) -> float:
        opened.append("threshold")
        return best(*arguments)

    monkeypatch.setattr(Preprocess, "face", noted_face)
    monkeypatch.setattr(evaluate, "best_threshold", noted_threshold)
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        save_bundle(make(seed), tmp_path / f"e{seed}")
    fold = ["data=lfw", f"data.root={view2_root}", "data.people=people.txt", "data.pairs=pairs.txt", "data.fold=3"]
    held = {f"p{i:03d}_{j:04d}" for i in range(12, 18) for j in (1, 2, 3)}
    asked = ["encoders=[e0,e1]", "out=both", "views=3", "reduce=pca", "dim=8", *fold, "data.held_out=0.2"]
    made = play("ensemble", *asked, out=tmp_path / "m")
    assert made.code == 0, made.errors
    assert not held & set(opened)
    assert len(opened) == 54 * 3, "everybody else was of use"
    encoder = load_bundle(tmp_path / "both")
    assert (encoder.dim, made.metrics["passes"], made.metrics["reduced_from"]) == (8, 12, 32)
    assert made.metrics["fingerprint"] == encoder.fingerprint
    assert encoder.calibration["people"] == 11

    refused = play("verify", "encoder=both", *fold, "identification=true", "grid=400", out=tmp_path / "v")
    assert refused.code == 2
    assert "leave out identification, grid" in refused.errors
    again = play("verify", "encoder=both", *fold[:2], "data.people=null", "data.pairs=null", out=tmp_path / "v")
    assert "trained on" in again.text
    assert again.metrics["leakage"]["shared_people"] > 0, "the reduction knows people"
    faces = f"data.root={view2_root / 'images'}"
    wrong = play("ensemble", "encoders=[e0]", "out=n", faces, "dim=8", out=tmp_path / "m")
    assert "add reduce=pca" in wrong.errors
    trained = load_bundle(tmp_path / "e0")
    trained.training["people"] = people_record({"train": [f"p{i:03d}" for i in range(60)]}, trained.fingerprint)
    save_bundle(trained, tmp_path / "t0")
    wrong = play("ensemble", "encoders=[t0]", "out=n", faces, out=tmp_path / "m")
    assert "of the held-out people trained a member" in wrong.errors

    opened.clear()
    scored = play("verify", "encoder=both", *fold, "data.held_out=0.2", "backend=plda", out=tmp_path / "v")
    assert scored.code == 0, scored.errors
    assert not held & set(opened[: opened.index("threshold")])
    found = scored.metrics
    assert (found["verification"]["pairs"], found["backend"]["pairs"]) == (12, 12)
    assert found["backend"]["name"] == "plda"
    assert "no distance" in scored.text


def test_a_single_encoder_gains_views(view2_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_bundle(make(0), tmp_path / "e0")
    made = play("ensemble", "encoders=[e0]", "out=seven", "views=7", out=tmp_path / "m")
    assert made.code == 0, made.errors
    assert made.metrics["passes"] == 14
    assert made.metrics["thresholds"] == {}
    image = next((view2_root / "images").rglob("*.png"))
    seven = load_bundle(tmp_path / "seven").embed(image)
    assert np.abs(seven - make(0).embed(image)).max() > 1e-4
    card = (tmp_path / "seven" / "README.md").read_text()
    assert "| network | ensemble (of small) |" in card
    assert "7 views of the picture" in card
    begun = play("train", "init=seven", out=tmp_path / "t")
    assert begun.code == 2
    assert "start from one of its members" in begun.errors
