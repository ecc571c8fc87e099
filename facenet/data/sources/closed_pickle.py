"""Pickles of lists, bytes and truth values, read by an interpreter that can run nothing and build nothing else.

A pickle is a program: loading it may import any module and call any function. Here each operation is looked up in a
table, and a name that the pickle gives is looked up in another one. It stands for one of five constructors of this
module, which return bytes, truth values and arrays of bytes. Memory is bounded by the size of the file: no operation
copies what another one built, a number that is not given room before its bytes are there, and no value is walked
through by recursion. Protocols 1 to 5 are read, texts of Python 2 as bytes.
Source: the standard library's pickletools (operations and their arguments); PEP 307, PEP 3154, PEP 574.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_PIECE = 1 << 26  # bytes of one text or bytes object: an image has a thousandth of it
MOST_LINE = 1 << 10  # bytes of an argument that ends in a line break, such as a name
MOST_STEPS = 1_000_000  # operations; 7,000 pairs take about 50,000, each image as an array 350,000
WORD = 2**63


class Text(NamedTuple):
    """A text of characters below 256, kept as the bytes that latin-1 makes of it."""

    data: bytes


@dataclass
class Array:
    """A NumPy array of bytes ("u1") or truth values ("b1"): its shape and its bytes in the order of memory."""

    kind: str = ""
    shape: tuple[int, ...] = ()
    data: bytes = b""

    def set_state(self, kind: Any, shape: Any, data: Any) -> None:
        """Fill an array once; raises ValueError for bytes that are not its shape's."""
        data = data.data if isinstance(data, Text) else data
        sizes = isinstance(shape, tuple) and all(type(side) is int and 0 <= side < WORD for side in shape)
        if self.kind or not isinstance(kind, Kind) or not sizes or len(shape) > 2 or not isinstance(data, bytes):
            raise ValueError("an array that is not one of bytes")
        if math.prod(shape) != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
        self.kind, self.shape, self.data = kind.name, shape, data


class Kind(NamedTuple):
    """The type of an array's items: "u1" or "b1"."""

    name: str


class Known(NamedTuple):
    """What a name of a pickle stands for."""

    make: Callable[..., Any]


def load(content: bytes) -> Any:
    """Return what a pickle builds: None, whole numbers, truth values, bytes, :class:`Text`, :class:`Array`, and lists
    and tuples of these.

    Raises:
        ValueError: damaged, or a pickle that asks for anything else; the message says what.
    """
    machine = Machine()
    for step, (operation, argument, _) in enumerate(pickletools.genops(_Source(content))):
        if step >= MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} operations")
        if operation.name == "STOP":
            return machine.pop()
        run = OPERATIONS.get(operation.name)
        if run is None:
            raise ValueError(f"it asks for {operation.name}, which a set of pairs does not need")
        run(machine, argument)
    raise ValueError("it has no end")


class _Source(io.BytesIO):
    """The bytes of a pickle for pickletools, which trusts the sizes that they claim: a large one is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a piece; raises ValueError for a large one."""
        if size is None or not 0 <= size <= MOST_PIECE:
            raise ValueError(f"a piece of {size} bytes")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a short line, or the beginning of a long one."""
        return super().readline(MOST_LINE)


class Machine:
    """The stack, the stacks below its marks, and the memo of a pickle that is being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top of the stack; raises ValueError if there is none."""
        if not self.stack:
            raise ValueError("it takes a value that is not there")
        return self.stack.pop()

    def top(self) -> Any:
        """Return the top of the stack; raises ValueError if there is none."""
        if not self.stack:
            raise ValueError("it takes a value that is not there")
        return self.stack[-1]

    def mark(self) -> None:
        """Begin a stack of its own."""
        self.below.append(self.stack)
        self.stack = []

    def taken(self) -> list[Any]:
        """Return what was put on the stack since the last mark; raises ValueError without a mark."""
        if not self.below:
            raise ValueError("it takes what lies above a mark that is not there")
        found, self.stack = self.stack, self.below.pop()
        return found

    def tuple_of(self, count: int) -> None:
        """Join the last values into a tuple."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def extend(self, values: list[Any]) -> None:
        """Append to the list on top; raises ValueError if it is none."""
        into = self.top()
        if not isinstance(into, list):
            raise ValueError("it appends to what is no list")
        into.extend(values)

    def remember(self, place: int) -> None:
        """Keep the top of the stack under a number."""
        self.memo[place] = self.top()

    def recall(self, place: int) -> None:
        """Push what was kept under a number; raises ValueError if nothing was."""
        if place not in self.memo:
            raise ValueError(f"it recalls number {place}, which it never kept")
        self.push(self.memo[place])

    def number(self, value: int) -> None:
        """Push a whole number of at most 64 bits."""
        if not -WORD <= value < WORD:
            raise ValueError("a number of more than 64 bits")
        self.push(value)

    def named(self, module: str, name: str) -> None:
        """Push what a name stands for; raises ValueError for one that is not in the table."""
        if (module, name) not in NAMES:
            raise ValueError(f"it names {module[:40]}.{name[:40]}, which a set of pairs does not need")
        self.push(NAMES[module, name])

    def named_on_stack(self) -> None:
        """Push what a name on the stack stands for."""
        name, module = self.pop(), self.pop()
        if not isinstance(name, Text) or not isinstance(module, Text):
            raise ValueError("a name that is no text")
        self.named(module.data.decode("latin-1"), name.data.decode("latin-1"))

    def make(self) -> None:
        """Call one of the constructors of this module with a tuple of arguments."""
        arguments, known = self.pop(), self.pop()
        if not isinstance(known, Known) or not isinstance(arguments, tuple):
            raise ValueError("it calls what can not be called")
        self.push(known.make(*arguments))

    def build(self) -> None:
        """Set the state of an array, or of its type, which says nothing that matters for single bytes."""
        state, value = self.pop(), self.top()
        if not isinstance(state, tuple) or not isinstance(value, Array | Kind):
            raise ValueError("it changes what can not be changed")
        if isinstance(value, Array):
            if len(state) != 5:
                raise ValueError("an array whose state is not that of NumPy")
            value.set_state(state[2], state[1], state[4])


def _encoded(*arguments: Any) -> bytes:
    """Return bytes that Python 3 wrote as text for protocol 2: ``_codecs.encode(text, "latin1")``."""
    if len(arguments) != 2 or not all(isinstance(argument, Text) for argument in arguments):
        raise ValueError("an encoding of what is no text")
    text, codec = arguments
    if codec.data not in (b"latin1", b"latin-1"):
        raise ValueError("an encoding other than latin-1")
    return bytes(text.data)


def _kind(*arguments: Any) -> Kind:
    """Return the type of ``numpy.dtype("u1", ...)`` or "b1"."""
    name = arguments[0] if arguments else None
    name = name.data if isinstance(name, Text) else name
    if name not in (b"u1", b"b1", b"|u1", b"|b1"):
        raise ValueError("an array of other items than bytes and truth values")
    return Kind(name[-2:].decode())


def _empty_array(*_: Any) -> Array:
    """Return the array that ``_reconstruct`` makes before its state is set."""
    return Array()


def _array_of_buffer(*arguments: Any) -> Array:
    """Return the array of ``_frombuffer(buffer, type, shape, order)``, as protocol 5 writes it."""
    if len(arguments) != 4:
        raise ValueError("an array whose state is not that of NumPy")
    found = Array()
    found.set_state(arguments[1], arguments[2], arguments[0])
    return found


def _scalar(*arguments: Any) -> bool | int:
    """Return the value of a NumPy scalar of one byte."""
    kind, data = arguments if len(arguments) == 2 else (None, None)
    data = data.data if isinstance(data, Text) else data
    if not isinstance(kind, Kind) or not isinstance(data, bytes) or len(data) != 1:
        raise ValueError("a scalar of more than one byte")
    return bool(data[0]) if kind.name == "b1" else data[0]


def _no_call(*_: Any) -> Any:
    raise ValueError("it calls a type")


_CORES = ("numpy.core", "numpy._core")
NAMES: dict[tuple[str, str], Known] = {
    ("_codecs", "encode"): Known(_encoded),
    ("numpy", "dtype"): Known(_kind),
    ("numpy", "ndarray"): Known(_no_call),  # only as an argument of _reconstruct
    **{(f"{core}.multiarray", "_reconstruct"): Known(_empty_array) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): Known(_scalar) for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): Known(_array_of_buffer) for core in _CORES},
}


def _nothing(machine: Machine, argument: Any) -> None:
    """Pass over an operation that says how the file is written."""


def _text(machine: Machine, argument: str) -> None:
    machine.push(Text(argument.encode("latin-1")))


def _bytes_of_text(machine: Machine, argument: str) -> None:
    machine.push(argument.encode("latin-1"))  # a text of Python 2, which pickletools decodes


def _global(machine: Machine, argument: str) -> None:
    machine.named(*(argument.split(" ", 1) if " " in argument else (argument, "")))


OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG1"), lambda machine, value: machine.number(value)),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _bytes_of_text),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _text),
    **dict.fromkeys(
        ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda machine, value: machine.push(bytes(value))
    ),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.taken()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.taken()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.taken())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, place: machine.remember(place)),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.recall(place)),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda machine, _: machine.named_on_stack(),
    "REDUCE": lambda machine, _: machine.make(),
    "BUILD": lambda machine, _: machine.build(),
}
