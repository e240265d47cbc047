"""Plain arrays: ``.npy``, and ``.npz`` with a single array or one named ``logical_count``.

An array of several steps is a history, oldest first, as `make_plan` takes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.numpy_files import Archive, StoredArray, open_npy
from eplb_np._files.targets import write_to
from eplb_np._loads.host import as_array
from eplb_np.io.contents import Contents
from eplb_np.io.recorded import BLOCK_BYTES, Asked, Recording, all_zero, check_shape

KEY = "logical_count"


def recognise(contents: Contents) -> bool:
    """Whether this is a plain array, or an archive of arrays."""
    return contents.kind in ("npy", "npz")


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read the array."""
    if contents.kind == "npy":
        _check_loads(open_npy(contents.file))
        return Recording(open_npy(contents.file).read(), in_order=True, name=KEY)
    archive = contents.npz
    name = _name_in(archive)
    with archive.array(name) as stored:
        _check_loads(stored)
    with archive.array(name) as stored:
        return Recording(stored.read(), in_order=True, name=KEY)


def write_loads(rows: NDArray[Any], path: Path) -> str:
    """Write loads [R, E], or steps of them [S, R, E]; no engine is started with them."""
    write_to(path, lambda file: np.save(file, rows))
    return ""


def _check_loads(stored: StoredArray) -> None:
    """Refuse what is no array of loads before memory is taken for it, as for gigabytes of zeros."""
    as_array(np.empty(0, stored.dtype), KEY)  # refuses what is not a real number type
    check_shape(stored.shape, KEY)
    with np.errstate(invalid="ignore"):  # of what is no number, of which others complain
        has_load = any(block.any() for block in stored.blocks(BLOCK_BYTES))
    if not has_load:
        raise all_zero(KEY, stored.shape[-2])


def _name_in(archive: Archive) -> str:
    """Name of the array with the loads."""
    names = list(archive.members)
    if KEY not in names and len(names) != 1:
        raise ValueError(f'it holds the arrays {names}: name the one with the loads "{KEY}"')
    return KEY if KEY in names else names[0]
