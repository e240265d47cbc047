"""What a path leads to, before anybody knows its format: a folder, or a file of some container."""

from __future__ import annotations

import codecs
import io
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from numpy.typing import NDArray

from eplb_np._arguments import one_line
from eplb_np._files.gzip_files import unpacked
from eplb_np._files.json_text import parse_json, parse_table, read_text
from eplb_np._files.numpy_files import MAGIC, Archive, StoredArray, open_npy
from eplb_np._files.reading import as_path, open_regular, printable, reading, size_of

Kind = Literal[
    "folder", "json", "lines", "npy", "npz", "pickled", "torch", "safetensors", "text"
]  # fmt: skip

KINDS: dict[Kind, str] = {
    "folder": "a folder",
    "json": "JSON",
    "lines": "JSON in each line",
    "npy": "an .npy array",
    "npz": "an .npz archive",
    "pickled": "an .npy file of a pickled object",
    "torch": "a file of torch.save",
    "safetensors": "a file of safetensors",
    "text": "text",
}

ZIP = b"PK\3\4"
EMPTY_ZIP = b"PK\5\6"
PICKLE = b"\x80"
HEAD = 1 << 12
OBJECT = re.compile(rb"'descr'\s*:\s*'\|?O'.*'shape'\s*:\s*\(\s*\)")
"""In the header of an array that is a single Python object, such as a dict."""
LONGEST_LINE = 1 << 24
BEGINNING = 1 << 18
LARGEST_TEXT = 1 << 26
"""Bytes of a text that is neither JSON nor JSON in each line."""

MOST_FILES = 1 << 14
"""Files of a folder that are looked at, which takes a tenth of a second."""

TABLES = (
    "logical_count",
    "physical_to_logical_map",
    "tokens_per_expert_stats_list",
    "ep_rank_to_expert_id_list",
    "phy2log",
    "phyrank",
    "tpe",
    "top_indices",
)
"""Keys of JSON objects that are tables in every format: what is wrong in one is said."""


class Contents:
    """A folder, or an open file whose container is known; what it holds is read when asked for."""

    def __init__(self, path: Path, file: BinaryIO | None, *, in_folder: bool = True) -> None:
        self.path = path
        self.in_folder = in_folder
        """Whether other files may lie beside it; else the path is only a name."""
        self._file = file
        self.kind: Kind = "folder" if file is None else _kind_of(file)

    @property
    def file(self) -> BinaryIO:
        """The file, unpacked if it was packed by gzip, at its start."""
        if self._file is None:
            raise ValueError("it is a folder, not a file")
        self._file.seek(0)
        return self._file

    def describe(self) -> str:
        """Say what this is, as far as it shows."""
        said = KINDS[self.kind]
        if self.kind == "text" and not self.beginning:
            return "binary, not text" if size_of(self.file) else "an empty file"
        if isinstance(self.value, dict):
            return f"{said} with the keys {', '.join(map(one_line, islice(self.value, 10)))}"
        return said

    def named(self, pattern: str) -> dict[str, re.Match[str]]:
        """Return the files of a folder whose whole names match, in the order of their names."""
        if self.kind != "folder":
            return {}
        with os.scandir(self.path) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_FILES + 1))
        if len(names) > MOST_FILES:
            raise ValueError(f"it has more than {MOST_FILES} files: give a folder of loads only")
        found = ((name, re.fullmatch(pattern, name)) for name in names)
        return {name: match for name, match in found if match is not None}

    @cached_property
    def json(self) -> dict[str, Any] | NDArray[Any]:
        """An object whose tables are arrays, or a list that is a table."""
        text = read_text(self.file)
        return parse_table(text) if text.lstrip()[:1] == "[" else parse_json(text, TABLES)

    @property
    def keys(self) -> frozenset[Any]:
        """Keys of a dict, be it JSON, of ``torch.save`` or pickled; none for anything else."""
        return frozenset(self.value if isinstance(self.value, dict) else ())

    @property
    def value(self) -> Any:
        """What a file holds whose container may hold any object; None for another container."""
        if self.kind == "json":
            return self.json
        if self.kind == "torch":
            return self.torch
        return self.pickled if self.kind == "pickled" else None

    @cached_property
    def first_record(self) -> dict[str, Any]:
        """The first object of JSON in each line; empty for anything else."""
        return next(self.records(), {}) if self.kind in ("json", "lines") else {}

    def records(self) -> Iterator[dict[str, Any]]:
        """Read the objects of JSON in each line, whose tables are arrays."""
        if self.kind == "json":  # a single line
            if isinstance(self.json, dict):
                yield self.json
            return
        file = self.file
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise ValueError(f"line {number} has more than {LONGEST_LINE >> 20} MiB")
            if line.isspace():
                continue
            try:
                record = parse_json(line.decode(), TABLES)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            yield record

    @property
    def place(self) -> int:
        """How many bytes of the file have been read, unpacked."""
        return 0 if self._file is None else self._file.tell()

    @cached_property
    def beginning(self) -> str:
        """The first characters of a text; none of what is no text, or JSON."""
        if self.kind != "text":
            return ""
        head = self.file.read(BEGINNING)
        try:  # a character at the end may be cut
            text = codecs.getincrementaldecoder(_encoding(head))().decode(head)
        except UnicodeDecodeError:
            return ""
        return "" if "\0" in text else _with_line_feeds(text)

    @cached_property
    def text(self) -> str:
        r"""All of a text, whose lines end in ``\n``."""
        size = size_of(self.file)
        if size > LARGEST_TEXT:
            raise ValueError(
                f"it has {size / 2**20:,.0f} MiB, more than the {LARGEST_TEXT >> 20} MiB of text "
                "that are read: write .npy"
            )
        content = self.file.read(LARGEST_TEXT)
        return _with_line_feeds(content.decode(_encoding(content)))

    @cached_property
    def npy(self) -> StoredArray:
        """An array, of which only the header has been read."""
        return open_npy(self.file)

    @cached_property
    def npz(self) -> Archive:
        """An archive of arrays."""
        return Archive(self.file)

    @cached_property
    def torch(self) -> Any:
        """What `torch.save` wrote: lists, dicts, numbers and NumPy arrays."""
        from eplb_np._files.torch_files import read_torch

        return read_torch(self.file)

    @cached_property
    def pickled(self) -> Any:
        """What `numpy.save` wrote of an object: as `torch`."""
        from eplb_np._files.pickled_arrays import read_pickled_npy

        return read_pickled_npy(self.file)


Source: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or a binary file that is open and can seek."""


def name_of(source: Source) -> str:
    """Return the path, or the name of an open file, as far as it has one, in one line."""
    if not isinstance(source, io.IOBase):
        return printable(cast("str | os.PathLike[str]", source))
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) else "the open file"


@contextmanager
def opened(source: Source) -> Iterator[Contents]:
    """Open a file or a folder; whatever is wrong with it becomes a one-line ``ValueError``."""
    if isinstance(source, io.IOBase):
        name = name_of(source)
        with reading(name):
            if isinstance(source, io.TextIOBase):
                raise ValueError("it is open as text: open it in binary mode")
            source.seek(0)
            yield Contents(Path(name), unpacked(cast(BinaryIO, source)), in_folder=False)
        return
    where = as_path(cast("str | os.PathLike[str]", source))
    with reading(where):
        if where.is_dir():
            yield Contents(where, None)
            return
        with open_regular(where) as file:
            yield Contents(where, unpacked(file))


def _encoding(content: bytes) -> str:
    """Return the encoding of a text: UTF-8, or UTF-16 that says so."""
    return (
        "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    )


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _kind_of(file: BinaryIO) -> Kind:
    """Tell the container by how the file begins."""
    head = file.read(HEAD)
    file.seek(0)
    if head[8:9] == b"{" and not any(head[4:8]):  # the length of a header, and the header
        return "safetensors"
    if head.startswith(MAGIC):
        return "pickled" if OBJECT.search(head) else "npy"
    if head.startswith((ZIP, EMPTY_ZIP)):
        return "torch" if _holds_a_pickle(file) else "npz"
    if head.startswith(PICKLE):
        return "torch"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith((b"{", b"[")):
        return "text"
    line = file.readline(LONGEST_LINE)
    following = file.read(HEAD).lstrip()
    file.seek(0)
    return "lines" if line.rstrip().endswith(b"}") and following[:1] == b"{" else "json"


def _holds_a_pickle(file: BinaryIO) -> bool:
    try:
        names = list(Archive(file).members)
    except (ValueError, zipfile.BadZipFile):
        return False  # and the archive's reader will say why
    finally:
        file.seek(0)
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)
