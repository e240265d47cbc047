"""The one place with Numba flags.

Every compiled function of the package is declared with one of two decorators:

``kernel``
    Code that other kernels call. It is compiled into its callers.
``entry``
    A kernel that Python calls. Its machine code is kept on disk (see ``_cache``).

The flags, and why they are these:

* ``error_model="numpy"``: no branch for a division by zero, which validated loads cannot cause.
* ``nogil=True`` on entries: a planner runs beside an inference engine and must not stop it.
* no ``fastmath``, no ``parallel``: a plan is the same bytes on every run and thread count, and
  Numba's threading layers can take the host process down (two callers, a fork).
* no signatures: they would compile at import. The API layer hands each kernel one dtype and one
  memory layout, so each is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

from eplb_np._cache import KernelCache

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a function that other kernels call."""
    return cast(F, njit(error_model="numpy", _nrt=False)(function))


def allocator(function: F) -> F:
    """Compile a function that allocates working memory for an entry."""
    return cast(F, njit(error_model="numpy")(function))


def entry(function: F) -> F:
    """Compile a function that Python calls, and keep the machine code on disk."""
    compiled = njit(error_model="numpy", nogil=True)(function)
    if compiled is not function:  # NUMBA_DISABLE_JIT hands the Python function back
        compiled._cache = KernelCache(function)
    return cast(F, compiled)
