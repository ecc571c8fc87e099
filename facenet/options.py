"""Options as frozen dataclasses: a field holds its default, its range, its choices and its help, once.

Types and ranges are checked when an object is made. Commands build their objects with :func:`build`, which also refuses
keys that no field has. What a resumed run may change and the help texts are read off the fields.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from math import isfinite
from typing import Any, NamedTuple, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from facenet.errors import ConfigError, nearest

T = TypeVar("T")


class Range(TypedDict, total=False):
    """Limits of a number, as arguments of :func:`option`."""

    least: float
    most: float
    above: float
    below: float


SHARE: Range = {"least": 0, "most": 1}
RATE: Range = {"above": 0, "most": 1}
INSIDE: Range = {"above": 0, "below": 1}
SEED: Range = {"least": 0, "most": 2**32 - 1}


class Limits(NamedTuple):
    """What a number may be; None is no limit."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number lies within the limits; what is not finite never does."""
        return (
            isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = (("of at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        parts = [f"{word} {value:.10g}" for word, value in words if value is not None]
        return f"a number {' and '.join(parts)}" if parts else "a finite number"


def option(
    default: Any = MISSING,
    *,
    help: str = "",
    choices: Collection[str] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    resumable: bool = False,
) -> Any:
    """Declare one option: a dataclass field whose metadata hold its help, choices and limits.

    Args:
        default: Its default; without one the option must be given. A dict is copied for every object.
        help: One line for help texts and docs.
        choices: Names that its value, or each name of a tuple, may be. None may stand beside them if the type allows.
        least, most, above, below: Limits of its value, or of each number of a tuple.
        resumable: Whether a resumed run may change it, because the trained weights do not depend on it.
    """
    known = {
        "help": help,
        "choices": tuple(choices),
        "limits": Limits(least, most, above, below),
        "resumable": resumable,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=known)
    return field(default=default, metadata=known)


@dataclass(frozen=True, kw_only=True)
class Options:
    """A group of options; types, ranges and choices are checked when it is made.

    Raises:
        ConfigError: a value of the wrong type, out of range, or an unknown choice.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = convert(hints[item.name], getattr(self, item.name), item.name)
            check_value(item, value)
            object.__setattr__(self, item.name, value)

    @classmethod
    def of(cls: type[T], values: Mapping[str, Any]) -> T:
        """Make options from the names of a command line, such as ``TrainOptions.of({"optim.lr": 1e-3})``.

        Raises:
            ConfigError: as :func:`build`, or a group that is given as a whole and by single names.
        """
        nested: dict[str, Any] = {}
        for name, value in values.items():
            *groups, last = name.split(".")
            place: Any = nested
            for group in groups:
                place = place.setdefault(group, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"{name}: {group} is given as a whole; give it or its options, not both")
            if last in place:
                raise ConfigError(f"{name}: some of its options are given; give it or its options, not both")
            place[last] = dict(value) if isinstance(value, Mapping) else value  # the caller's own stays as it is
        return build(cls, nested)


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Make an options object from nested plain values, such as a composed configuration.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing, wrong or out-of-range value.
    """
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown option '{prefix}{key}'{nearest(key, known)}; known: {', '.join(known)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        made[name] = convert(hints[name], value, f"{prefix}{name}")
        check_value(known[name], made[name], prefix)
    absent = [f"{prefix}{name}=..." for name in required(cls) if name not in made]
    if absent:
        raise ConfigError(f"not given: {' '.join(absent)}")
    try:
        return cls(**made)
    except ConfigError as error:  # of a check that looks at several options
        raise ConfigError(f"{prefix}{error}") from error


def check_key(cls: type[Any], key: str) -> None:
    """Refuse a dotted name that no option of the class, or of its groups, has.

    A class may hold names that other packages have for its options as `foreign`, with what to write instead.

    Raises:
        ConfigError: with the nearest known name.
    """
    foreign = getattr(cls, "foreign", {}).get(key.rpartition(".")[2])
    hint: Any = cls
    before = ""
    for part in key.split("."):
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
        group = next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)
        if group is None or get_origin(hint) is dict:
            if get_origin(hint) is dict or hint is Any:
                return  # names of a mapping are free
            raise ConfigError(f"unknown option {key!r}: {before.rstrip('.')} is a single value")
        known = get_type_hints(group)
        if part not in known and foreign:
            raise ConfigError(f"unknown option {key!r}: {foreign}")
        if part not in known:
            raise ConfigError(
                f"unknown option {key!r}{_meant(cls, key) or nearest(part, known)}; known: {', '.join(known)}"
            )
        hint, before = known[part], f"{before}{part}."


def _meant(cls: type[Any], key: str) -> str:
    """Return what a name typed without its groups can mean, such as ``optim.lr`` for ``lr``, as a question."""
    ends = [row.name for row in describe(cls) if row.name.endswith(f".{key}")]
    return f" (did you mean {' or '.join(map(repr, ends[:3]))}?)" if ends else ""


def required(cls: type[Any]) -> list[str]:
    """Return the names of the options without a default."""
    return [
        item.name for item in dataclasses.fields(cls) if item.default is MISSING and item.default_factory is MISSING
    ]


def convert(hint: Any, value: Any, name: str) -> Any:
    """Return a plain value as the type `hint` asks: lists become tuples, mappings become options objects.

    Raises:
        ConfigError: a value of another type.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, f"{name}.")
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = get_args(hint)
        if kinds[-1] is ...:
            return tuple(convert(kinds[0], item, name) for item in value)
        if len(kinds) == len(value):
            return tuple(convert(kind, item, name) for kind, item in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): convert(get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    elif hint is bool and isinstance(value, bool):
        return value
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    elif hint is str and isinstance(value, str | int | float):
        return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    raise ConfigError(f"{name}: expected {describe_type(hint)}, got {value!r}")


def _convert_union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    exact = [kind for kind in rest if kind is type(value)]
    for kind in (*exact, *rest):
        try:
            return convert(kind, value, name)
        except ConfigError:
            if len(rest) == 1:
                raise
    raise ConfigError(f"{name}: expected {' or '.join(describe_type(kind) for kind in rest)}, got {value!r}")


def describe_type(hint: Any) -> str:
    """Name a type in plain words.

    >>> describe_type(tuple[int, ...]), describe_type(bool | None)
    ('a list of whole numbers', 'true or false, or null')
    """
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    origin, kinds = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        types_named = " or ".join(describe_type(kind) for kind in kinds if kind is not type(None))
        return f"{types_named}, or null" if type(None) in kinds else types_named
    if origin is tuple:
        each = {int: "whole numbers", float: "numbers", str: "names"}.get(kinds[0], "values")
        return f"a list of {each}" if kinds[-1] is ... else f"a list of {len(kinds)} {each}"
    return plain.get(hint, "names with values" if origin is dict or dataclasses.is_dataclass(hint) else "a value")


def check_value(item: dataclasses.Field[Any], value: Any, prefix: str = "") -> None:
    """Check a value against the limits and choices of its field.

    Raises:
        ConfigError: out of range, not finite, or an unknown choice, with the nearest one.
    """
    choices, limits = item.metadata.get("choices", ()), item.metadata.get("limits", Limits())
    for one in value if isinstance(value, tuple) else (value,):
        if choices and isinstance(one, str) and one not in choices:
            known = ", ".join(choices)
            raise ConfigError(f"{prefix}{item.name}: unknown name {one!r}{nearest(one, choices)}; known: {known}")
        if isinstance(one, int | float) and not isinstance(one, bool) and not limits.hold(one):
            raise ConfigError(f"{prefix}{item.name}: expected {limits}, got {one}")


def to_dict(options: Any) -> dict[str, Any]:
    """Return an options object as nested plain values: what :func:`build` reads, and what JSON and YAML hold."""
    return {item.name: _plain(getattr(options, item.name)) for item in dataclasses.fields(options)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def fixed(options: Any) -> dict[str, Any]:
    """Return the options that a resumed run may not change, as plain values like :func:`to_dict`."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        if not item.metadata.get("resumable", False):
            value = getattr(options, item.name)
            nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
            plain = fixed(value) if nested else _plain(value)
            if plain or not nested:  # of a group that may change as a whole there is nothing to say
                found[item.name] = plain
    return found


class Described(NamedTuple):
    """One option as a help text shows it."""

    name: str  # dotted
    default: Any  # MISSING: it must be given
    choices: tuple[str, ...]
    help: str


def group_of(cls: type[Any], name: str) -> type[Any] | None:
    """Return the class of a field that holds a group of options, or None for a single option."""
    hint = get_type_hints(cls)[name]
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) and dataclasses.is_dataclass(kinds[0]) else None


def describe(cls: type[Any], prefix: str = "") -> Iterator[Described]:
    """List the options of a class and of its groups, in the order of their fields."""
    for item in dataclasses.fields(cls):
        if (group := group_of(cls, item.name)) is not None:
            yield from describe(group, f"{prefix}{item.name}.")
            continue
        default = _plain(item.default_factory() if item.default_factory is not MISSING else item.default)
        known = item.metadata
        yield Described(f"{prefix}{item.name}", default, known.get("choices", ()), known.get("help", ""))
