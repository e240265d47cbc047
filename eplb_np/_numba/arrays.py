"""New, uninitialised arrays.

Numba infers types for ``np.empty`` at every call, and compiles it for every way to write its
arguments; literal zeros or ones in them double that. Through these functions, each kind of array
is compiled once.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import allocator
from eplb_np._numba.types import Doubles, Floats, Int, Ints


@allocator
def ints(size: Int) -> Ints:
    """Allocate [size] int64."""
    return np.empty(size, np.int64)


@allocator
def floats(size: Int) -> Floats:
    """Allocate [size] float32."""
    return np.empty(size, np.float32)


@allocator
def doubles(size: Int) -> Doubles:
    """Allocate [size] float64."""
    return np.empty(size, np.float64)


@allocator
def int_table(rows: Int, columns: Int) -> Ints:
    """Allocate [rows, columns] int64."""
    return np.empty((rows, columns), np.int64)


@allocator
def float_table(rows: Int, columns: Int) -> Floats:
    """Allocate [rows, columns] float32."""
    return np.empty((rows, columns), np.float32)


@allocator
def double_table(rows: Int, columns: Int) -> Doubles:
    """Allocate [rows, columns] float64."""
    return np.empty((rows, columns), np.float64)
