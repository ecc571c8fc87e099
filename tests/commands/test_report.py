"""The command ``report`` with several folders, as a shell passes them."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import succeed
from tests.helpers.reports import write_metrics


def test_the_command_takes_several_folders(tmp_path: Path) -> None:
    for name in ("train", "it's, [other]"):
        write_metrics(tmp_path / name, {"verification": {"accuracy": 0.5}})
    metrics = succeed("report", f"runs={tmp_path / 'train'}", tmp_path / "it's, [other]", out=tmp_path / "out")
    assert list(metrics["chapters"]) == ["Overview", "train", "it's, [other]"]
    assert Path(metrics["page"]).stat().st_size == metrics["bytes"]
