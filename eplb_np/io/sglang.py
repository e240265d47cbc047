"""SGLang: ``logical_count`` and ``physical_to_logical_map`` as JSON, and the recorder's dumps.

After ``python/sglang/srt/eplb`` of SGLang 0.5.23.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eplb_np.io.contents import Contents
from eplb_np.io.placements import Consumer, Placement
from eplb_np.io.recorded import Asked, Recording
from eplb_np.io.sglang_dumps import DUMP, RECORDS, read_dump, read_dumps
from eplb_np.io.sglang_keys import LOADS, MAP, read_counts, read_map, start_options, write_key

CONSUMER = Consumer("SGLang", suffixes=(".json",), every_layer=True)


def recognise(contents: Contents) -> bool:
    """Whether this has one of the two keys, or is a dump of the recorder, or a folder of dumps."""
    if contents.kind == "folder":
        return bool(contents.named(DUMP))
    if contents.kind == "torch":
        return not contents.keys.isdisjoint((LOADS, MAP, RECORDS))
    return contents.kind == "json" and not contents.keys.isdisjoint((LOADS, MAP))


def holds_plan(contents: Contents) -> bool:
    """Whether there is a map, which SGLang prefers to counts."""
    return MAP in contents.keys


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts: steps whose order is not known, or forward passes in order, or dumps in order.

    Passes are counts of slots: they come with the map of the slots, or added up by it.
    """
    if contents.kind == "folder":
        return read_dumps(contents, asked)
    if contents.kind == "torch":
        return read_dump(contents, asked)
    return read_counts(contents.json, asked)


def write_loads(rows: NDArray[Any], path: Path) -> str:
    """Write counts [R, E], from which SGLang's own planner then places experts."""
    write_key(LOADS, rows, path)
    return f"--init-expert-location {shlex.quote(str(path))}"


def read_plan(contents: Contents) -> Placement:
    """Read a map [R, P]."""
    return read_map(contents.value)


def write_plan(placement: Placement, path: Path) -> str:
    """Write the map, and say how to start the engine with it."""
    write_key(MAP, placement.rows, path)
    return start_options(placement, path)
