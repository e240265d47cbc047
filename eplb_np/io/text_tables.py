"""Tables in text: CSV, TSV, or numbers between semicolons or blanks.

A line for each layer, or, with a header that says so, one for each layer and expert, as Megatron's
``analyze_routing_concentration.py`` writes. One table is one step.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, one_line
from eplb_np.io.contents import Contents
from eplb_np.io.recorded import Asked, Recording, check_shape

MOST_LINES = 1 << 20
MOST_ROWS = 1 << 17
MOST_COLUMNS = 1 << 20
MOST_NUMBERS = 1 << 23
"""Half of what arrays may have, because that they are zeros shows at their end only."""

MOST_ENTRIES = 1 << 18
LONGEST_NAME = 100
"""Characters of what can be the name of a column, or is shown of a cell."""

LONGEST_COMMENT = 1 << 20
FIRST_LINES = 4
"""Lines of which one must be a row of numbers."""

SEPARATORS = ("\t", ";", ",")
ID = re.compile(r"\s*\d{1,7}\s*", re.ASCII)
NOT_IN_ROWS = re.compile(r"[\[\]{}<>()=:]")
LONGEST_ID = 7
DIGITS = "0123456789"

# Headers in small letters, without anything but letters and digits.
LAYER = ("layer", "layerid", "layeridx", "layerindex")
INDEX = ("", "unnamed0")
"""Of a column without a name, as pandas writes its index, also once more."""
EXPERT = ("expert", "expertid", "expertidx", "expertindex")
COUNT = ("count", "counts", "tokens", "load", "loads")
BLOCK, DRAFT = "block", "mtpidx"

COUNTS_UP = 4
"""Columns from which on a first line 0, 1, 2, ... is taken for the names of columns."""

Lines = Iterator[tuple[int, str]]


class Header(NamedTuple):
    """What the columns of a table are, as its header says."""

    has_ids: bool = False
    experts: NDArray[np.int64] | None = None
    """Expert of each column behind the ids."""
    notes: tuple[str, ...] = ()


def recognise(contents: Contents) -> bool:
    """Whether one of the first lines of a text is a row of numbers, or the first one a header."""
    lines = _uncommented(_lines(contents.beginning))
    first = [line for _, line in islice(lines, FIRST_LINES)]
    if not first:
        return False
    separator = _separator(first[0])
    return _is_header(first[0], separator) or any(_is_row(line, separator) for line in first)


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read the table, of either form."""
    lines = _lines(contents.text)
    comment, number, line = _first_line(lines)
    separator = _separator(line)
    cells = _cells(number, line, separator)
    said = comment.split(separator, MOST_COLUMNS)
    rest = _uncommented(lines)
    if len(said) == len(cells) and _plain(said[0]) in LAYER:  # a header that is a comment
        rest = chain([(number, line)], rest)
        cells = said
    elif all(map(_is_float, cells)):
        second = list(islice(rest, 1))
        rest = chain(second, rest)
        if not second or not _counts_up(cells, _cells(*second[0], separator)):
            rest = chain([(number, line)], rest)
            return _read_rows(rest, separator, len(cells), Header())
    elif any(map(_is_float, cells)) and _plain(cells[0]) not in (*LAYER, *INDEX):
        _check_loads(number, cells)
    names = [_plain(cell) for cell in cells]
    if all(_find(names, wanted) >= 0 for wanted in (LAYER, EXPERT, COUNT)):
        columns = _entry_columns(number, cells, names)
        return _read_entries(rest, separator, columns, asked.num_experts)
    return _read_rows(rest, separator, len(cells), _understand(number, cells))


def _first_line(lines: Lines) -> tuple[str, int, str]:
    """Return the first line with its number, and the comment above it."""
    comment = ""
    for number, line in lines:
        if not line.startswith("#"):
            return comment, number, line
        comment = line[1:LONGEST_COMMENT].strip().replace('"', "")
    raise ValueError("it has no line with numbers")


def _lines(text: str) -> Lines:
    """Yield the lines that are not blank, with their numbers."""
    place = number = 0
    while place < len(text):
        number += 1
        if number > MOST_LINES:
            raise ValueError(f"it has more than {MOST_LINES} lines: write .npy")
        end = text.find("\n", place)
        line = text[place : end if end >= 0 else len(text)].strip(" ")
        place = end + 1 if end >= 0 else len(text)
        if line and not line.isspace():
            yield number, line


def _uncommented(lines: Lines) -> Lines:
    return ((number, line) for number, line in lines if not line.startswith("#"))


def _separator(line: str) -> str | None:
    """Return what is between the cells; None for blanks."""
    return next((separator for separator in SEPARATORS if separator in line), None)


def _cells(number: int, line: str, separator: str | None) -> list[str]:
    """Return the cells of a line, without a comment at its end."""
    if '"' not in line:
        line = line.partition("#")[0]
        cells = line.split(separator, MOST_COLUMNS)
    elif line.count(separator or " ") >= MOST_COLUMNS:
        cells = [""] * (MOST_COLUMNS + 1)
    else:
        try:
            cells = next(
                csv.reader([line], delimiter=separator or " ", skipinitialspace=True, strict=True)
            )
        except csv.Error as error:
            raise ValueError(f"line {number}: {error}") from None
    if len(cells) > MOST_COLUMNS:
        raise ValueError(f"line {number} has more than {MOST_COLUMNS} columns")
    return cells


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_header(line: str, separator: str | None) -> bool:
    """Whether some cell is the name of a column of layers, and not only a word among others."""
    if separator is None or NOT_IN_ROWS.search(line):
        return False
    return any(_plain(cell) in LAYER for cell in line.split(separator))


def _is_row(line: str, separator: str | None) -> bool:
    """Whether most cells are numbers, and nothing looks like markup, YAML or a program."""
    if NOT_IN_ROWS.search(line):
        return False
    cells = [cell for cell in line.replace('"', "").split(separator) if cell.strip()]
    return 2 * sum(map(_is_float, cells)) > len(cells)


def _plain(name: str) -> str:
    """Return a name in small letters, without blanks and signs."""
    return "".join(c for c in name[:LONGEST_NAME].lower() if c.isalnum())


def _shown(cell: str) -> str:
    return one_line(cell.strip()[:LONGEST_NAME])


def _find(names: Sequence[str], wanted: Sequence[str]) -> int:
    """Return the first column with such a name, or -1."""
    return next((i for i, name in enumerate(names) if name in wanted), -1)


def _counts_up(cells: list[str], following: list[str]) -> bool:
    """Whether a line holds 0, 1, 2, ..., and the next one does not go on like that."""
    size = len(cells)
    if size < COUNTS_UP or [cell.strip() for cell in cells] != [str(i) for i in range(size)]:
        return False
    return [cell.strip() for cell in following] != [str(i) for i in range(size, 2 * size)]


def _understand(number: int, cells: list[str]) -> Header:
    """Find the experts in a header, or say which column is none."""
    has_ids = _plain(cells[0]) in (*LAYER, *INDEX)
    names = [cell.strip() for cell in cells[has_ids:]]
    prefixes = [name.rstrip(DIGITS) for name in names]
    prefix = prefixes[0] if prefixes else ""
    if _plain(prefix).startswith("layer"):
        raise ValueError(
            f"line {number} names layers, not experts: give a row for each layer, and a column for "
            "each expert"
        )
    for column, name in enumerate(names):
        if prefixes[column] != prefix or not 0 < len(name) - len(prefix) <= LONGEST_ID:
            raise ValueError(
                f"line {number}, column {1 + has_ids + column}: {_shown(name)} is no expert: name "
                "the experts expert_0, expert_1 and so on, a first column of layer ids layer, and "
                "leave out other columns"
            )
    experts = np.array([int(name[len(prefix) :]) for name in names], np.int64)
    if experts.size and experts.min() == 1:
        experts -= 1
    if not np.array_equal(np.sort(experts), np.arange(len(experts))):
        raise ValueError(
            f"line {number} does not name all experts from the first one on, each once"
        )
    notes: tuple[str, ...] = ()
    if not has_ids and not prefix:
        notes = (f"line {number}, which counts from {cells[0].strip()} on, is taken for a header",)
    return Header(has_ids, experts, notes)


def _read_rows(lines: Lines, separator: str | None, width: int, header: Header) -> Recording:
    """Read a line for each layer."""
    rows: list[NDArray[np.float64]] = []
    line_of: dict[int, int] = {}
    for number, line in lines:
        cells = _cells_of_row(number, line, separator, width)
        if header.has_ids:
            layer = _as_id(number, 1, cells[0], "a layer id")
            if layer in line_of:
                raise ValueError(f"line {number} is of layer {layer}, as line {line_of[layer]} is")
            line_of[layer] = number
        rows.append(_numbers(number, line, cells, int(header.has_ids)))
        if len(rows) > MOST_ROWS or len(rows) * width > MOST_NUMBERS:
            raise ValueError(
                f"it has more than {MOST_ROWS} rows, or {MOST_NUMBERS} numbers: write .npy"
            )
    if not rows:
        raise ValueError("it has a header, but no line with numbers")
    counts = np.stack(rows)
    if header.experts is not None:
        counts = counts[:, np.argsort(header.experts)]
    ids = None
    if header.has_ids:
        ids = sorted(line_of)
        counts = counts[np.argsort(list(line_of))]
    return Recording(counts, in_order=True, layer_ids=ids, name="the table", notes=header.notes)


def _entry_columns(number: int, cells: list[str], names: list[str]) -> list[int]:
    """Return where the layer, the expert and the count are, and the block or -1."""
    columns = [_find(names, wanted) for wanted in (LAYER, EXPERT, COUNT, (BLOCK,))]
    for column, name in enumerate(names):
        if column not in columns and name != DRAFT:
            raise ValueError(
                f"line {number}, column {column + 1}: {_shown(cells[column])} is not known beside "
                "layer, expert and count: add up over it, and leave it out"
            )
    return [*columns, len(names)]


def _read_entries(
    lines: Lines, separator: str | None, columns: list[int], num_experts: int | None
) -> Recording:
    """Read a line for each layer and expert; those that are missing have no load."""
    layer_at, expert_at, count_at, block_at, width = columns
    entries: dict[tuple[int, int], float] = {}
    drafts = 0
    for number, line in lines:
        cells = _cells_of_row(number, line, separator, width)
        block = cells[block_at].strip() if block_at >= 0 else "decoder"
        if block == "mtp":
            drafts += 1
            continue
        if block != "decoder":
            raise ValueError(
                f"line {number}, column {block_at + 1}: {_shown(block)} is no block of layers: "
                "decoder and mtp are"
            )
        layer = _as_id(number, layer_at + 1, cells[layer_at], "a layer id")
        expert = _as_id(number, expert_at + 1, cells[expert_at], "an expert id")
        if num_experts is not None and expert >= num_experts:
            raise ValueError(f"line {number} is of expert {expert}, of num_experts={num_experts}")
        if (layer, expert) in entries:
            raise ValueError(f"line {number} is of layer {layer} and expert {expert} once more")
        entries[layer, expert] = _number(number, line, cells, count_at)
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"it has more than {MOST_ENTRIES} layers and experts: write .npy")
    if not entries:
        raise ValueError("it has a header, but no line with numbers")
    notes = [f"draft layers (mtp) are left out, {drafts} lines"] if drafts else []
    if num_experts is None:
        num_experts = 1 + max(expert for _, expert in entries)
        notes.append(
            f"the model is taken to have {num_experts} experts, the last one in the table: give "
            "num_experts if there are more"
        )
    ids = sorted({layer for layer, _ in entries})
    check_shape((len(ids), num_experts), "the table")
    row_of = {layer: row for row, layer in enumerate(ids)}
    counts = np.zeros((len(ids), num_experts))
    for (layer, expert), count in entries.items():
        counts[row_of[layer], expert] = count
    return Recording(counts, in_order=True, layer_ids=ids, name="the table", notes=tuple(notes))


def _cells_of_row(number: int, line: str, separator: str | None, width: int) -> list[str]:
    cells = _cells(number, line, separator)
    if len(cells) != width:
        raise ValueError(
            f"line {number} has {len(cells)} columns, and the first one has {width}: give every "
            "line the same number"
        )
    return cells


def _as_id(number: int, column: int, cell: str, what: str) -> int:
    if not ID.fullmatch(cell) or int(cell) > LARGEST_SIZE:
        raise ValueError(
            f"line {number}, column {column}: {_shown(cell)} is not {what}: give a whole number "
            f"from 0 to {LARGEST_SIZE}"
        )
    return int(cell)


def _numbers(number: int, line: str, cells: list[str], skip: int) -> NDArray[np.float64]:
    """Return the loads in the cells behind the first ones."""
    try:
        row = np.fromiter(map(float, cells[skip:]), np.float64, len(cells) - skip)
    except ValueError:
        row = np.empty(0)
    if not row.size or not row.min() >= 0 or not row.max() < np.inf or not _is_plain(line):
        _check_loads(number, cells, skip)
    return row


def _number(number: int, line: str, cells: list[str], at: int) -> float:
    """Return the load in one cell."""
    value = float(cells[at]) if _is_float(cells[at]) else -1.0
    if not 0 <= value < np.inf or not _is_plain(line):
        _check_loads(number, cells[: at + 1], at)
    return value


def _is_plain(text: str) -> bool:
    """Whether ``float`` reads nothing in a text that is no number elsewhere, such as 1_000."""
    return text.isascii() and "_" not in text


def _check_loads(number: int, cells: list[str], skip: int = 0) -> None:
    """Name the first cell, behind the first ones, that is no load."""
    for column, cell in enumerate(cells[skip:], skip + 1):
        known = _is_float(cell) and _is_plain(cell)
        if known and 0 <= float(cell) < np.inf:
            continue
        place = f"line {number}, column {column}"
        if known:
            raise ValueError(
                f"{place}: {_shown(cell)}: a load must be finite and not negative: clean the loads "
                "first"
            )
        if cell.strip():
            raise ValueError(f"{place}: {_shown(cell)} is not a number")
        raise ValueError(f"{place} is empty: give a number, 0 where nothing was counted")
