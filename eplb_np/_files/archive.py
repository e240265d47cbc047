"""The package's own files: a header and some arrays, as ``.npz`` (no pickle) or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from eplb_np._files.json_text import MOST_NUMBERS, parse_json, read_json
from eplb_np._files.numpy_files import LARGEST_ARRAYS, Archive
from eplb_np._files.reading import open_regular, reading, suffix_of
from eplb_np._files.targets import write_to

LARGEST_HEADER = 1 << 25
SLACK = 1 << 16
"""Bytes that the arrays' own headers, and arrays of a fixed size, take at most."""


class ArchiveFormat(NamedTuple):
    """The name of a kind of file, and what it must hold."""

    name: str
    version: int
    suffixes: tuple[str, ...]
    needed: tuple[str, ...]
    tables: tuple[str, ...]
    """The arrays that a JSON file holds as tables."""
    numbers: Callable[[Mapping[str, Any]], int]
    """How many numbers all arrays have at most, from the header."""
    sized_by: str
    """What in the header says so."""
    complaint: str
    """What an error says after the path of a file of another kind."""

    def write(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        arrays: dict[str, Any],
    ) -> None:
        """Write a file in the format that its suffix selects."""
        suffix = suffix_of(path, self.suffixes)
        header = {"format": self.name, "version": self.version, **header}
        numbers = sum(array.size for array in arrays.values())
        most = MOST_NUMBERS if suffix == ".json" else (LARGEST_ARRAYS - SLACK) // 8
        if numbers > most:
            raise ValueError(f"{numbers:,} numbers are more than a {suffix} file holds: {most:,}")

        def write_json(file: BinaryIO) -> None:
            rows = {name: array.tolist() for name, array in arrays.items()}
            file.write(json.dumps({**header, **rows}).encode())

        def write_npz(file: BinaryIO) -> None:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

        write_to(path, write_json if suffix == ".json" else write_npz)

    @contextmanager
    def reading(self, path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
        """Read header and arrays into one dict; any error becomes a one-line ``ValueError``."""
        suffix = suffix_of(path, self.suffixes)
        with reading(path, self.complaint):
            with open_regular(path) as file:
                content = self.read(file, as_json=suffix == ".json")
            yield content

    def read(self, file: BinaryIO, *, as_json: bool) -> dict[str, Any]:
        """Read header and arrays of an open file."""
        if not as_json:
            return self._read_npz(Archive(file))
        content = read_json(file, self.tables)
        self._check(content, content)
        return content

    def _read_npz(self, archive: Archive) -> dict[str, Any]:
        if "header" not in archive.members:
            raise ValueError("it has no header")
        archive.check_size(["header"], LARGEST_HEADER, "a header may have")
        with archive.array("header") as stored:
            header = parse_json(str(stored.read()))
        names = archive.members.keys() - {"header"}
        self._check(header, header.keys() | names)
        room = 8 * self.numbers(header) + SLACK
        archive.check_size(names, min(room, LARGEST_ARRAYS), f"its {self.sized_by} leave room for")
        content = header
        for name in names:
            with archive.array(name) as stored:
                content[name] = stored.read()
        return content

    def _check(self, header: Mapping[str, Any], names: Collection[str]) -> None:
        if header.get("format") != self.name or header.get("version") != self.version:
            raise ValueError(
                f"it has format {header.get('format')!r:.100}, version "
                f"{header.get('version')!r:.100}, not format {self.name!r}, version {self.version}"
            )
        missing = set(self.needed).difference(names)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
