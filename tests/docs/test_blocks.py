"""Blocks of README and docs/ that users copy: each is run by a test or marked with the reason why not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from facenet.data.pairs import read_pairs
from facenet.encoders.bundle import save_bundle
from tests.helpers.bin_sets import write_bin
from tests.helpers.commands import play
from tests.helpers.encoders import make
from tests.helpers.pages import NAMES, SHELL, blocks
from tests.helpers.pictures import write_tree

OWN_TEST = {  # test_python.py and tests/service/test_docs.py run them
    *("docs/python.md", "docs/extending.md", "docs/service.md", "docs/security.md"),
}
COPIED = {page: [block for block in blocks(page, "python", *SHELL) if block.reason is None] for page in NAMES}
RUN = [page for page in NAMES if COPIED[page] and page not in OWN_TEST]
TWO_STEPS = [
    "model.embedding_dim=16",
    "sampler.batch_size=24",
    "sampler.faces_per_identity=4",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
]
ADDED = {"train": TWO_STEPS, "compat": ["gate.max_fall=1", "gate.max_negative_flips=1", "gate.min_gain=-1e9"]}


def lines_of(text: str) -> list[list[str]]:
    """Return the words of each line of a block; a backslash joins lines."""
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", RUN)
def test_a_block_that_is_run_calls_commands_alone(page: str) -> None:
    """The test below calls them; what else a shell may do needs a mark, <!-- not run: REASON -->, before the fence."""
    for block in COPIED[page]:
        for words in lines_of(block.text) if block.language in SHELL else []:
            line = " ".join(words)
            assert words[0] == "facenet", f"{page}:{block.line}: mark the block: it does more than call commands"
            assert not re.search(r"&&| \| |\$|\.\.\.", line), f"{page}:{block.line}: mark the block: {line}"


@pytest.mark.slow  # embeds and trains for each page
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Image.Image
) -> None:
    """The blocks run in turn in one folder; what trains takes two steps, what upgrades is let through."""
    furnish(tmp_path, portrait)
    monkeypatch.chdir(tmp_path)
    if page == "docs/upgrading.md":
        assert play("embed", "encoder=OLD", "images=people", "out=old").code == 0
        assert play("index", "gallery=G", "add=old", "encoder=OLD").code == 0
    names: dict[str, Any] = {}
    for block in COPIED[page]:
        if block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
            continue
        for _, command, *arguments in lines_of(block.text):
            played = play(command, *arguments, *ADDED.get(command, ()))
            assert played.code == 0, f"{page}:{block.line}: {command} {arguments}: {played.errors}"


def furnish(root: Path, portrait: Image.Image) -> None:
    """Write what the pages take for granted: photographs of two people, cut faces of thirty, an encoder."""
    wide = portrait.resize((portrait.width, portrait.height * 4 // 5))
    for name, photo in {"Grace": portrait, "Ada": ImageOps.mirror(wide)}.items():
        for folder in (root / "people" / name, root / "photos" / name):
            folder.mkdir(parents=True)
            for turn in (0, 5, -5):
                photo.rotate(turn).save(folder / f"{name}{turn}.jpg")
    for file in ("one.jpg", "other.jpg", "photo.jpg"):
        portrait.save(root / file)
    write_tree(root / "faces", 30, 4)
    for seed, name in enumerate(("ENCODER", "OLD", "NEW")):
        save_bundle(make(seed), root / name)
    (root / "cameras.jsonl").write_text('{"path": "Ada/Ada0.jpg", "camera": 2}\n')
    pairs = [
        f"p{a:03d}/p{a:03d}_0001.png,p{b:03d}/p{b:03d}_0002.png,{int(a == b)}" for a in range(8) for b in (a, a + 1)
    ]
    (root / "pairs.csv").write_text("\n".join(["first,second,same", *pairs]) + "\n")
    others = [
        f"{first},{second},{['No', 'Yes'][int(same)]}" for first, second, same in (row.split(",") for row in pairs)
    ]
    (root / "faces" / "master.csv").write_text("\n".join(["file_x,file_y,Decision", *others]) + "\n")
    write_bin(root / "lfw.bin", read_pairs(root / "pairs.csv"), root / "faces", ".png")
