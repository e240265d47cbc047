"""The package's own files: a header and some arrays, as ``.npz`` (no pickle) or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from eplb_np._files.atomic import write_atomically
from eplb_np._files.reading import reading, suffix_of


class ArchiveFormat(NamedTuple):
    """The name of a kind of file, and what it must hold."""

    name: str
    version: int
    suffixes: tuple[str, ...]
    needed: tuple[str, ...]
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

        def write_json(file: BinaryIO) -> None:
            rows = {name: array.tolist() for name, array in arrays.items()}
            file.write(json.dumps({**header, **rows}).encode())

        def write_npz(file: BinaryIO) -> None:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

        write_atomically(path, write_json if suffix == ".json" else write_npz)

    @contextmanager
    def reading(self, path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
        """Read header and arrays into one dict; any error becomes a one-line ``ValueError``."""
        suffix = suffix_of(path, self.suffixes)
        with reading(path, self.complaint):
            content = _read_json(path) if suffix == ".json" else _read_npz(path)
            if content.get("format") != self.name or content.get("version") != self.version:
                raise ValueError(
                    f"it has format {content.get('format')!r}, version "
                    f"{content.get('version')!r}, not format {self.name!r}, version {self.version}"
                )
            missing = set(self.needed).difference(content)
            if missing:
                raise ValueError(f"it has no {', '.join(sorted(missing))}")
            yield content


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a JSON {type(content).__name__}, not an object")
    return content


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        content = {name: archive[name] for name in archive.files}
    if "header" not in content:
        raise ValueError("it has no header")
    return {**json.loads(str(content.pop("header"))), **content}
