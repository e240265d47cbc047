"""Bare JSON lists of numbers: [layers, experts], or [steps, layers, experts].

Several steps are a history, oldest first, as in an array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eplb_np.io.contents import Contents
from eplb_np.io.recorded import Asked, Recording


def recognise(contents: Contents) -> bool:
    """Whether this is a list that is a table of numbers."""
    return contents.kind == "json" and isinstance(contents.json, np.ndarray)


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read the list."""
    return Recording(table_of(contents), in_order=True, name="the list")


def table_of(contents: Contents) -> NDArray[np.generic]:
    """Return the list as an array."""
    found = contents.json
    if not isinstance(found, np.ndarray):
        raise ValueError("it is no JSON list: give [[...], ...]")
    return found
