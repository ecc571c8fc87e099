"""The pages of docs/results/: three plain lines first, and an index that links each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import ROOT

PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_opens_with_what_was_measured_the_result_and_the_machine(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ")
    starts = [line.partition(":")[0] for line in lines[2:5]]
    assert starts == ["- **Measured", "- **Result", "- **Machine"]


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "results" / "index.md").read_text()
    assert all(f"({page.name})" in index for page in PAGES if page.stem != "index")
