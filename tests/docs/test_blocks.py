"""Blocks of README and docs/ that users copy: each is run by a test or marked with the reason why not."""

from __future__ import annotations

import pytest

from tests.helpers.pages import NAMES, SHELL, blocks

OWN_TEST = {"docs/python.md", "docs/extending.md"}  # test_python.py runs them


@pytest.mark.parametrize("page", NAMES)
def test_every_block_is_run_or_marked(page: str) -> None:
    bare = [
        f"{page}:{block.line}: mark the block by <!-- not run: REASON -->, or let a test run it"
        for block in blocks(page, "python", *SHELL)
        if block.reason is None and page not in OWN_TEST
    ]
    assert not bare, "\n".join(bare)
