"""Machine code on disk, so that a new process does not compile again.

Numba's own ``cache=True`` fails in ways that a library inside a server cannot afford. It raises at
import if no folder is writable, never recovers from a damaged file, and serves stale code for a
kernel whose helper in another file was edited. This cache stores one file per compiled kernel. The
file's name is a digest of everything that the machine code depends on: the function with its
module, and every source file of the package. Its content carries a checksum. Any trouble with a
file leads to compiling, never to an error.

Whoever can write such a file runs code in every process that reads it. So only files count that
nobody but the user or root can have written (`eplb_np._files.private`). And nothing is stored in
the package's own folder: an uninstaller would leave it there, and Python would import what is left.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from eplb_np._files.atomic import ABANDONED, is_temporary, remove_old, write_atomically
from eplb_np._files.private import FILE_MODE, private_folder, read_private

PACKAGE = Path(__file__).parent.parent
CHECKSUM_SIZE = hashlib.sha256().digest_size
HAS_OWNERS = os.name != "nt"

KERNEL_FILE = re.compile(r"\w+-[0-9a-f]{32}\.kernel")
MOST_BYTES = 1 << 26  # of a file; the largest kernel has 1.4 MB
UNUSED = 60 * 86400.0
"""Seconds after which a file that no process has read is removed."""

# Numba settings that change the machine code without showing in the target's description.
CODE_SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")


class KernelCache:
    """Disk cache of one kernel, in place of Numba's own (`numba.core.caching._Cache`)."""

    def __init__(self, py_func: Callable[..., object]) -> None:
        self._py_func = py_func

    @property
    def cache_path(self) -> str:
        """Folder in which a new file is tried first; empty without one."""
        return str(next(_folders(), ""))

    def load_overload(self, sig: object, target_context: Any) -> Any:
        """Compiled kernel for a signature, or None if there is no intact file of it."""
        try:
            target_context.refresh()
            name = self._file_name(sig, target_context.codegen())
            for folder in _folders():
                content = _read(folder, name)
                if content is not None:
                    return CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # noqa: BLE001 - a foreign file must never stop a planner
            return None
        return None

    def save_overload(self, sig: object, data: Any) -> None:
        """Store a compiled kernel in the first writable folder."""
        try:
            if not _is_cachable(data):
                return
            name = self._file_name(sig, data.codegen)
            content = dumps(data._reduce())
        except Exception:  # noqa: BLE001 - nor may a Numba that stores its code in another way
            return
        for folder in _folders():
            if _write(folder, name, content):
                return

    def enable(self) -> None:
        """Numba's interface; this cache is always on."""

    def disable(self) -> None:
        """Numba's interface; this cache is always on."""

    def flush(self) -> None:
        """Numba's interface; files are named by their content, so there is nothing to flush."""

    def _file_name(self, sig: object, codegen: Any) -> str:
        function = self._py_func
        settings = [getattr(config, name, None) for name in CODE_SETTINGS]
        # The name alone does not identify a function: other files may have one of that name.
        key = (
            _sources_digest(), sys.implementation.cache_tag, numba.__version__,
            function.__module__, function.__qualname__, str(sig), codegen.magic_tuple(), settings,
        )  # fmt: skip
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return f"{function.__name__}-{digest}.kernel"


def _is_cachable(compiled: Any) -> bool:
    return bool(CompileResultCacheImpl.check_cachable(None, compiled))


@functools.cache
def _sources_digest() -> str:
    """Digest of every source file of the package: kernels and their callees are all over it.

    Files without kernels count too. To leave them out would take a list, and a file missing from
    the list would lead to stale code.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _folders() -> Iterator[Path]:
    """Folders to read from, and to write to the first that only the user and root can change.

    Relative paths are ignored: a cache must not depend on the folder that a process works in.
    """
    if config.CACHE_DIR and Path(config.CACHE_DIR).is_absolute():
        yield Path(config.CACHE_DIR) / "eplb_np"
    home_cache = Path(os.environ.get("HOME", ""), ".cache")
    user_caches = [Path(os.environ.get("XDG_CACHE_HOME", "")), home_cache]
    if not HAS_OWNERS:
        user_caches = [Path(os.environ.get("LOCALAPPDATA", ""))]
    for user_cache in user_caches:
        if user_cache.is_absolute():
            yield user_cache / "eplb_np"
            return


def _read(folder: Path, name: str) -> bytes | None:
    try:
        if HAS_OWNERS:
            with private_folder(folder, make=False) as descriptor:
                content = read_private(name, descriptor, MOST_BYTES)
        else:
            content = (folder / name).read_bytes()
    except OSError:
        return None
    checksum, content = content[:CHECKSUM_SIZE], content[CHECKSUM_SIZE:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _write(folder: Path, name: str, content: bytes) -> bool:
    def write(file: BinaryIO) -> None:
        file.write(hashlib.sha256(content).digest())
        file.write(content)

    try:
        if HAS_OWNERS:
            with private_folder(folder, make=True) as descriptor:
                write_atomically(name, write, FILE_MODE, folder=descriptor)
                _remove_unused(folder, descriptor)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, write)
    except OSError:
        return False
    return True


_tidied: set[Path] = set()


def _remove_unused(folder: Path, descriptor: int) -> None:
    """Remove what other versions and killed processes left, once per process."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    now = time.time()
    remove_old(descriptor, lambda name: KERNEL_FILE.fullmatch(name) is not None, now - UNUSED)
    remove_old(descriptor, is_temporary, now - ABANDONED)
