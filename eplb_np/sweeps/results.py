"""The file of a sweep's results: a line for each case, on the disk before the next one is done.

A process that is killed leaves a last line without an end, at worst. It is dropped, and its case is
done again. The first line says of which loads and settings the results are.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from eplb_np._arguments import said_by
from eplb_np._files.json_text import parse_json
from eplb_np._files.reading import printable, reading
from eplb_np._files.targets import target_of
from eplb_np.sweeps.cases import Case
from eplb_np.sweeps.interrupts import interrupts_held
from eplb_np.sweeps.measure import SweptCase

FORMAT = "eplb_np.sweep"
BEGINNING = f'{{"format": "{FORMAT}"'.encode()
LARGEST_FILE = 1 << 24  # 40,000 cases
LONGEST_LINE = 1 << 12
NOT_OURS = "it holds no results of a sweep: give another file"


class ResultsFile:
    """A file of results, open to add to. Nobody else may add to it meanwhile.

    Parameters
    ----------
    path : path-like
        An existing file of the same sweep, or a new one.
    header : mapping
        Of which loads and settings the results are.

    Raises
    ------
    ValueError
        If the file holds something else, or results of other loads or settings, or another
        process adds to it.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        target = target_of(path).path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._path = path
        self._file = os.open(target, flags, 0o666)
        try:
            self._lock()
            with reading(path):
                self.done: dict[Case, SweptCase] = self._read(header)
            if not os.fstat(self._file).st_size:
                self._append({"format": FORMAT, **header})
                _keep_name(target)
        except BaseException:
            self.close()
            raise

    def append(self, swept: SweptCase) -> None:
        """Write the results of a case, and wait until the disk has them."""
        with interrupts_held():  # what is written is also known to be
            self._append(asdict(swept))
            self.done[swept.case] = swept

    def close(self) -> None:
        """Let others add to the file."""
        os.close(self._file)

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        rest = json.dumps(row).encode() + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, printable(self._path)) from None

    def _lock(self) -> None:
        try:
            import fcntl
        except ModuleNotFoundError:  # on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ValueError(
                    f"{printable(self._path)}: another sweep is writing to it: wait for it, or "
                    "give another file"
                ) from None  # else a file system without locks

    def _read(self, header: Mapping[str, Any]) -> dict[Case, SweptCase]:
        size = os.fstat(self._file).st_size
        if size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE >> 20} MiB, so {NOT_OURS}")
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read(LARGEST_FILE)
        if content and not BEGINNING.startswith(content[: len(BEGINNING)]):
            raise ValueError(NOT_OURS)
        whole = content.rfind(b"\n") + 1
        lines = _lines(content[:whole])
        first = next(lines, None)
        if first is not None:
            _check_same(first, header)
        done: dict[Case, SweptCase] = {}
        for number, line in enumerate(lines, 2):
            swept = _as_swept(line, number)
            done.setdefault(swept.case, swept)
        if whole < size:
            os.ftruncate(self._file, whole)
        return done


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), 1):
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} is too long, so {NOT_OURS}")
        try:
            yield parse_json(line.decode())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is damaged ({said_by(error)}): remove it") from None


def _check_same(found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    for name, value in header.items():
        if found.get(name) != value:
            what = "other loads" if name == "loads" else f"{name}={found.get(name)!r}"
            raise ValueError(
                f"it holds the results of a sweep with {what}, not of this one: give another file, "
                "or remove it"
            )


def _as_swept(row: Mapping[str, Any], number: int) -> SweptCase:
    kinds = {field.name: field.type for field in fields(SweptCase)}
    if row.keys() != kinds.keys() or not all(_is(row[name], str(kinds[name])) for name in kinds):
        raise ValueError(f"line {number} is no result of a sweep: remove it")
    return SweptCase(**row)


def _is(value: object, kind: str) -> bool:
    """Whether a value is what a field takes."""
    if value is None:
        return kind.endswith("None")
    if kind.startswith("float"):
        return type(value) is float and 0 <= value < float("inf")
    if kind.startswith("int"):
        return type(value) is int and value >= 0
    return type(value) is str


def _keep_name(path: Path) -> None:
    """Wait until the disk has the name of a new file, too, where folders can be opened."""
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
