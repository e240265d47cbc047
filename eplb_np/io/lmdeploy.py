"""LMDeploy: the statistics from which it plans, a JSON list with a row for every decoder layer.

After ``lmdeploy/pytorch/nn/eplb.py`` of 2026-08. Such a file does not say whose it is, so it is
read as a plain list unless the format is named. There is no file of placements.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eplb_np._files.targets import write_to
from eplb_np.io.contents import Contents
from eplb_np.io.json_lists import recognise, table_of
from eplb_np.io.recorded import Asked, Recording

__all__ = ["read_loads", "recognise", "write_loads"]


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts [R, E] of all decoder layers."""
    table = table_of(contents)
    if table.ndim != 2:
        raise ValueError(f"the list has {table.ndim} axes: LMDeploy's is [layers, experts]")
    return Recording(table, in_order=True, every_layer=True, name="the list")


def write_loads(rows: NDArray[Any], path: Path) -> str:
    """Write loads [R, E] of all decoder layers: LMDeploy compares the shape with its model's."""
    text = json.dumps(rows.tolist())
    write_to(path, lambda file: file.write(text.encode()))
    return f"LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE={shlex.quote(str(path))} with --enable-eplb"
