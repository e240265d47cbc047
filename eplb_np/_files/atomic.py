"""Atomic writes: neither a reader nor a crash ever leaves half a file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".eplb_np-tmp"
TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.eplb_np-tmp", re.DOTALL)

ABANDONED = 3600.0
"""Seconds after which nobody writes to a temporary file any more: its process was killed."""

MOST_NAME_BYTES = 200  # of the target's name in that of a temporary file; most systems allow 255
MOST_ENTRIES = 10_000  # of a folder to look through for old files, which takes 5 ms


def write_atomically(
    path: str | os.PathLike[str],
    write: Callable[[BinaryIO], object],
    mode: int | None = None,
    *,
    folder: int | None = None,
) -> None:
    """Write a temporary file beside ``path`` and rename it: a failure leaves the old file.

    The file gets exactly ``mode``, whatever the umask; without one, what any new file gets. With
    ``folder``, an open descriptor, ``path`` is relative to that folder.

    A process that is killed leaves its temporary file behind, and a signal handler would be the
    host's business. So each write removes what writes of the same file abandoned an hour ago.
    """
    if folder is None:
        check_folder(path)
    target = Path(path)
    name = _name_for_temporaries(target.name)
    temporary = target.with_name(f".{name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")

    def create(path: str, flags: int) -> int:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        return os.open(path, flags, 0o666 if mode is None else mode & 0o600, dir_fd=folder)

    try:
        with open(temporary, "xb", opener=create) as file:
            if mode is not None and hasattr(os, "fchmod"):
                with suppress(PermissionError):  # a file system without modes
                    os.fchmod(file.fileno(), mode)
            # By the clock of the file system, which may be another machine's.
            now = os.fstat(file.fileno()).st_mtime
            remove_old(
                target.parent if folder is None else folder,
                lambda entry: _target_of(entry) == name,
                before=now - ABANDONED,
            )
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def remove_old(
    folder: int | str | os.PathLike[str], is_ours: Callable[[str], bool], before: float
) -> None:
    """Remove this user's regular files that have a name of ours and were not changed since."""
    with suppress(OSError):
        if not isinstance(folder, int):
            _remove_old(folder, None, is_ours, before)
            return
        readable = os.open(".", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0), dir_fd=folder)
        try:
            _remove_old(readable, readable, is_ours, before)
        finally:
            os.close(readable)


def _remove_old(
    folder: int | str | os.PathLike[str],
    dir_fd: int | None,
    is_ours: Callable[[str], bool],
    before: float,
) -> None:
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    with os.scandir(folder) as entries:
        for entry in islice(entries, MOST_ENTRIES):
            if not is_ours(entry.name):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                ours = stat.S_ISREG(status.st_mode) and status.st_uid == user
                if ours and status.st_mtime < before:
                    os.unlink(entry.path, dir_fd=dir_fd)


def is_temporary(name: str) -> bool:
    """Whether a file has a name that only `write_atomically` gives."""
    return TEMPORARY.fullmatch(name) is not None


def _target_of(name: str) -> str | None:
    match = TEMPORARY.fullmatch(name)
    return match["target"] if match else None


def _name_for_temporaries(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= MOST_NAME_BYTES else hashlib.sha256(encoded).hexdigest()[:32]


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise ``FileNotFoundError`` unless the folder of the file to write exists."""
    if not Path(path).parent.is_dir():
        message = "no such folder to write to, create it first"
        raise FileNotFoundError(errno.ENOENT, message, os.fspath(path))
