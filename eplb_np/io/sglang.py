"""SGLang: ``logical_count`` and ``physical_to_logical_map`` as JSON, and the recorder's dumps.

After ``python/sglang/srt/eplb`` of SGLang 0.5.23. A row of either is a decoder layer of the model,
dense ones included.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eplb_np._files.targets import write_to
from eplb_np.io.contents import Contents
from eplb_np.io.placements import Consumer, Placement
from eplb_np.io.recorded import Asked, Recording

LOADS, MAP = "logical_count", "physical_to_logical_map"

CONSUMER = Consumer("SGLang", suffixes=(".json",), every_layer=True)


def recognise(contents: Contents) -> bool:
    """Whether this is JSON with one of the two keys."""
    return not contents.keys.isdisjoint((LOADS, MAP))


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts [R, E] or [steps, R, E]: a ring of steps, whose start is not known."""
    found = contents.json
    if not isinstance(found, dict) or LOADS not in found:
        raise ValueError(f'it has no key "{LOADS}": give {{"{LOADS}": ...}}')
    return Recording(found[LOADS], in_order=False, every_layer=True, name=LOADS)


def write_loads(rows: NDArray[Any], path: Path) -> str:
    """Write counts [R, E], from which SGLang's own planner then places experts."""
    text = json.dumps({LOADS: rows.tolist()})
    write_to(path, lambda file: file.write(text.encode()))
    return f"--init-expert-location {shlex.quote(str(path))}"


def read_plan(contents: Contents) -> Placement:
    """Read a map [R, P]."""
    found = contents.json
    if not isinstance(found, dict) or MAP not in found:
        raise ValueError(f'it has no key "{MAP}"')
    return Placement(found[MAP])


def write_plan(placement: Placement, path: Path) -> str:
    """Write the map with exactly the one key that SGLang takes: any other is a TypeError there."""
    text = json.dumps({MAP: placement.rows.tolist()})
    write_to(path, lambda file: file.write(text.encode()))
    redundant = placement.rows.shape[1] - (placement.num_experts or 0)
    return (
        f"--init-expert-location {path} --ep-num-redundant-experts {redundant} "
        f"--ep-size {placement.num_gpus}"
    )
