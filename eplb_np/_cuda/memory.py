"""A block's working memory: shared memory, or a row of global memory."""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.types import Floats, Ints


class Memory(NamedTuple):
    """A block's working memory: three views of the same bytes."""

    words: Ints  # int64
    ints: Ints  # int32
    floats: Floats  # float32
