"""What a file of a plan holds: the format that `Plan.save` writes and `Plan.load` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.archive import ArchiveFormat
from eplb_np.topology import Topology

PLAN_FILE = ArchiveFormat(
    "eplb_np.plan",
    version=1,
    suffixes=(".json", ".npz"),
    needed=("dtype", "moe_layer_ids", "phy2log", "phyrank", "policy", "topology"),
    tables=("phy2log", "phyrank"),
    numbers=lambda header: (
        2 * len(header["moe_layer_ids"]) * Topology(**header["topology"]).num_replicas
    ),
    sized_by="topology and moe_layer_ids",
    complaint=" is not a plan that Plan.save wrote",
)


class PlanFields(NamedTuple):
    """The arguments of the `Plan` that a file holds, not checked yet."""

    phy2log: NDArray[Any]
    phyrank: NDArray[Any]
    topology: Topology
    policy: str
    moe_layer_ids: Any


def fields_of_file(content: Mapping[str, Any]) -> PlanFields:
    """Return the fields of a plan that `Plan.save` wrote, or raise any error."""
    return PlanFields(
        _as_integers(content["phy2log"], content["dtype"]),
        _as_integers(content["phyrank"], content["dtype"]),
        Topology(**content["topology"]),
        str(content["policy"]),
        content["moe_layer_ids"],
    )


def _as_integers(values: Any, dtype: str) -> NDArray[Any]:
    """Cast an array of a file to the dtype that the file states, if that changes no value."""
    given = np.asarray(values)
    array = given.astype(dtype) if given.dtype.kind == "i" else None
    if array is None or (array != given).any():
        raise ValueError(f"its arrays hold values that are not {dtype} integers")
    return array
