"""What is written to: a regular file or a new one, through symbolic links, with the mode it had."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from eplb_np._files.atomic import check_folder, write_atomically
from eplb_np._files.reading import as_path, check_regular, printable, printable_error


class Target(NamedTuple):
    """The file that a path leads to, and its mode; None if there is no such file yet."""

    path: Path
    mode: int | None


def target_of(path: str | os.PathLike[str]) -> Target:
    """Follow links; raise ``ValueError`` or ``OSError`` for what no file can be written to."""
    as_path(path)
    try:
        # A link that leads nowhere is written through, too.
        target = Path(os.path.realpath(path))
        check_folder(target)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no right to write to its folder")
        status = target.stat()
        check_regular(status)
    except FileNotFoundError as error:
        if not target.parent.is_dir():
            raise FileNotFoundError(error.errno, error.strerror, printable(path)) from None
        return Target(target, None)
    except OSError as error:  # such as a circle of links
        raise _with_path(error, path) from None
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {printable_error(error)}") from None
    return Target(target, stat.S_IMODE(status.st_mode))


def check_not_read_from(path: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Raise ``ValueError`` if a file to write is also one to read, by whatever name.

    Of a folder that is read, no file is written over.
    """
    try:
        same = Path(path).samefile(source)
        inside = Path(path).resolve().is_relative_to(Path(source).resolve())
    except OSError:  # one of them is missing
        return
    if same:
        raise ValueError(
            f"{printable(path)}: it is the file that is read, and would be lost: give another"
        )
    if inside:
        raise ValueError(
            f"{printable(path)}: it is in the folder that is read, and would be lost: give another"
        )


def write_to(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write what a path leads to, atomically. An ``OSError`` names the path that was given."""
    target, mode = target_of(path)
    try:
        write_atomically(target, write, mode)
    except OSError as error:
        raise _with_path(error, path) from None


def _with_path(error: OSError, path: str | os.PathLike[str]) -> OSError:
    """Return an error about the path, not about a temporary file."""
    return type(error)(error.errno, error.strerror or printable_error(error), printable(path))
