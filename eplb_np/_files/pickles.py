"""Pickles from untrusted files: few opcodes are read, and only functions of ours are called.

A pickle is a program. This is an interpreter of the part of its language that lists, dicts, texts
and numbers need. It never imports a name: callers say which names stand for which functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

LARGEST_PICKLE = 1 << 24
"""Bytes of a pickle."""

MOST_STEPS = 3 << 18
"""Opcodes of all pickles of a file: half a second's work, and at most 300 MB of objects."""

STEPS_OF_CALL = 8
"""What a name or a call counts as: they take longer, and are at most one opcode in ten."""

LONGEST_NAME = 256

PROTOCOLS = range(2, 6)
STOP = ord(".")

Names = Mapping[str, Callable[..., Any] | None]
"""What to call for ``module.name``; ``None`` for a name that may only be an argument."""


class Global:
    """A name in a pickle: to call, or as an argument of a call."""

    def __init__(self, name: str, call: Callable[..., Any] | None) -> None:
        self.name = name
        self.call = call


class Unfinished:
    """What a call returns that is no plain value yet."""

    def build(self, state: Any) -> None:
        """Take what the pickle says of the object after it has been made."""
        raise ValueError("its pickle sets attributes of what has none")

    def finish(self) -> Any:
        """Return the array or number that it stands for."""
        raise NotImplementedError


class Pickles:
    """One pickle after the other, from bytes."""

    def __init__(
        self, data: bytes, names: Names, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.place = 0
        self._data = data
        self._names = names
        self._persistent = persistent
        self._steps_left = MOST_STEPS
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what the stack was at each mark
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Run the next pickle; `plain_values.plain` makes its result plain."""
        self._stack, self._below, self._memo = [], [], {}
        start = self.place
        try:
            while (code := self._data[self.place]) != STOP:
                self.place += 1
                self._steps_left -= 1
                if self._steps_left < 0:
                    raise ValueError(f"its pickle has more than {MOST_STEPS} steps: save less")
                step = STEPS.get(code)
                if step is None:
                    name = REFUSED.get(code, f"{code:#04x}")
                    raise ValueError(f"its pickle has the opcode {name}, which is not read")
                step(self)
        except (IndexError, KeyError):
            raise ValueError(
                f"its pickle is damaged, or larger than {LARGEST_PICKLE >> 20} MiB: byte "
                f"{self.place - start} needs what is not there"
            ) from None
        self.place += 1
        if len(self._stack) != 1 or self._below:
            raise ValueError("its pickle does not end with one value")
        return self._stack[0]

    def end(self) -> None:
        """Raise ``ValueError`` if anything follows."""
        if self.place != len(self._data):
            raise ValueError("its pickle is followed by more data")

    def _take(self, size: int) -> bytes:
        start, end = self.place, self.place + size
        if end > len(self._data):
            raise IndexError
        self.place = end
        return self._data[start:end]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _items(self) -> list[Any]:
        """Take what lies above the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _top(self, kind: type) -> Any:
        found = self._stack[-1]
        if type(found) is not kind:
            what, wanted = type(found).__name__, kind.__name__
            raise ValueError(f"its pickle has something of type {what} in place of a {wanted}")
        return found

    def _pop(self, kind: type) -> Any:
        self._top(kind)
        return self._stack.pop()

    # One method for each opcode, or for opcodes that differ in a size.

    def _protocol(self) -> None:
        protocol = self._number(1)
        if protocol not in PROTOCOLS:
            raise ValueError(f"its pickle is of protocol {protocol}, which is not read")

    def _frame(self) -> None:
        self._take(8)

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _signed(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number(1)), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _text(self, width: int) -> None:
        try:
            self._stack.append(self._take(self._number(width)).decode())
        except UnicodeDecodeError:
            raise ValueError("its pickle has a text that is not UTF-8") from None

    def _bytes(self, width: int) -> None:
        self._stack.append(self._take(self._number(width)))

    def _last(self, count: int) -> None:
        """Make a tuple of the last values."""
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _tuple(self) -> None:
        made = tuple(self._items())
        self._stack.append(made)

    def _append(self) -> None:
        value = self._stack.pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _store(self._top(dict), key, value)

    def _set_items(self) -> None:
        items = self._items()
        target = self._top(dict)
        if len(items) % 2:
            raise ValueError("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _store(target, key, value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._push_global(module, name)

    def _line(self) -> str:
        end = self._data.find(b"\n", self.place, self.place + LONGEST_NAME)
        if end < 0:
            raise ValueError("its pickle has a name without an end")
        line = self._take(end - self.place)
        self.place += 1
        return line.decode("latin-1")

    def _stack_global(self) -> None:
        name, module = self._pop(str), self._pop(str)
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        self._steps_left -= STEPS_OF_CALL
        full = f"{module}.{name}"
        if "." in name or full not in self._names:
            raise ValueError(
                f"its pickle names {full[:100]}, which is not loaded: only arrays of real "
                "numbers are, and lists, dicts, texts and numbers around them"
            )
        self._stack.append(Global(full, self._names[full]))

    def _reduce(self) -> None:
        self._steps_left -= STEPS_OF_CALL
        arguments = self._pop(tuple)
        called = self._pop(Global)
        if called.call is None:
            raise ValueError(f"its pickle calls {called.name}, which is not called")
        try:
            self._stack.append(called.call(*arguments))
        except TypeError:
            raise ValueError(
                f"its pickle calls {called.name} with {len(arguments)} arguments of a wrong kind"
            ) from None

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Unfinished):
            target.build(state)
        elif type(target) is not dict:  # attributes of an OrderedDict are not needed
            raise ValueError(
                f"its pickle sets attributes of something of type {type(target).__name__}"
            )

    def _persist(self) -> None:
        if self._persistent is None:
            raise ValueError("its pickle has the opcode BINPERSID, which is not read")
        self._stack.append(self._persistent(self._stack.pop()))


def _store(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Set an item; the hashes of keys take no time, and cannot all be the same."""
    if type(key) not in (str, bytes) and (type(key) is not int or key.bit_length() > 64):
        raise ValueError(f"its pickle has a {type(key).__name__} as the key of a dict")
    target[key] = value


STEPS: dict[int, Callable[[Pickles], None]] = {
    0x80: Pickles._protocol,
    0x95: Pickles._frame,
    ord("("): Pickles._mark,
    ord("N"): lambda pickles: pickles._stack.append(None),
    0x88: lambda pickles: pickles._stack.append(True),
    0x89: lambda pickles: pickles._stack.append(False),
    ord("J"): Pickles._signed,
    ord("K"): lambda pickles: pickles._stack.append(pickles._number(1)),
    ord("M"): lambda pickles: pickles._stack.append(pickles._number(2)),
    0x8A: Pickles._long,
    ord("G"): Pickles._float,
    0x8C: lambda pickles: pickles._text(1),
    ord("X"): lambda pickles: pickles._text(4),
    ord("C"): lambda pickles: pickles._bytes(1),
    ord("B"): lambda pickles: pickles._bytes(4),
    0x96: lambda pickles: pickles._bytes(8),  # a bytearray
    ord("]"): lambda pickles: pickles._stack.append([]),
    ord("}"): lambda pickles: pickles._stack.append({}),
    ord(")"): lambda pickles: pickles._stack.append(()),
    0x85: lambda pickles: pickles._last(1),
    0x86: lambda pickles: pickles._last(2),
    0x87: lambda pickles: pickles._last(3),
    ord("t"): Pickles._tuple,
    ord("a"): Pickles._append,
    ord("e"): Pickles._appends,
    ord("s"): Pickles._set_item,
    ord("u"): Pickles._set_items,
    ord("q"): lambda pickles: pickles._put(pickles._number(1)),
    ord("r"): lambda pickles: pickles._put(pickles._number(4)),
    0x94: lambda pickles: pickles._put(len(pickles._memo)),
    ord("h"): lambda pickles: pickles._get(pickles._number(1)),
    ord("j"): lambda pickles: pickles._get(pickles._number(4)),
    ord("c"): Pickles._global,
    0x93: Pickles._stack_global,
    ord("R"): Pickles._reduce,
    ord("b"): Pickles._build,
    ord("Q"): Pickles._persist,
}

REFUSED = {
    ord("0"): "POP", ord("1"): "POP_MARK", ord("2"): "DUP", ord("F"): "FLOAT", ord("I"): "INT",
    ord("L"): "LONG", ord("P"): "PERSID", ord("S"): "STRING", ord("T"): "BINSTRING",
    ord("U"): "SHORT_BINSTRING", ord("V"): "UNICODE", ord("d"): "DICT", ord("g"): "GET",
    ord("i"): "INST", ord("l"): "LIST", ord("o"): "OBJ", ord("p"): "PUT", 0x81: "NEWOBJ",
    0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x8B: "LONG4", 0x8D: "BINUNICODE8",
    0x8E: "BINBYTES8", 0x8F: "EMPTY_SET", 0x90: "ADDITEMS", 0x91: "FROZENSET",
    0x92: "NEWOBJ_EX", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
}  # fmt: skip
