"""How kernels are launched: threads per block, working memory, stream."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from eplb_np._cuda.device import numba_cuda, simulated

SHARED_BYTES = 48 * 1024
"""Shared memory that a block may have on every GPU without asking for more."""

LEAST_BLOCK_THREADS, MOST_BLOCK_THREADS = 32, 512
MOST_THREADS_OF_ONE_ITEM = 256
SIMULATED_THREADS = 4
"""Each is a Python thread."""

block_threads: int | None = None
"""Threads of every block, a power of two; None to let `choose_threads` decide."""


def choose_threads(num_items: int) -> int:
    """Threads of a block: one per item, or one per two or more if there are many items."""
    if simulated():
        return SIMULATED_THREADS
    if block_threads is not None:
        return block_threads
    items = 1 << max(num_items - 1, 1).bit_length()
    one_each, two_each = min(items, MOST_THREADS_OF_ONE_ITEM), items >> 1
    return max(LEAST_BLOCK_THREADS, one_each, min(two_each, MOST_BLOCK_THREADS))


class Forms(NamedTuple):
    """The two forms of a kernel, which differ in where a block's working memory is."""

    shared: Any
    large: Any  # in a row of global memory per block


def launch(
    forms: Forms,
    grid: tuple[int, ...],
    threads: int,
    num_bytes: int,
    stream: Any,
    scratch: Any,
    args: tuple[Any, ...],
) -> None:
    """Launch a kernel, with its working memory in shared memory if it fits there."""
    if num_bytes <= SHARED_BYTES:
        configured(forms.shared, grid, threads, stream, num_bytes)(*args)
        return
    shape = (math.prod(grid), num_bytes // 8)
    if scratch is None:
        scratch = numba_cuda().device_array(shape, np.int64, stream=stream)
    else:
        scratch = as_scratch(scratch, *shape)
    views = scratch, scratch.view(np.int32), scratch.view(np.float32)
    configured(forms.large, grid, threads, stream)(*args, *views)


def as_scratch(scratch: Any, blocks: int, words: int) -> Any:
    """Working memory that the caller passed in, as one row per block."""
    wanted = f"give [{blocks * words}] int64 on the GPU"
    if not hasattr(scratch, "__cuda_ndarray__"):
        if not hasattr(scratch, "__cuda_array_interface__"):
            raise ValueError(f"scratch is not an array on the GPU: {wanted}")
        scratch = numba_cuda().as_cuda_array(scratch, sync=False)
    if scratch.ndim != 1 or scratch.dtype != np.int64 or scratch.size < blocks * words:
        raise ValueError(
            f"scratch has shape {tuple(scratch.shape)} and dtype {scratch.dtype}: {wanted}"
        )
    return scratch[: blocks * words].reshape(blocks, words)


def configured(
    kernel: Any, grid: int | tuple[int, ...], threads: int, stream: Any, shared_bytes: int = 0
) -> Any:
    """Return a kernel, ready to be called with its arguments."""
    if simulated():  # its kernels hold only one configuration
        return kernel[grid, threads, stream, shared_bytes]
    return _configured(kernel, grid, threads, stream, shared_bytes)


@functools.lru_cache(maxsize=256)
def _configured(
    kernel: Any, grid: int | tuple[int, ...], threads: int, stream: Any, shared_bytes: int
) -> Any:
    # Numba warns about grids that leave part of a GPU idle, as one of 58 layers does.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kernel[grid, threads, stream, shared_bytes]
