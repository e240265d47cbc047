"""JSON objects from untrusted files, whose tables of numbers are read row by row.

A few bytes of JSON can become a Python object of fifty. So a table is checked as it is read, and
whatever is no table is short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.reading import size_of

LARGEST_JSON = 1 << 28
"""Bytes of a file."""

LARGEST_UNICODE = 1 << 26
"""The same, unless it is ASCII: Python takes up to four bytes for each character."""

LONGEST_REST = 1 << 23
"""Characters of all values that are not tables, together."""

MOST_ROWS = 1 << 17
MOST_COLUMNS = 1 << 20
MOST_NUMBERS = 1 << 24
"""Numbers that are written: up to eight digits each, a quarter of them to spare."""

MOST_KEYS = 1 << 10

SHORT_VALUE = 1 << 12
"""Characters that are tried first: most values are short, and are not searched in all the rest."""

SPACE = re.compile(r"[ \t\n\r]*")
OPENING = re.compile(r"\[(?:[ \t\n\r]*\[){1,3}")
NEXT_ROW = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=\[)")
NEXT_STEP = re.compile(r"[ \t\n\r]*\][ \t\n\r]*,[ \t\n\r]*\[[ \t\n\r]*(?=\[)")
CLOSING = {axes: re.compile(r"[ \t\n\r]*\]" * (axes - 1)) for axes in (2, 3)}


class Limits(NamedTuple):
    """How much of a text is no table of numbers."""

    keys: int = MOST_KEYS
    all_values: int = LONGEST_REST
    value: int = LONGEST_REST


def read_json(file: BinaryIO, tables: Collection[str]) -> dict[str, Any]:
    """Read a JSON object. Its ``tables``, with two or three axes, become arrays of numbers."""
    return parse_json(read_text(file), tables)


def read_text(file: BinaryIO) -> str:
    """Read a text of any of the encodings that JSON may have."""
    size = size_of(file)
    if size > LARGEST_JSON:
        raise ValueError(
            f"it has {size / 2**20:,.0f} MiB, more than the {LARGEST_JSON >> 20} MiB of JSON that "
            "are read: write .npz"
        )
    content = file.read(LARGEST_JSON)
    if len(content) > LARGEST_UNICODE and not content.isascii():
        raise ValueError(
            f"it has more than {LARGEST_UNICODE >> 20} MiB, and characters that are not ASCII"
        )
    return content.decode(json.detect_encoding(content))


def parse_table(text: str) -> NDArray[Any]:
    """Return an array from a JSON list that is a table with two or three axes."""
    parser = _Parser(text, Limits())
    table, place = parser.table_or_value(parser.skip(0), wanted=True)
    parser.end(place)
    if not isinstance(table, np.ndarray):
        raise ValueError(
            f"it holds a JSON {type(table).__name__}, not a table of numbers: give a list of rows"
        )
    return table


def parse_json(text: str, tables: Collection[str] = ()) -> dict[str, Any]:
    """As `read_json`, from a text."""
    return dict(members(text, tables))


def members(
    text: str, tables: Collection[str] = (), limits: Limits | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of an object as they are read; otherwise as `parse_json`."""
    limits = limits or Limits()
    parser = _Parser(text, limits)
    found: set[str] = set()
    place = parser.skip(0)
    if text[place : place + 1] != "{":
        value, place = parser.value(place)
        raise ValueError(f"it holds a JSON {type(value).__name__}, not an object")
    place = parser.skip(place + 1)
    if text[place : place + 1] == "}":
        parser.end(place + 1)
        return
    while True:
        parser.expect(place, '"')
        name, place = scanstring(text, place + 1, True)
        if name in found:
            raise ValueError(f"it has the key {name!r} twice")
        if len(found) == limits.keys:
            raise ValueError(f"it has more than {limits.keys} keys")
        found.add(name)
        place = parser.skip(parser.expect(parser.skip(place), ":"))
        value, place = parser.table_or_value(place, name in tables)
        yield name, value
        place = parser.skip(place)
        if text[place : place + 1] == "}":
            parser.end(place + 1)
            return
        place = parser.skip(parser.expect(place, ","))


class _Parser:
    """Reads values from a text, at a place, and says where they end."""

    def __init__(self, text: str, limits: Limits) -> None:
        self._text = text
        self._limits = limits
        self._rest = limits.all_values
        self._decoder: Any = json.JSONDecoder(object_pairs_hook=_unique)

    def skip(self, place: int) -> int:
        return SPACE.match(self._text, place).end()  # type: ignore[union-attr]

    def expect(self, place: int, what: str) -> int:
        if self._text[place : place + 1] != what:
            said = "quoted key" if what == '"' else f"{what!r} delimiter"
            raise ValueError(f"Expecting a {said} at character {place}")
        return place + 1

    def end(self, place: int) -> None:
        if self.skip(place) != len(self._text):
            raise ValueError(f"more data follows its end, at character {place}")

    def table_or_value(self, place: int, wanted: bool) -> tuple[Any, int]:
        opening = OPENING.match(self._text, place)
        if opening is not None:
            try:
                return self._table(opening)
            except ValueError:
                if wanted:
                    raise
        return self.value(place)

    def value(self, place: int) -> tuple[Any, int]:
        """Read a value that is short enough to be anything."""
        size = SHORT_VALUE
        while True:
            size = min(size, self._rest, self._limits.value)
            part = self._text[place : place + size]
            cut = place + size < len(self._text)
            try:
                value, length = self._decoder.raw_decode(part)
            except json.JSONDecodeError as error:
                if not cut:
                    raise ValueError(f"{error.msg} at character {place + error.pos}") from None
                length = size
            if length < size or not cut:  # a number could go on behind the end
                self._rest -= length
                return value, place + length
            if size == self._limits.value < self._rest:
                raise ValueError(f"the value at character {place} has more than {size} characters")
            if size == self._rest:
                raise ValueError(
                    f"it has more than {self._limits.all_values >> 20} MiB that are no tables of "
                    "numbers"
                )
            size *= 64

    def _table(self, opening: re.Match[str]) -> tuple[NDArray[Any], int]:
        """Read rows of numbers up to the bracket that closes the first one."""
        depth = opening.group().count("[")
        if depth > 3:
            raise ValueError(f"a table has {depth} axes or more: at most 3 are read")
        rows: list[NDArray[Any]] = []
        ends: list[int] = []  # rows up to the end of each step
        place = opening.end() - 1
        while True:
            row, place = self._row(place)
            if rows and len(row) != len(rows[0]):
                raise ValueError(
                    f"a table is not rectangular: row {len(rows)} has {len(row)} entries, and "
                    f"row 0 has {len(rows[0])}: give every row the same length"
                )
            rows.append(row)
            if len(rows) > MOST_ROWS:
                raise ValueError(f"a table has more than {MOST_ROWS} rows: write .npz")
            following = NEXT_ROW.match(self._text, place)
            if following is None and depth == 3:
                following = NEXT_STEP.match(self._text, place)
                if following is not None:
                    ends.append(len(rows))
            if following is None:
                break
            place = following.end()
        closing = CLOSING[depth].match(self._text, place)
        if closing is None:
            raise ValueError(f"Expecting ',' delimiter, ']' or a row at character {place}")
        table = np.stack(rows)
        if depth == 2:
            return table, closing.end()
        ends.append(len(rows))
        if ends != list(range(ends[0], len(rows) + 1, ends[0])):
            raise ValueError("a table is not rectangular: give every step the same length")
        return table.reshape(len(ends), ends[0], -1), closing.end()

    def _row(self, place: int) -> tuple[NDArray[Any], int]:
        text = self._text
        end = text.find("]", place) + 1
        if end == 0:
            raise ValueError(f"Expecting a ',' delimiter or ']' at character {len(text)}")
        columns = text.count(",", place, end) + 1
        if columns > MOST_COLUMNS:
            raise ValueError(f"a row has {columns} entries: at most {MOST_COLUMNS} are read")
        for other in '["{':
            if text.find(other, place + 1, end) >= 0:
                raise ValueError(
                    f"the row at character {place} does not hold a real number everywhere: give a "
                    "rectangular table"
                )
        try:
            values, _ = self._decoder.scan_once(text, place)
        except (StopIteration, json.JSONDecodeError):
            raise ValueError(f"the row at character {place} is not JSON") from None
        row = np.asarray(values)
        if row.dtype.kind not in "biuf":
            raise ValueError(
                f"the row at character {place} has an entry that is not a real number of 64 bits"
            )
        return row, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has the key {name!r} twice")
        found[name] = value
    return found
