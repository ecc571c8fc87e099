"""The command ``ijb`` on a made set: both protocols in one table, and one clear line for what is no set."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.encoders.bundle import save_bundle
from tests.helpers.commands import mistaken, play
from tests.helpers.encoders import make
from tests.helpers.ijb import write_ijb


def test_a_made_set_is_scored_in_both_protocols(tmp_path: Path) -> None:
    root = write_ijb(tmp_path / "IJBC", people=6)
    save_bundle(make(), tmp_path / "e")
    done = play("ijb", f"encoder={tmp_path / 'e'}", f"root={root}", out=tmp_path / "run")
    assert done.code == 0, done.errors
    assert (done.metrics["set"], done.metrics["templates"]) == ("ijbc", 18)
    assert done.metrics["verification"]["tar_at_far"]["1e-1"]["tar"] > 0.3
    assert done.metrics["verification"]["tar_at_far"]["1e-6"]["tar"] is None
    assert set(done.metrics["identification"]) == {"S1", "S2", "mean"}
    assert "TPIR at FPIR 1e-2" in done.text
    assert "ijbc_face_tid_mid.txt" in done.metrics["sha256"]


def test_a_damaged_list_of_pairs_is_refused_before_a_face_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_ijb(tmp_path / "IJBC", people=6)
    save_bundle(make(), tmp_path / "e")
    (pairs,) = (root / "meta").glob("*_template_pair_label.txt")
    pairs.write_text(pairs.read_text() + "1 2 three\n")
    monkeypatch.setattr("facenet.evaluation.ijb.embed_templates", lambda *_, **__: pytest.fail("embedded"))
    code, said = mistaken("ijb", f"encoder={tmp_path / 'e'}", f"root={root}", out=tmp_path / "run")
    assert (code, pairs.name in said) == (3, True)


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    code, said = mistaken("ijb", f"encoder={tmp_path / 'e'}", f"root={tmp_path}", out=tmp_path / "run")
    assert (code, said.count("\n")) == (3, 1)
    assert "give the folder that holds meta/ and loose_crop/" in said
