"""The small decisions: which load is heavier, which quotient is larger, who wins a tie.

Every choice of the algorithm is "the largest (or smallest) load, and of equals the lower index".
Loads are non-negative float32, whose bit patterns order like the numbers themselves, so load and
index fit one int64 key: choosing is then a plain integer minimum, ties included, and the same on
a CPU and on a GPU.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at as at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int

NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
"""A key that loses against every load: an empty place, a full pack."""


INFINITY_BITS = np.int64(0x7F800000)


LOAD_MASK = np.int64(0x7FFFFFFF)


INDEX_MASK = np.int64(0xFFFFFFFF)


KEY_SHIFT = np.int64(32)


@kernel
def load_bits(load: np.float32) -> Int:
    """Bit pattern of a non-negative float32 load; orders like the load.

    The sign is masked, so that a load of -0.0 counts as the zero it is.
    """
    return np.int64(np.float32(load).view(np.int32)) & LOAD_MASK


@kernel
def heaviest_first(load: np.float32, index: Int) -> Int:
    """Key whose minimum is the heaviest load, ties to the lower index."""
    return ((INFINITY_BITS - load_bits(load)) << KEY_SHIFT) | index


@kernel
def lightest_first(load: np.float32, index: Int) -> Int:
    """Key whose minimum is the lightest load, ties to the lower index."""
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
    """Load of each of ``count`` replicas: Adams' divisor, and what a replica really carries."""
    return weight / np.float32(count)


@kernel
def sainte_lague_quotient(weight: np.float32, count: Int) -> np.float32:
    """Sainte-Lague's divisor, which prefers experts that have few replicas so far."""
    return weight / np.float32(2 * count + 1)
