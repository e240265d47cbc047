"""The only place with Numba flags.

Every compiled function of the package is declared with one of three decorators:

``kernel``
    Code that other kernels call. It is compiled into its callers (see ``pieces.py``).
``allocator``
    The same for code that allocates working memory.
``entry``
    A kernel that Python calls. Its machine code is kept on disk (see ``cache.py``).

The flags, and the reasons for them:

* ``error_model="numpy"``: no branch for a division by zero, which validated loads cannot cause.
* ``nogil=True`` on entries: a planner runs beside an inference engine and must not stop it.
* no ``fastmath``, no ``parallel``: plans are byte-identical across runs and thread counts, and
  Numba's threading layers can crash the host process (two callers, a fork).
* no signatures: they would compile at import. The API layer passes each kernel one dtype and one
  memory layout, so each is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import config

from eplb_np._numba.cache import KernelCache

Piece: Any = None
with suppress(ImportError):  # an unknown Numba: slower to compile, the same results
    from eplb_np._numba.pieces import Piece

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a function that other kernels call."""
    return _piece(function, _nrt=False)


def allocator(function: F) -> F:
    """Compile a function that allocates working memory for an entry."""
    return _piece(function)


def _piece(function: F, **options: object) -> F:
    options |= {"error_model": "numpy"}
    if config.DISABLE_JIT or Piece is None:
        return cast(F, njit(**options)(function))
    options |= {"nopython": True}
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, Piece(function, options))


def entry(function: F) -> F:
    """Compile a function that Python calls, and keep the machine code on disk."""
    compiled = njit(error_model="numpy", nogil=True)(function)
    if compiled is not function:  # with NUMBA_DISABLE_JIT, njit returns the Python function
        compiled._cache = KernelCache(function)
    return cast(F, compiled)
