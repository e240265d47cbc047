"""FastDeploy: ``rearrange-experts.json``, a report of the last plan and of its loads.

After ``fastdeploy/eplb``. A row of either table is a decoder layer of the model, dense ones
included. FastDeploy never reads the file, so it is not written here.
"""

from __future__ import annotations

from typing import Any

from eplb_np._loads.host import as_array
from eplb_np.io.contents import Contents
from eplb_np.io.placements import Placement
from eplb_np.io.recorded import Asked, Recording

LOADS, MAP = "tokens_per_expert_stats_list", "ep_rank_to_expert_id_list"

NOTHING_COUNTED = "every load is 1, as FastDeploy writes it before it has counted anything"


def recognise(contents: Contents) -> bool:
    """Whether this is JSON with one of the two keys."""
    return not contents.keys.isdisjoint((LOADS, MAP))


def holds_plan(contents: Contents) -> bool:
    """Whether there is a map; loads may be there, too."""
    return MAP in contents.keys


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts [R, E]."""
    loads = as_array(_table(contents, LOADS), LOADS)
    notes = (NOTHING_COUNTED,) if loads.size and (loads == 1).all() else ()
    return Recording(loads, in_order=False, every_layer=True, name=LOADS, notes=notes)


def read_plan(contents: Contents) -> Placement:
    """Read a map [R, P]."""
    return Placement(as_array(_table(contents, MAP), MAP))


def _table(contents: Contents, name: str) -> Any:
    found = contents.json
    if not isinstance(found, dict) or found.get(name) is None:  # null until there is a plan
        raise ValueError(f'it has no table "{name}"')
    return found[name]
