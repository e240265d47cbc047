"""The only place with flags for the CUDA kernels.

``launched``
    A kernel: code that Python launches on the GPU.
``device``
    Code that kernels call.
``sync``
    Barrier of the block's threads: after it, all of them see what any wrote before it.
``any_of_block``
    The same, and all of them learn whether any of them came with a True.

No ``fastmath``: divisions follow IEEE. The compiler may still fuse a product and a sum into one
operation with one rounding, and not all implementations have a flag against it. So no kernel adds
to a product: doubling is written as a sum, and the one product, a half, goes through memory.

Kernels call the functions of the CPU's ``decisions.py`` files as they are: Numba compiles a
function of `eplb_np._numba.jit` for the GPU too when a kernel calls it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import cuda

from eplb_np._cuda.device import simulated
from eplb_np._cuda.launch import MOST_BLOCK_THREADS

F = TypeVar("F", bound=Callable[..., object])

MAX_REGISTERS = 65536 // MOST_BLOCK_THREADS
"""A block's threads share 65,536 registers; a kernel that takes more does not start."""


def launched(function: Callable[..., None]) -> Any:
    """Compile a kernel, for blocks of up to ``MOST_BLOCK_THREADS``."""
    if simulated():
        return cuda.jit(function)
    return cuda.jit(max_registers=MAX_REGISTERS)(function)


if simulated():
    # The simulator lends each function its `cuda` while a thread is in it, and takes it away when
    # the first thread leaves. So functions that wait must not use that name.

    def device(function: F) -> F:
        """Leave a function as it is."""
        return function

    def sync() -> None:
        """Wait for the block's other threads."""
        cast(Any, threading.current_thread()).syncthreads()

    def any_of_block(own: bool) -> bool:
        """Wait for the block's other threads; tell whether any of them has a True."""
        return bool(cast(Any, threading.current_thread()).syncthreads_or(own))

else:

    def device(function: F) -> F:
        """Compile a function that kernels call."""
        return cast(F, cuda.jit(device=True)(function))

    @device
    def sync() -> None:
        """Wait for the block's other threads."""
        cuda.syncthreads()

    @device
    def any_of_block(own: bool) -> bool:
        """Wait for the block's other threads; tell whether any of them has a True."""
        return bool(cuda.syncthreads_or(np.int32(own)) != 0)
