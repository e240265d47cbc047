"""Files that nobody else can have written, and folders that nobody else can change.

For content that is run when it is read. Owner and mode are checked on open descriptors, from the
root of the file system down, so that nothing can be exchanged between the check and the use.
Systems without POSIX owners cannot use this module.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
MOST_LINKS = 40  # as Linux follows
DAY = 86400.0

# O_PATH asks for no right to read: a folder above may only let through.
FOLDER_FLAGS = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
FILE_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO would wait for a writer
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


@contextmanager
def private_folder(path: Path, *, make: bool) -> Iterator[int]:
    """Open a folder that only this user and root can change, as a descriptor.

    All folders above must belong to the user or root, too. Others may write to those that are
    sticky, as ``/tmp`` is, because there they cannot exchange what is not theirs. Links above the
    folder are followed if they belong to the user or root. With ``make``, folders that are
    missing are made, for this user alone.

    Raises ``OSError`` if the path is relative, or somebody else could change the folder.
    """
    descriptor = _open_private_folder(path, make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_private_folder(path: Path, make: bool) -> int:
    if not path.is_absolute():
        raise OSError(errno.EINVAL, "the path is relative", str(path))
    missing_parts = [*path.parts[:0:-1]]
    links = 0
    here = os.open("/", FOLDER_FLAGS)
    try:
        _check_owner_and_mode(os.fstat(here), may_be_sticky=bool(missing_parts))
        while missing_parts:
            part = missing_parts.pop()
            try:
                below = _open_below(here, part, make)
            except OSError as error:
                links += 1
                # A folder behind a link as its last part is refused.
                if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not missing_parts:
                    raise
                if links > MOST_LINKS:
                    raise
                target = Path(_read_own_link(here, part))
                missing_parts += target.parts[:0:-1] if target.is_absolute() else target.parts[::-1]
                below = os.open("/" if target.is_absolute() else ".", FOLDER_FLAGS, dir_fd=here)
            os.close(here)
            here = below
            _check_owner_and_mode(os.fstat(here), may_be_sticky=bool(missing_parts))
    except BaseException:
        os.close(here)
        raise
    return here


def _open_below(here: int, part: str, make: bool) -> int:
    try:
        return os.open(part, FOLDER_FLAGS, dir_fd=here)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another process has just made it
        os.mkdir(part, FOLDER_MODE, dir_fd=here)
        os.chmod(part, FOLDER_MODE, dir_fd=here)  # whatever the umask
    return os.open(part, FOLDER_FLAGS, dir_fd=here)


def _read_own_link(here: int, part: str) -> str:
    status = os.stat(part, dir_fd=here, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, "not a folder, or somebody else's link", part)
    return os.readlink(part, dir_fd=here)


def read_private(name: str, folder: int, most_bytes: int) -> bytes:
    """Read a file in a private folder that only this user or root can have written.

    Raises ``OSError`` for anything else: other owners, other modes, links, FIFOs, devices.
    """
    descriptor = os.open(name, FILE_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        _check_owner_and_mode(status, may_be_sticky=False)
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, "too large", name)
        if status.st_mtime < time.time() - DAY:
            with suppress(OSError):  # the time of the last use, which many mounts do not keep
                os.utime(descriptor)
        return file.read(status.st_size)


def _check_owner_and_mode(status: os.stat_result, *, may_be_sticky: bool) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, "it belongs to somebody else")
    others_can_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others_can_write and not (may_be_sticky and status.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EPERM, "somebody else can write to it")
