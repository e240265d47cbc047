"""sglang-jax: its recorder's dumps, pickled dicts in ``.npy``, and maps as ``.npy`` or JSON.

After ``python/sgl_jax/srt`` of August 2026. If the server had no map, the recorder writes counts of
slots under the same key: nothing in a dump says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.numpy_files import open_npy
from eplb_np._files.targets import write_to
from eplb_np._loads.host import as_array
from eplb_np.io.contents import Contents, opened
from eplb_np.io.placements import Consumer, Placement
from eplb_np.io.recorded import Asked, Recording, check_map, check_shape
from eplb_np.io.sglang_keys import (
    LOADS,
    MAP,
    check_suffix,
    read_counts,
    read_map,
    start_options,
    write_key,
)

CONSUMER = Consumer("sglang-jax", suffixes=(".npy", ".json"), every_layer=True)

DUMP = r".+\.npy(?:\.gz)?"

TIME = re.compile(r"\d{8}_\d{4}")
"""The recorder's ``timestamp``, whose order as text is that of time."""


def recognise(contents: Contents) -> bool:
    """Whether this has one of the keys, or is a folder that has a dump."""
    if contents.kind == "folder":
        return bool(contents.named(DUMP))
    return contents.kind in ("pickled", "json") and not contents.keys.isdisjoint((LOADS, MAP))


def recognise_plan(contents: Contents) -> bool:
    """Whether this has one of the keys, or is an array that may be a map."""
    if contents.kind == "npy":
        return len(contents.npy.shape) == 2 and contents.npy.dtype.kind in "iu"
    return recognise(contents)


def holds_plan(contents: Contents) -> bool:
    """Whether there is a map: in an array, rows that name all experts, as no counts do."""
    if contents.kind != "npy":
        return MAP in contents.keys
    try:
        check_shape(contents.npy.shape, MAP)
        check_map(open_npy(contents.file).read())
    except ValueError:
        return False
    return True


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read the counts [R, E] of a dump, or those of all dumps of a folder, in order of time."""
    if contents.kind != "folder":
        return read_counts(contents.value, asked)
    dumps = list(_dumps(contents, asked))
    times = [time for time, _ in dumps]
    known = None not in times and len(set(times)) == len(times)
    if known:
        dumps.sort(key=lambda dump: str(dump[0]))
    counts = np.stack([counts for _, counts in dumps])
    return Recording(counts, in_order=known, every_layer=True, name=LOADS)


def _dumps(contents: Contents, asked: Asked) -> Iterator[tuple[str | None, NDArray[Any]]]:
    """Read time and counts [R, E] of each dump of a folder."""
    shape = None
    for number, name in enumerate(contents.named(DUMP), 1):
        with opened(contents.path / name) as dump:
            if dump.kind != "pickled":
                raise ValueError(f"it is {dump.describe()}, not a dump of sglang-jax's recorder")
            counts = as_array(read_counts(dump.pickled, asked).counts, LOADS)
            if counts.ndim != 2:
                raise ValueError(f"{LOADS} has shape {counts.shape}: give [layers, experts]")
            shape = shape or counts.shape
            if counts.shape != shape:
                raise ValueError(
                    f"{LOADS} has shape {counts.shape}, but {shape} in the folder's first file: "
                    "give dumps of one model, all before or all after it got a map"
                )
            check_shape((number, *shape), LOADS)
            time = dump.pickled.get("timestamp")
            yield time if isinstance(time, str) and TIME.fullmatch(time) else None, counts


def read_plan(contents: Contents) -> Placement:
    """Read a map [R, P]."""
    return read_map({MAP: contents.npy.read()} if contents.kind == "npy" else contents.value)


def write_plan(placement: Placement, path: Path) -> str:
    """Write the map, as an array that needs no pickle, or as JSON, and say how to use it.

    Without the last option the server would not read the file, and ``static`` would use only the
    first replica of each expert.
    """
    if path.suffix.lower() == ".json":
        write_key(MAP, placement.rows, path)
    else:
        check_suffix(path)
        write_to(path, lambda file: np.save(file, placement.rows.astype(np.int32)))
    return f"{start_options(placement, path)} --ep-dispatch-algorithm dynamic"
