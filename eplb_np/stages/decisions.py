"""The small decisions that every stage shares: which load is heavier, and who wins a tie.

Every choice of the algorithm is "the largest (or smallest) load; a tie goes to the lower index".
Loads are non-negative float32, and their bit patterns sort like the numbers themselves. So a load
and an index fit into one int64 key, and a choice is an integer minimum, ties included. It is the
same on a CPU and on a GPU: `cpu.py`, `simd.py` and `cuda.py` of each stage call these functions.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int

NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
"""A key that loses against every load: an unused place, a full pack."""


INFINITY_BITS = np.int64(0x7F800000)


LOAD_MASK = np.int64(0x7FFFFFFF)


INDEX_MASK = np.int64(0xFFFFFFFF)


KEY_SHIFT = np.int64(32)


@kernel
def load_bits(load: np.float32) -> Int:
    """Bit pattern of a non-negative float32 load; sorts like the load.

    The sign is masked, so that a load of -0.0 counts as zero.
    """
    return np.int64(np.float32(load).view(np.int32)) & LOAD_MASK


@kernel
def heaviest_first(load: np.float32, index: Int) -> Int:
    """Key whose minimum is the heaviest load; a tie goes to the lower index."""
    return ((INFINITY_BITS - load_bits(load)) << KEY_SHIFT) | index


@kernel
def lightest_first(load: np.float32, index: Int) -> Int:
    """Key whose minimum is the lightest load; a tie goes to the lower index."""
    return (load_bits(load) << KEY_SHIFT) | index


@kernel
def key_index(key: Int) -> Int:
    """Index that a key was made with."""
    return key & INDEX_MASK


@kernel
def key_load(key: Int) -> np.float32:
    """Load that a key of `lightest_first` was made with."""
    return np.int32(key >> KEY_SHIFT).view(np.float32)


@kernel
def heaviest_load(key: Int) -> np.float32:
    """Load that a key of `heaviest_first` was made with."""
    return np.int32(INFINITY_BITS - (key >> KEY_SHIFT)).view(np.float32)


@kernel
def adams_quotient(weight: np.float32, count: Int) -> np.float32:
    """Adams' quotient: the load of each of an expert's ``count`` replicas."""
    return weight / np.float32(count)


@kernel
def sainte_lague_quotient(weight: np.float32, count: Int) -> np.float32:
    """Sainte-Lague's quotient, which prefers experts with few replicas so far."""
    return weight / np.float32(2 * count + 1)
