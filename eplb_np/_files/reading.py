"""Reads of files from untrusted sources."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading(path: str | os.PathLike[str], complaint: str = "") -> Iterator[None]:
    """Turn any error of a parser into a one-line ``ValueError`` that begins with the path.

    Damaged files make parsers raise almost anything: ``zlib.error``, ``NotImplementedError``,
    ``TokenError``, ``RecursionError``, ``MemoryError``. A missing file remains a
    ``FileNotFoundError``. An error about a file in a folder names that file only.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{printable(path)}: {error.strerror or printable_error(error)}") from None
    except Exception as error:
        said = printable_error(error)
        if said.startswith(f"{printable(path)}{os.sep}"):  # about a file in this folder
            raise
        raise ValueError(f"{printable(path)}{complaint}: {said}") from None


def printable_error(error: Exception) -> str:
    """Return what an error says, as one line that a terminal can show."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def printable(text: str | os.PathLike[str]) -> str:
    """Escape what a terminal would obey instead of showing, such as colours and line breaks."""
    shown = os.fspath(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file; ``ValueError`` for what may have no end, or nobody who writes to it."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    try:
        check_regular(os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Open even a FIFO without waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(status: os.stat_result) -> None:
    """Raise ``ValueError`` unless this is a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"it is {kind}, not a regular file")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path, or raise ``ValueError`` for what is none."""
    try:
        return Path(path)
    except TypeError:
        kind = type(path).__name__
        raise ValueError(f"the path is of type {kind}: give a str or a pathlib.Path") from None


def suffix_of(path: str | os.PathLike[str], known: tuple[str, ...]) -> str:
    """Return a path's suffix in lower case, or raise ``ValueError`` if it is unknown."""
    suffix = as_path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"{printable(path)}: unknown file suffix {suffix!r}: use one of {', '.join(known)}"
        )
    return suffix


def size_of(file: BinaryIO) -> int:
    """Return how many bytes a file has, of any kind that can seek, and leave it where it is."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size
