"""Machine code on disk, so that a new process does not compile again.

Numba's own ``cache=True`` fails in ways that a library inside a server cannot afford. It raises at
import if no folder is writable, never recovers from a damaged file, and serves stale code for a
kernel whose helper in another file was edited. This cache stores one file per compiled kernel. The
file's name is a digest of everything that the machine code depends on: the function with its
module, and every source file of the package. Its content carries a checksum. Any trouble with a
file leads to compiling, never to an error.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from eplb_np._files.atomic import write_atomically

PACKAGE = Path(__file__).parent.parent
CHECKSUM_SIZE = hashlib.sha256().digest_size

# Numba settings that change the machine code without showing in the target's description.
CODE_SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")


class KernelCache:
    """Disk cache of one kernel, in place of Numba's own (`numba.core.caching._Cache`)."""

    def __init__(self, py_func: Callable[..., object]) -> None:
        self._py_func = py_func

    @property
    def cache_path(self) -> str:
        """Folder in which a new file is tried first."""
        return str(next(_folders()))

    def load_overload(self, sig: object, target_context: Any) -> Any:
        """Compiled kernel for a signature, or None if there is no intact file of it."""
        try:
            target_context.refresh()
            name = self._file_name(sig, target_context.codegen())
            for folder in _folders():
                content = _read(folder / name)
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
            if _write(folder / name, content):
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
    """Folders to read from, and to write to the first writable one of, in Numba's order."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR) / "eplb_np"
    yield PACKAGE / "kernels" / "__pycache__"
    if os.name == "nt":
        user_cache = Path(os.environ.get("LOCALAPPDATA", ""))
    else:
        home_cache = Path(os.environ.get("HOME", ""), ".cache")
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or home_cache)
    if user_cache.is_absolute():
        yield user_cache / "eplb_np"


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:CHECKSUM_SIZE], content[CHECKSUM_SIZE:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _write(path: Path, content: bytes) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(hashlib.sha256(content).digest() + content))
    except OSError:
        return False
    return True
