"""Links of README and docs/: what they point to exists. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.pages import NAMES, anchors, links


def dead(page: Path) -> list[str]:
    """Return the links of a page whose file or heading does not exist, or that leave the site."""
    found = []
    for line, target in links(page):
        name, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            found.append(f"{page}:{line}: {target}: no such file")
        elif anchor and anchor not in anchors(file):
            found.append(f"{page}:{line}: {target}: no such heading; there are {', '.join(sorted(anchors(file)))}")
        elif page.is_relative_to(ROOT / "docs") and not file.is_relative_to(ROOT / "docs"):
            found.append(f"{page}:{line}: {target}: the site holds docs/ alone; name the file instead")
    return found


@pytest.mark.parametrize("page", NAMES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert not (found := dead(ROOT / page)), "\n".join(found)


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `two`, three\n\n```bash\n# not a heading\n```\n")
    page = tmp_path / "page.md"
    good = "[a](other.md#one-two-three) [b](other.md) [c](https://example.org/x) [d](#here)\n\n# Here\n"
    page.write_text(good)
    assert not dead(page)
    page.write_text(f'{good}[a](no.md)\n`[b](no.md)`\n![c](other.md#two)\n<img src="no.png">\n')
    assert [each.split(":")[1] for each in dead(page)] == ["4", "6", "7"]
