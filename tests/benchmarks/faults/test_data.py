"""The dirty folder in short; and the campaign itself sees a file that was not listed and a good one that was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.faults import data as room
from benchmarks.faults.data import dirty_tree, read_skipped, run
from benchmarks.faults.image_files import BAD, GOOD
from benchmarks.faults.options import DataFaults
from benchmarks.faults.rights import without_root_power
from facenet.data.records import Skipped, write_skipped
from facenet.training import run as training

IMAGES = 7 * len(BAD)


@pytest.mark.slow  # three trainings, one with workers
def test_training_ends_and_every_bad_file_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    told = run(DataFaults(images=IMAGES, steps=10, lost=4))
    bad = told["dirty folder, ram cache, 0 workers"]["bad"]
    for what, counts in told.items():
        if "refused" in what:
            assert 0 < counts.pop("listed") <= bad, "what was met until then"
            assert counts == {"refused": 1, "unclear": 0, "trained": 0}
            continue
        assert IMAGES <= counts["files"] <= IMAGES + 1
        assert bad == counts["bad"] == counts["listed_with_its_reason"] > len(BAD), what
        assert counts["ended"] == 1
        zero = ("unhandled", "warnings", "not_listed", "good_skipped", "unknown_listed")
        assert {counts[name] for name in zero} == {0}, capsys.readouterr().out
        assert counts["lost_listed"] == counts["lost_while_training"] == (0 if "ram" in what else 4)


@pytest.mark.slow  # a training; tests/data holds what is listed in every run
def test_one_training_lists_every_bad_file(tmp_path: Path) -> None:
    tree = dirty_tree(tmp_path / "faces", IMAGES, 0)
    options = room._options(tmp_path / "faces", 10, 0, {"cache": "none", "workers": 0})  # some batches show all files
    with without_root_power():
        counts = room._trained(tree, tmp_path, options, 0)
    assert (counts["ended"], counts["unhandled"], counts["warnings"]) == (1, 0, 0)
    assert counts["listed_with_its_reason"] == counts["bad"] == len(tree.bad)
    assert {counts[name] for name in ("not_listed", "good_skipped", "unknown_listed")} == {0}


def test_every_kind_is_in_the_tree(tmp_path: Path) -> None:
    tree = dirty_tree(tmp_path / "faces", IMAGES, 1)
    assert {kind for kind, _ in BAD.values()} == set(tree.bad.values())
    assert len(tree.good) + len(tree.bad) in (IMAGES, IMAGES + 1)
    assert len(tree.good) > 5 * len(GOOD)
    assert not tree.good & set(tree.bad)


def test_an_unlisted_file_and_a_good_one_that_is_listed_are_seen(tmp_path: Path) -> None:
    tree = room.Tree({"a", "b"}, {"c": "the file is empty", "d": "no such file"})
    write_skipped(tmp_path / "s.csv", [Skipped("c", "no such file"), Skipped("a", "x"), Skipped("e", "lost: y")])
    told = room._compared(tree, tmp_path / "s.csv", {"e"})
    assert (told["listed_with_its_reason"], told["not_listed"], told["good_skipped"]) == (0, 1, 1)
    assert (told["lost_while_training"], told["lost_listed"]) == (1, 0), "its reason is another"
    assert read_skipped(tmp_path / "none.csv") == []


def test_a_crash_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "train", lambda *arguments, **options: training.train(None, *arguments[1:], **options))
    told = room._trained(room.Tree(set(), {}), tmp_path, None, 0)  # type: ignore[arg-type]
    assert (told["ended"], told["unhandled"]) == (0, 1)


def test_root_is_a_user_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0)
    with without_root_power(), pytest.raises(PermissionError):
        (tmp_path / "x").read_text()
    (tmp_path / "x").chmod(0o600)
    assert (tmp_path / "x").read_text() == "x"
