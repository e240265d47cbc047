"""Files by the names that a user gives, where ``-`` is standard input or standard output."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TextIO, TypeVar

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


@dataclass(frozen=True)
class Input:
    """What a command reads: a path, or standard input, which is read once."""

    path: Path

    @property
    def name(self) -> str:
        """What to call it, in one line."""
        return name_of(self.path)

    @cached_property
    def file(self) -> Path | io.BytesIO:
        """What readers of files take; ``ValueError`` if standard input is too long."""
        return _standard_input() if is_dash(self.path) else self.path


def name_of(path: Path) -> str:
    """Return what to call a file that is read, in one line."""
    return STANDARD_INPUT if is_dash(path) else printable(path)


def _standard_input() -> io.BytesIO:
    """Read all of standard input: as much as gzip may unpack."""
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


def stream_beside(output: Path | None) -> TextIO:
    """Return where to print: standard error if a file goes to standard output."""
    return sys.stderr if is_dash(output) else sys.stdout


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
        drop_output()
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None
    return returned


def drop_output() -> None:
    """Keep Python from writing again at its end what could not be written."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def start_of(start: str, written: Path, asked: Path) -> str:
    """Return how an engine is started, without the name of a file that is gone."""
    return start.replace(shlex.quote(str(written)), "FILE") if is_dash(asked) else start


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
