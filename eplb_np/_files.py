"""Writing files so that no reader, and no crash, ever meets half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file beside ``path`` and rename it: a failure leaves the old file."""
    check_folder(path)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise ``FileNotFoundError`` where the folder of a file to be written does not exist."""
    if not Path(path).parent.is_dir():
        said = "there is no such folder to write to, make it first"
        raise FileNotFoundError(errno.ENOENT, said, os.fspath(path))


@contextmanager
def reading(path: str | os.PathLike[str], complaint: str = "") -> Iterator[None]:
    """Turn whatever foreign bytes do to their parser into ``ValueError``, in one line.

    Parsers of damaged files raise nearly everything: ``zlib.error``, ``NotImplementedError``,
    ``TokenError``, ``RecursionError``, ``MemoryError``. A missing file stays what it is.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{os.fspath(path)}{complaint}: {cause}") from None


def suffix_of(path: str | os.PathLike[str], known: tuple[str, ...]) -> str:
    """Return a path's suffix, in lower case, if it is a known one."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"{os.fspath(path)}: the suffix {suffix!r} says no known format: "
            f"use one of {', '.join(known)}"
        )
    return suffix
