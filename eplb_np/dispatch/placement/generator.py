"""Random integers from a seed, in integer arithmetic: the same on every machine.

A xorshift of 32 bits [1]_. Its state is one int64 in an array, never 0.

References
----------
.. [1] G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints

LOW_32_BITS = 0xFFFFFFFF
WARM_UP = 8
"""Numbers thrown away after seeding: the first ones of seeds that are close are close too."""

DRAWS = 4
"""Numbers, of two halves each, that are added up to one normal deviate."""


@kernel
def seed_generator(state: Ints, seed: Int) -> None:
    """Start from any seed of at least 0."""
    state[0] = (seed * 1_000_003 + 88_172_645) % LOW_32_BITS + 1
    for _ in range(WARM_UP):
        next_number(state)


@kernel
def next_number(state: Ints) -> Int:
    """Return the next number, from 1 to 2**32 - 1."""
    x: Int = state[0]
    x ^= (x << 13) & LOW_32_BITS
    x ^= x >> 17
    x ^= (x << 5) & LOW_32_BITS
    state[0] = x
    return x


@kernel
def below(state: Ints, end: Int) -> Int:
    """Return a number from 0 to ``end`` - 1, for ``end`` up to 2**31."""
    return (next_number(state) * end) >> 32


@kernel
def normal(state: Ints) -> float:
    """Return an approximately normal deviate: the sum of eight uniform ones, scaled."""
    total: Int = 0
    for _ in range(DRAWS):
        x = next_number(state)
        total += (x >> 16) + (x & 0xFFFF)
    uniforms = 2 * DRAWS
    centred = (total + 0.5 * uniforms) / 65536.0 - 0.5 * uniforms
    return float(centred * np.sqrt(12.0 / uniforms))
