"""A block's memory, shared or global."""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.types import Floats, Ints


class Memory(NamedTuple):
    """A block's memory: the same bytes, looked at in three ways."""

    words: Ints  # int64
    ints: Ints  # int32
    floats: Floats  # float32
