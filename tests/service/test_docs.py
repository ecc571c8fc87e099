"""The pages on the service: their blocks run as they stand, against a service that listens elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import play
from tests.helpers.pages import blocks
from tests.helpers.services import listening_at, png

ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.parametrize("page", ["docs/service.md", "docs/security.md"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed, which the blocks call")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("photo.jpg", "other.jpg")):
        (tmp_path / name).write_bytes(png(seed))
    names: dict[str, Any] = {}
    with listening_at(tmp_path / "gallery") as address:
        for block in (one for one in blocks(page, "bash", "python") if one.reason is None):
            text = block.text.replace(ADDRESS, address)
            if block.language == "python":
                exec(compile(text, f"{page}, line {block.line}", "exec"), names)
                continue
            if text.startswith("facenet"):
                for line in text.splitlines():
                    assert play(*line.split()[1:]).code == 0, f"{page}:{block.line}: {line}"
                continue
            text = re.sub(r"\bcurl -s\b", "curl -s --fail-with-body", text)
            done = subprocess.run(["bash", "-e", "-c", text], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}:{block.line}: {done.stdout}{done.stderr}"
    assert json.loads((tmp_path / "keys.json").read_text())["keys"]
