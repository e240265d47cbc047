"""The one place with flags of the CUDA kernels.

``launched``
    A kernel: code that Python launches on the GPU.
``device``
    Code that kernels call.
``sync``
    Barrier of the block's threads: what they wrote before it, all of them see after it.

No ``fastmath``: divisions are IEEE's. The compiler may still fuse a product and a sum into one
operation with one rounding, and there is no flag against it that all implementations have. So no
kernel adds to a product: a double is a sum, and the one product, a half, goes through memory.

The decisions of ``eplb_np.kernels.decisions`` are called as they are. Numba compiles what is
declared with ``njit`` for the GPU too when a kernel calls it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import config, cuda

F = TypeVar("F", bound=Callable[..., object])

SIMULATED = bool(config.ENABLE_CUDASIM)
MAX_THREADS = 512
MAX_REGISTERS = 65536 // MAX_THREADS
"""A block's threads share 65,536 registers; a kernel that takes more does not start."""


def launched(function: Callable[..., None]) -> Any:
    """Compile a kernel, for blocks of up to ``MAX_THREADS``."""
    if SIMULATED:
        return cuda.jit(function)
    return cuda.jit(max_registers=MAX_REGISTERS)(function)


if SIMULATED:
    # The simulator lends each function its `cuda` while a thread is in it and takes it away when
    # the first one leaves: functions that wait inside must not ask for it by that name.

    def device(function: F) -> F:
        """Leave a function as it is."""
        return function

    def sync() -> None:
        """Wait for the block's other threads."""
        cast(Any, threading.current_thread()).syncthreads()

else:

    def device(function: F) -> F:
        """Compile a function that kernels call."""
        return cast(F, cuda.jit(device=True)(function))

    @device
    def sync() -> None:
        """Wait for the block's other threads."""
        cuda.syncthreads()
