"""How the kernels are launched: threads of a block, its working memory, its stream."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from eplb_np._cuda.device import numba_cuda, simulated

SHARED_BYTES = 48 * 1024
"""Shared memory that a block may have on every GPU without asking for more."""

LEAST_THREADS, MOST_ITEMS_EACH_A_THREAD, MOST_THREADS = 32, 256, 512
SIMULATED_THREADS = 4
"""Each is a thread of Python's."""

MOST_INDICES = 1 << 31

block_threads: int | None = None
"""Threads of every block, a power of two; None for what `choose_threads` thinks best."""


def choose_threads(num_items: int) -> int:
    """Threads of a block: one for each item, but of many items one for two or more."""
    if simulated():
        return SIMULATED_THREADS
    if block_threads is not None:
        return block_threads
    items = 1 << max(num_items - 1, 1).bit_length()
    return max(LEAST_THREADS, min(items, MOST_ITEMS_EACH_A_THREAD), min(items >> 1, MOST_THREADS))


def count_bits(num_experts: int, num_replicas: int) -> int:
    """Bits of a key's index for a count of replicas, or ``ValueError`` where it has too few."""
    shift = (num_replicas - num_experts + 1).bit_length()
    if num_experts << shift > MOST_INDICES:
        raise ValueError(
            f"{num_experts} experts with up to {num_replicas - num_experts + 1} replicas each are "
            "too many for the GPU's kernels: plan on the CPU"
        )
    return shift


class Forms(NamedTuple):
    """A kernel, by where the working memory of its blocks is."""

    shared: Any
    large: Any  # in a row of global memory each


def launch(
    forms: Forms,
    grid: tuple[int, ...],
    threads: int,
    num_bytes: int,
    stream: Any,
    scratch: Any,
    args: tuple[Any, ...],
) -> None:
    """Launch a kernel, with its working memory where that fits."""
    if num_bytes <= SHARED_BYTES:
        configured(forms.shared, grid, threads, stream, num_bytes)(*args)
        return
    shape = (math.prod(grid), num_bytes // 8)
    if scratch is None:
        scratch = numba_cuda().device_array(shape, np.int64, stream=stream)
    else:
        scratch = _as_scratch(scratch, *shape)
    views = scratch, scratch.view(np.int32), scratch.view(np.float32)
    configured(forms.large, grid, threads, stream)(*args, *views)


def _as_scratch(scratch: Any, blocks: int, words: int) -> Any:
    """Working memory that was passed in, as a row for each block."""
    wanted = f"give [{blocks * words}] int64 on the GPU"
    if not hasattr(scratch, "__cuda_ndarray__"):
        if not hasattr(scratch, "__cuda_array_interface__"):
            raise ValueError(f"scratch is no array on the GPU: {wanted}")
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
    if simulated():  # whose kernels hold but one configuration
        return kernel[grid, threads, stream, shared_bytes]
    return _configured(kernel, grid, threads, stream, shared_bytes)


@functools.lru_cache(maxsize=256)
def _configured(
    kernel: Any, grid: int | tuple[int, ...], threads: int, stream: Any, shared_bytes: int
) -> Any:
    # Numba warns of grids that leave a GPU idle in part, as one of 58 layers does.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kernel[grid, threads, stream, shared_bytes]
