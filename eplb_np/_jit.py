"""The one place with Numba flags.

Every compiled function of the package is declared with one of four decorators:

``kernel``
    Code that other kernels call. It is compiled into its callers.
``inlined``
    A large kernel with one caller, which is compiled as if it stood there.
``allocator``
    A kernel that makes working memory.
``entry``
    A kernel that Python calls. Its machine code is kept on disk (see ``_cache``).

Called from Python, all but entries run as Python.

The flags, and why they are these:

* ``error_model="numpy"``: no branch for a division by zero, which validated loads cannot cause.
* ``nogil=True`` on entries: a planner runs beside an inference engine and must not stop it.
* no ``fastmath``, no ``parallel``: a plan is the same bytes on every run and thread count, and
  Numba's threading layers can take the host process down (two callers, a fork).
* no wrappers but for entries, as nothing else is called from outside compiled code: LLVM would
  carry them along into every caller, which took a quarter of the time to compile.
* ``inline="always"`` where a large kernel has one caller. LLVM optimises and translates a kernel
  for itself, and then again in its caller, in the caller's caller and so on.
* no signatures: they would compile at import. The API layer hands each kernel one dtype and one
  memory layout, so each is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit
from numba.core import config
from numba.core.registry import CPUDispatcher

from eplb_np._cache import KernelCache

F = TypeVar("F", bound=Callable[..., object])


class _Kernel(CPUDispatcher):  # type: ignore[misc]
    """A compiled function without a way in from Python, where it is the function it was."""

    def __call__(self, *args: object) -> object:
        return self.py_func(*args)


def _internal(function: F, **options: object) -> F:
    if config.DISABLE_JIT:
        return function
    options |= {"nopython": True, "boundscheck": None, "error_model": "numpy"}
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, _Kernel(function, targetoptions=options))


def kernel(function: F) -> F:
    """Compile a function that other kernels call."""
    return _internal(function, _nrt=False)


def inlined(function: F) -> F:
    """Compile a large function into the one kernel that calls it."""
    return _internal(function, _nrt=False, inline="always")


def allocator(function: F) -> F:
    """Compile a function that allocates working memory for an entry."""
    return _internal(function)


def entry(function: F) -> F:
    """Compile a function that Python calls, and keep the machine code on disk."""
    compiled = njit(error_model="numpy", nogil=True)(function)
    if compiled is not function:  # NUMBA_DISABLE_JIT hands the Python function back
        compiled._cache = KernelCache(function)
    return cast(F, compiled)
