from __future__ import annotations

import pytest

from facenet.errors import ConfigError, choose
from facenet.registry import Registry, named_by


def test_what_is_registered_is_a_choice_and_a_hint() -> None:
    table = Registry("net", {"small": 1})
    seen_before = table.keys()
    table.register("tiny", 2)
    assert list(seen_before) == list(table) == ["small", "tiny"]
    assert len(table) == 2
    assert choose(table, "tiny", "model.name") == 2
    with pytest.raises(ConfigError, match=r"model\.name: unknown name 'tinny' \(did you mean 'tiny'\?\)"):
        choose(table, "tinny", "model.name")


def test_a_name_that_is_taken_is_refused() -> None:
    table = Registry("net", {"small": 1})
    for name in ("small", ""):
        with pytest.raises(ConfigError, match="net: "):
            table.register(name, 2)
    assert dict(table) == {"small": 1}


def test_a_block_can_forget_what_it_registered() -> None:
    table = Registry("net", {"small": 1})
    with table.restored():
        table.register("tiny", 2)
        assert table["tiny"] == 2
    assert dict(table) == {"small": 1}


def test_a_builder_gets_the_options_that_it_names() -> None:
    options = {"seed": 1, "margin": 0.2}
    assert named_by(lambda margin: None, options) == {"margin": 0.2}
    assert named_by(lambda **rest: None, options) == options
    assert named_by(lambda: None, options) == {}
