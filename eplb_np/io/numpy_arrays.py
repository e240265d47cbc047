"""Plain arrays: ``.npy``, and ``.npz`` with a single array or one named ``logical_count``.

An array of several steps is a history, oldest first, as `make_plan` takes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.numpy_files import Archive, StoredArray
from eplb_np._loads.host import as_array
from eplb_np.io.contents import Contents
from eplb_np.io.recorded import Asked, Recording, check_shape

KEY = "logical_count"


def recognise(contents: Contents) -> bool:
    """Whether this is a plain array, or an archive of arrays."""
    return contents.kind in ("npy", "npz")


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read the array."""
    if contents.kind == "npy":
        return Recording(read_array(contents.npy), in_order=True, name=KEY)
    archive = contents.npz
    with archive.array(_name_in(archive)) as stored:
        return Recording(read_array(stored), in_order=True, name=KEY)


def read_array(stored: StoredArray) -> NDArray[Any]:
    """Read an array once its header shows that it may be loads."""
    as_array(np.empty(0, stored.dtype), KEY)  # refuses what is not a real number type
    check_shape(stored.shape, KEY)
    return stored.read()


def _name_in(archive: Archive) -> str:
    """Name of the array with the loads."""
    names = list(archive.members)
    if KEY not in names and len(names) != 1:
        raise ValueError(f'it holds the arrays {names}: name the one with the loads "{KEY}"')
    return KEY if KEY in names else names[0]
