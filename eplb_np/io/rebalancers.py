"""The state of a `Rebalancer` as a ``.npz`` file (no pickle)."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, BinaryIO

import numpy as np

from eplb_np._files import reading, suffix_of, write_atomically
from eplb_np.forecast import LoadForecast
from eplb_np.io.plans import read_npz
from eplb_np.mending import MoveLimits
from eplb_np.plan import Plan
from eplb_np.rebalancer import Rebalancer
from eplb_np.topology import Topology

FORMAT = "eplb_np.rebalancer"
VERSION = 1
FORECAST = "forecast_"
PLAN = ("phy2log", "phyrank")


def write_rebalancer(rebalancer: Rebalancer, path: str | os.PathLike[str]) -> None:
    """Write the whole state; the caller keeps it still meanwhile."""
    suffix_of(path, (".npz",))
    current = rebalancer.current
    header = {
        "format": FORMAT,
        "version": VERSION,
        "topology": dataclasses.asdict(rebalancer.topology),
        "num_layers": rebalancer._num_layers,
        "moe_layer_ids": list(rebalancer._layer_ids),
        "dtype": rebalancer._dtype.name,
        "limits": dataclasses.asdict(rebalancer._limits),
        "plan_topology": None if current is None else dataclasses.asdict(current.topology),
        "policy": None if current is None else current.policy,
    }
    arrays: dict[str, Any] = {
        FORECAST + name: array for name, array in rebalancer._forecast.state_dict().items()
    }
    if current is not None:
        arrays.update({name: getattr(current, name) for name in PLAN})

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

    write_atomically(path, write)


def read_rebalancer(path: str | os.PathLike[str]) -> Rebalancer:
    """Read a state that `write_rebalancer` wrote, or raise ``ValueError`` in one line."""
    suffix_of(path, (".npz",))
    with reading(path, " is not the state of a Rebalancer"):
        content = read_npz(path)
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise ValueError(
                f"it says format {content.get('format')!r}, version {content.get('version')!r}; "
                f"needed are {FORMAT!r} and {VERSION}"
            )
        rebalancer = Rebalancer(
            Topology(**content["topology"]),
            content["num_layers"],
            limits=MoveLimits(**content["limits"]),
            dtype=content["dtype"],
            moe_layer_ids=content["moe_layer_ids"],
        )
        if content["plan_topology"] is not None:
            topology = Topology(**content["plan_topology"])
            phy2log, phyrank = (content[name] for name in PLAN)
            ids = content["moe_layer_ids"]
            rebalancer.use(Plan(phy2log, phyrank, topology, content["policy"], ids))
        state = {
            name.removeprefix(FORECAST): array
            for name, array in content.items()
            if name.startswith(FORECAST)
        }
        forecast = LoadForecast.from_state_dict(state)
        if forecast.shape != (rebalancer._num_layers, rebalancer.topology.num_experts):
            raise ValueError(f"its forecast is of shape {forecast.shape}")
        rebalancer._forecast = forecast
        return rebalancer
