"""Machine code on disk, so that a new process does not compile again.

Numba's own ``cache=True`` fails in ways that a guest in a server cannot afford: it raises at
import where no folder is writable, never recovers from a damaged file, and serves a kernel that
calls an edited helper of another file from a stale copy. This cache stores one file per compiled
kernel. Its name is a digest of all that the machine code depends on: which function it is, module
and all, and every source file of the package. Its content carries a checksum. Whatever goes wrong
with a file means "compile", never an error.
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
    """Disk cache of one kernel, in the place of Numba's own (`numba.core.caching._Cache`)."""

    def __init__(self, py_func: Callable[..., object]) -> None:
        self._py_func = py_func

    @property
    def cache_path(self) -> str:
        """Folder that a new file would be tried in first."""
        return str(next(_folders()))

    def load_overload(self, sig: object, target_context: Any) -> Any:
        """Compiled kernel for a signature, or None where there is no sound file of it."""
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
        """Store a compiled kernel in the first folder that takes it."""
        try:
            if not _is_cachable(data):
                return
            name = self._file_name(sig, data.codegen)
            content = dumps(data._reduce())
        except Exception:  # noqa: BLE001 - nor may a Numba that keeps its code otherwise
            return
        for folder in _folders():
            if _write(folder / name, content):
                return

    def enable(self) -> None:
        """Numba's interface; this cache is always on."""

    def disable(self) -> None:
        """Numba's interface; this cache is always on."""

    def flush(self) -> None:
        """Numba's interface; files are named by their content and need no flushing."""

    def _file_name(self, sig: object, codegen: Any) -> str:
        function = self._py_func
        settings = [getattr(config, name, None) for name in CODE_SETTINGS]
        # The name alone does not say which function it is: other files may have one of that name.
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
    """Digest of every source file of the package: kernels and their callees live all over it.

    Files that no kernel is made from count too. Telling them apart would take a list, and a file
    that the list lacks would be served stale.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _folders() -> Iterator[Path]:
    """Where files are looked for, and written to the first that can be: as Numba orders them."""
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
