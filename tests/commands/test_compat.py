"""The command ``compat``: its gate, the record it writes, and the gallery that reads that record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from facenet.compat.matching import draw_pairs, share_images
from facenet.data.pairs import read_pairs, write_pairs
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.record import write_record
from facenet.errors import DataError
from facenet.types import EmbeddingSet
from facenet.vectors import normalise
from tests.helpers.commands import Played, mistaken, play, succeed
from tests.helpers.compat import ALONE, OLD, sets
from tests.helpers.encoders import make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Old and new embeddings, pairs, and the encoder that the new ones say they are of."""
    place = tmp_path_factory.mktemp("compat")
    encoder = make()
    save_bundle(encoder, place / "encoder")
    given = sets()
    given["new"] = replace(given["new"], fingerprint=encoder.fingerprint)
    for name, embeddings in given.items():
        embeddings.save(place / name)
    write_pairs(place / "pairs.csv", draw_pairs(share_images(given)))
    return place


def arguments(folder: Path, *more: str) -> list[str]:
    return [f"old={folder / 'old'}", f"new={folder / 'new'}", f"pairs={folder / 'pairs.csv'}", "draws=50", *more]


def run(folder: Path, out: Path, *more: str) -> Played:
    return play("compat", *arguments(folder, f"encoder={folder / 'encoder'}", *more), out=out)


def test_the_gate_decides_exit_code_and_record(folder: Path, tmp_path: Path) -> None:
    before = (folder / "encoder" / "encoder.json").read_text()
    done = run(folder, tmp_path / "no", "gate.max_negative_flips=0.001")
    assert done.code == 4
    assert done.errors.startswith("error: compat: the gate did not pass: negative flips of new-old")
    assert done.errors.count("\n") == 1
    assert not done.metrics["gate"]["passed"]
    assert done.metrics["cells"]["new_old"]["verification"]["accuracy"] > 0.5
    assert (folder / "encoder" / "encoder.json").read_text() == before, "nothing is recorded"
    done = run(folder, tmp_path / "yes", "gate.max_negative_flips=0.5", f"reference={folder / 'reference'}")
    assert (done.code, done.errors) == (0, "")
    assert done.metrics["verdict"] in done.text
    assert done.metrics["compatible_with"] == [OLD]
    encoder = load_bundle(folder / "encoder")
    assert encoder.compatible_with == [OLD]
    assert encoder.fingerprint == json.loads(before)["fingerprint"]
    assert {path.name for path in (tmp_path / "yes").iterdir()} >= {"roc.svg", "mixed.csv", "regressions.csv"}
    assert (tmp_path / "yes" / "mixed.csv").read_text().startswith("share,accuracy,rank1,map\n0.0,")
    again = run(folder, tmp_path / "again", "gate.max_negative_flips=0.5")
    assert again.code == 0
    assert load_bundle(folder / "encoder").compatible_with == [OLD], "listed once"


@pytest.mark.slow  # five commands; tests/compat and tests/gallery hold each step in every run
def test_a_gallery_takes_the_new_encoder_only_after_the_check(folder: Path, tmp_path: Path) -> None:
    made = make()
    save_bundle(made, tmp_path / "encoder")
    gallery, new = f"gallery={tmp_path / 'gallery'}", f"encoder={tmp_path / 'encoder'}"
    succeed("index", gallery, f"add={folder / 'old'}", out=tmp_path / "add")
    search = ("search", gallery, new, f"query={folder / 'new'}", "k=1", "threshold=1.5")
    backfill = ("index", gallery, new, f"backfill={folder / 'new'}")
    for place, line in (("s", search), ("b", backfill), ("a", ("index", gallery, new, f"add={folder / 'new'}"))):
        code, said = mistaken(*line, out=tmp_path / place)
        assert (code, "run facenet compat old=" in said) == (3, True), said
    code, said = mistaken(*backfill[:2], backfill[3], out=tmp_path / "c")
    assert (code, "needs encoder=DIR" in said) == (2, True), said
    succeed("compat", *arguments(folder, new, "gate.max_negative_flips=0.5"), out=tmp_path / "check")
    before = succeed(*search, out=tmp_path / "before")
    assert before["top1"] > 0.3, "new queries find old faces"
    done = succeed(*backfill, out=tmp_path / "backfill")
    assert (done["replaced"], done["missing"], done["current"], done["other"]) == (100, 0, 100, 0)
    info = succeed("index", gallery, "info=true", "check=true", out=tmp_path / "info")
    assert info["fingerprints"] == {OLD: 0, made.fingerprint: 100}
    assert succeed(*search, out=tmp_path / "after")["top1"] == 1
    given = ("search", gallery, new, f"query={folder / 'reference'}", "threshold=1.5")
    code, said = mistaken(*given, out=tmp_path / "other")
    assert (code, f"embedded by encoder {ALONE[:12]}, not by {made.fingerprint[:12]}" in said) == (3, True), said


def test_a_mistake_is_refused_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    other = make(seed=5)
    save_bundle(other, tmp_path / "other")
    code, said = mistaken("compat", *arguments(folder, f"encoder={tmp_path / 'other'}"), out=tmp_path / "r")
    assert (code, f"is {other.fingerprint[:12]}; embed the images again" in said) == (3, True), said
    narrow = EmbeddingSet.load(folder / "new")
    replace(narrow, vectors=normalise(narrow.vectors[:, :8])).save(tmp_path / "narrow")
    line = [f"old={folder / 'old'}", f"new={tmp_path / 'narrow'}"]
    code, said = mistaken("compat", *line, out=tmp_path / "s")
    assert (code, "learned projection" in said) == (3, True), said
    code, said = mistaken("compat", *arguments(folder, "fit_old=x"), out=tmp_path / "t")
    assert (code, "go together" in said) == (2, True), said
    code, said = mistaken("compat", *arguments(folder, "gate.metric=auk"), out=tmp_path / "u")
    assert (code, "did you mean 'auc'" in said) == (2, True), said


def test_a_record_is_written_whole_or_not_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facenet import files

    encoder = load_bundle(folder / "encoder")
    save_bundle(encoder, tmp_path / "encoder")
    before = (tmp_path / "encoder" / "encoder.json").read_bytes()

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    encoder.compatible_with.append("11" * 32)
    with pytest.raises(DataError, match="unchanged"):
        write_record(encoder, tmp_path / "encoder")
    assert (tmp_path / "encoder" / "encoder.json").read_bytes() == before


def test_without_an_encoder_the_check_alone_is_made(folder: Path, tmp_path: Path) -> None:
    metrics = succeed("compat", *arguments(folder, "gate.max_negative_flips=1"), out=tmp_path / "r")
    assert metrics["compatible_with"] is None


def test_labelled_pairs_of_other_tools_are_read_by_the_names_of_their_columns(folder: Path, tmp_path: Path) -> None:
    pairs = read_pairs(folder / "pairs.csv")
    rows = zip(pairs.first, pairs.second, pairs.same, strict=True)
    lines = [f"{a}.jpg,{b}.jpg,{'Yes' if same else 'No'}" for a, b, same in rows]
    (tmp_path / "master.csv").write_text("\n".join(["file_x,file_y,Decision", *lines]))
    columns = [f"pair_columns.{key}" for key in ("first=file_x", "second=file_y", "same=Decision")]
    given = [f"old={folder / 'old'}", f"new={folder / 'new'}", f"pairs={tmp_path / 'master.csv'}", "draws=2", "steps=2"]
    done = play("compat", *given, *columns, "gate.max_negative_flips=0.5", out=tmp_path / "run")
    assert done.code == 0, done.errors
    assert done.metrics["cells"]["new_old"]["verification"]["pairs"] == len(pairs)
