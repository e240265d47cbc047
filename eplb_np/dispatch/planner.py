"""Plans for the best split: from scratch, or by mending the plan in use.

Letters: W workloads, L layers, E logical experts, P slots, D GPUs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.threads import choose_num_threads
from eplb_np.dispatch.loads_to_come import FIRST_NOISE, rows_to_one
from eplb_np.dispatch.placement.mending_planner import Ahead, mend_for_split
from eplb_np.dispatch.placement.planner import place_for_split
from eplb_np.forecast import Expected
from eplb_np.local_search.planner import make_separate_maps
from eplb_np.maps.homes import groups_are_home
from eplb_np.maps.maps import EMPTY, Maps, count_replicas
from eplb_np.mending.limits import MoveLimits, fetch_budget
from eplb_np.mending.planner import mend_maps
from eplb_np.moves.fetches import fetched_slots
from eplb_np.topology import Topology


def plan_maps(
    expected: Expected,
    in_use: NDArray[np.integer[Any]] | None,
    topology: Topology,
    limits: MoveLimits,
    certain: bool,
    num_threads: int | None = None,
) -> Maps:
    """Plan for all workloads that may come, maybe ``certain`` that batches are always split.

    Where slots must be filled or emptied, all bridges are pulled home, and built anew, within the
    limits, once every group is whole.
    """
    coming = rows_to_one(expected.load[None])
    share = coming if expected.workloads is None else expected.workloads
    noise = expected.noise or FIRST_NOISE
    threads = choose_num_threads(num_threads, share.shape[1], topology.num_replicas)
    if in_use is None:
        load = share.mean(axis=0).astype(np.float32)
        start = make_separate_maps(load, topology, num_threads)
        return place_for_split(start, share, topology, noise, threads, certain=certain)
    held = np.array(in_use, np.int64, order="C")
    phy2log = held
    budget = fetch_budget(limits, topology.num_gpus)
    if _needs_repair(held, topology):
        # GPUs were lost, or are back: that is mended as for an even split, within the limits.
        phy2log = mend_maps(expected, held, topology, limits, num_threads).phy2log
        spent = fetched_slots(held, phy2log).sum(axis=0)
        np.subtract.at(budget, topology.gpu_of_slot, spent)
        budget[-1] -= spent.sum()
        if _needs_repair(phy2log, topology):
            topology = replace(topology, bridges=0)
    load = np.asarray(expected.load, np.float64).sum(axis=1)
    price = limits.price * topology.active_speed / np.where(load > 0, load, np.inf)
    # Half of the samples are of the coming window, the others of all workloads.
    both = np.stack([coming.repeat(len(share), axis=0), share], axis=1)
    share = np.ascontiguousarray(both.transpose(2, 0, 1, 3))
    share = share.reshape(len(share), -1, share.shape[3])
    ahead = Ahead(share, noise, price, limits.tolerance, certain)
    return mend_for_split(phy2log, held, topology, ahead, budget, threads)


def _needs_repair(held: NDArray[np.int64], topology: Topology) -> bool:
    """Whether slots must be filled or emptied, an expert is lost, or a group is not at home."""
    active = (topology.active_slots > 0)[topology.gpu_of_slot]
    if ((held != EMPTY) != active).any() or not count_replicas(held, topology.num_experts).all():
        return True
    return not groups_are_home(held, topology)
