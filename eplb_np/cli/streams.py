"""Files by the names that a user gives, where ``-`` is standard input or standard output."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TypeVar

from eplb_np._files.gzip_files import LARGEST_UNPACKED
from eplb_np._files.reading import printable

DASH = Path("-")
STANDARD_INPUT = "standard input"
STANDARD_OUTPUT = "standard output"
STAND_IN = "output"

T = TypeVar("T")


def is_dash(path: Path | None) -> bool:
    """Whether a path stands for a standard stream."""
    return path == DASH


def name_of(path: Path) -> str:
    """Return what to call a file that is read, in one line."""
    return STANDARD_INPUT if is_dash(path) else printable(path)


def readable(path: Path) -> Path | io.BytesIO:
    """Return what readers of files take: the path, or all of standard input.

    As much is taken into memory as gzip may unpack. Raises ``ValueError`` for more.
    """
    if not is_dash(path):
        return path
    if sys.stdin is None:
        raise ValueError(f"{STANDARD_INPUT}: it is closed")
    try:
        content = io.BytesIO(sys.stdin.buffer.read(LARGEST_UNPACKED + 1))
    except OSError as error:  # such as a folder
        raise ValueError(f"{STANDARD_INPUT}: {error.strerror}") from None
    if content.getbuffer().nbytes > LARGEST_UNPACKED:
        raise ValueError(
            f"{STANDARD_INPUT}: it has more than {LARGEST_UNPACKED >> 20} MiB: give the name of a "
            "file"
        )
    content.name = STANDARD_INPUT
    return content


def check_one_reader(*paths: Path | None) -> None:
    """Raise ``ValueError`` if two files are to come from standard input."""
    if sum(map(is_dash, paths)) > 1:
        raise ValueError(f"{STANDARD_INPUT}: it can be read once: give the name of the other file")


def written_name(path: Path) -> str:
    """Return what to call a file that is written, in one line."""
    return STANDARD_OUTPUT if is_dash(path) else printable(path)


def stand_in(path: Path, suffix: str) -> Path:
    """Return the path, or for ``-`` that of a temporary file that could be written instead."""
    return Path(gettempdir()) / f"{path}{suffix}" if is_dash(path) else path


def write_through(path: Path, suffix: str, write: Callable[[Path], T]) -> T:
    """Call a function that writes a file; for ``-``, copy to standard output what it wrote."""
    if not is_dash(path):
        return write(path)
    with TemporaryDirectory(prefix="eplb_np-") as folder:
        file = Path(folder) / f"{STAND_IN}{suffix}"
        returned = write(file)
        content = file.read_bytes()
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None
    return returned


def is_terminal(stream: object) -> bool:
    """Whether somebody looks at what is printed, be it on a dumb terminal."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):  # it is closed
        return False


def width_of(stream: object) -> int:
    """Return the columns of the terminal that a stream is, by default 80."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):
        columns = 0
    return columns or 80
