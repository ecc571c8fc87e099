"""Options: types, ranges, choices and unknown keys, each with the option's full name."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from facenet.errors import ConfigError
from facenet.options import Options, build, check_key, describe, fixed, option, required, to_dict


@dataclass(frozen=True, kw_only=True)
class Inner(Options):
    lr: float = option(0.1, above=0, help="rate")
    name: str = option("one", choices=("one", "two"))
    sizes: tuple[int, ...] = option((1, 2), least=1)


@dataclass(frozen=True, kw_only=True)
class Outer(Options):
    path: str = option(help="where")
    inner: Inner = Inner()
    maybe: Inner | None = None
    chunk: int | str | None = option(None)
    on: bool = option(False, resumable=True)
    extra: dict[str, Any] = option({})


def test_plain_values_become_objects_and_back() -> None:
    values = {"path": 7, "inner": {"lr": 1, "sizes": [3]}, "maybe": {"name": "two"}, "chunk": "auto", "extra": {"a": 1}}
    made = build(Outer, values)
    assert (made.path, made.inner.lr, made.inner.sizes, made.chunk) == ("7", 1.0, (3,), "auto")
    assert made.maybe == Inner(name="two")
    assert build(Outer, to_dict(made)) == made
    assert to_dict(made)["inner"]["sizes"] == [3]
    with pytest.raises(FrozenInstanceError):
        made.inner.lr = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"path": "x", "innr": {}}, "unknown option 'innr' (did you mean 'inner'?)"),
        ({"path": "x", "inner": {"lrr": 1}}, "unknown option 'inner.lrr' (did you mean 'lr'?)"),
        ({"path": "x", "inner": {"lr": 0}}, "inner.lr: expected a number above 0, got 0.0"),
        ({"path": "x", "inner": {"lr": float("nan")}}, "inner.lr: expected a number above 0, got nan"),
        ({"path": "x", "inner": {"lr": "fast"}}, "inner.lr: expected a number, got 'fast'"),
        ({"path": "x", "inner": {"name": "tow"}}, "inner.name: unknown name 'tow' (did you mean 'two'?)"),
        ({"path": "x", "inner": {"sizes": [1, 0]}}, "inner.sizes: expected a number of at least 1, got 0"),
        ({"path": "x", "inner": {"sizes": 3}}, "inner.sizes: expected a list of whole numbers, got 3"),
        ({"path": "x", "on": 2}, "on: expected true or false, got 2"),
        ({"path": "x", "inner": None}, "inner: expected names with values, got None"),
        ({}, "not given: path=..."),
    ],
)
def test_a_wrong_value_is_named_in_full(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        build(Outer, values)


def test_a_name_without_its_group_is_told_with_it() -> None:
    for key, meant in (("sizes", "'inner.sizes' or 'maybe.sizes'"), ("pahts", ""), ("innr.lr", "'inner'")):
        with pytest.raises(
            ConfigError, match=re.escape(f"unknown option {key!r}{meant and f' (did you mean {meant}?)'}")
        ):
            check_key(Outer, key)


def test_objects_made_in_python_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="lr: expected a number above 0"):
        Inner(lr=-1.0)


def test_names_of_a_command_line_make_options_in_python() -> None:
    assert Outer.of({"path": "p", "inner.lr": 1, "inner.name": "two", "maybe": Inner(lr=3), "extra.a": 1}) == Outer(
        path="p", inner=Inner(lr=1.0, name="two"), maybe=Inner(lr=3.0), extra={"a": 1}
    )
    group = {"lr": 2}
    assert Outer.of({"path": "p", "inner": group, "inner.name": "two"}).inner == Inner(lr=2.0, name="two")
    assert group == {"lr": 2}
    whole = Inner(lr=2)
    for given, said in (
        ({"path": "p", "inner.rl": 1}, "unknown option 'inner.rl' (did you mean 'lr'?)"),
        ({"path": "p", "inner": whole, "inner.lr": 1}, "inner.lr: inner is given as a whole"),
        ({"path": "p", "inner.lr": 1, "inner": whole}, "inner: some of its options are given"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            Outer.of(given)


def test_what_a_resumed_run_may_change_is_read_off_the_fields() -> None:
    assert "on" not in fixed(Outer(path="x"))
    assert fixed(Outer(path="x"))["inner"] == {"lr": 0.1, "name": "one", "sizes": [1, 2]}


def test_help_lists_every_option_by_its_full_name() -> None:
    found = {row.name: row for row in describe(Outer)}
    assert list(found)[:3] == ["path", "inner.lr", "inner.name"]
    assert (found["inner.lr"].help, found["inner.lr"].default) == ("rate", 0.1)
    assert required(Outer) == ["path"]
