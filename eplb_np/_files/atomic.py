"""Atomic writes: neither a reader nor a crash ever leaves half a file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], object], mode: int = 0o666
) -> None:
    """Write a temporary file beside ``path`` and rename it: a failure leaves the old file.

    The file is created with ``mode``, less the umask.
    """
    check_folder(path)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise ``FileNotFoundError`` unless the folder of the file to write exists."""
    if not Path(path).parent.is_dir():
        message = "no such folder to write to, create it first"
        raise FileNotFoundError(errno.ENOENT, message, os.fspath(path))
