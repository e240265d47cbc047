"""Plans made for the best split: layers are shared out to threads.

Letters: W windows, L layers, E logical experts, P slots, D GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.arrays import double_table, doubles, int_table, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.threads import for_each_block
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.cuts import Cuts
from eplb_np.dispatch.placement.flows import Flows
from eplb_np.dispatch.placement.generator import next_number, seed_generator
from eplb_np.dispatch.placement.layer import MOVE_SIZE, Layer, fill_layer, longest_even_time
from eplb_np.dispatch.placement.samples import draw_samples
from eplb_np.dispatch.placement.search import Search, climb, start_search
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.topology import Gpus, Topology


class Effort(NamedTuple):
    """How long to search; counts, so that the result does not depend on the machine."""

    num_samples: int = 16
    num_sets: int = 64
    work: int = 20_000
    widening: float = 1.4
    ladder: float = 1.25
    num_steps: int = 2
    slack: float = 1.02
    reserve: int = 8


DEFAULT_EFFORT = Effort()


def place_for_split(
    maps: Maps,
    windows: NDArray[np.float64],
    topology: Topology,
    noise: float,
    num_threads: int = 1,
    effort: Effort = DEFAULT_EFFORT,
) -> Maps:
    """Change a plan so that the best split of the loads to come has room.

    Parameters
    ----------
    maps : Maps
        The plan to start from, of the refined policy or mended.
    windows : ndarray, shape [W, L, E], float64
        Loads that may come: a forecast, or one window for each workload.
    topology : Topology
        The deployment of the plan.
    noise : float
        Variance of an expert's share of a window, over the share.
    num_threads : int
        Threads.
    effort : Effort
        How long to search.

    Returns
    -------
    Maps
        The new plan; ranks follow the order of the slots.
    """
    num_layers = len(maps.phy2log)
    result = Maps(*(array.astype(np.int64) for array in maps))
    share = np.ascontiguousarray(windows, np.float64)
    most = int(maps.logcnt.max()) + effort.reserve
    num_nodes = topology.num_nodes if topology.placement == "hierarchical" else 1

    def place(start: int, stop: int) -> None:
        _place_layers(
            share[:, start:stop], topology.gpus, np.array([num_nodes, most, start], np.int64),
            noise, effort, Maps(*(array[start:stop] for array in result)),
        )  # fmt: skip

    for_each_block(place, num_layers, 1 << 16, num_threads)
    return result


@entry
def _place_layers(
    share: Doubles, gpus: Gpus, sizes: Ints, noise: float, effort: Effort, maps: Maps
) -> None:
    phy2log, phyrank, logcnt = maps
    num_windows, num_layers, num_experts = share.shape
    num_nodes, most, first_layer = sizes[0], sizes[1], sizes[2]
    num_gpus = gpus.size.shape[0]
    scaled = double_table(num_windows, num_experts)
    usable = ints(phy2log.shape[1])
    for i in range(num_layers):
        num_used = list_filled_slots(phy2log[i], gpus, usable)
        search = make_search(num_used, num_gpus, num_experts, most, effort)
        fill_search(search, phy2log[i], usable, gpus, num_nodes)
        speed = take_shares(share[:, i], gpus, search, scaled)
        if speed > 0.0:
            _search_layer(search, scaled, noise, speed, num_nodes, i + first_layer, effort)
        for j in range(num_used):
            phy2log[i, usable[j]] = search.layer.expert[j]
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def list_filled_slots(phy2log: Ints, gpus: Gpus, filled: Ints) -> Int:
    """List the slots of active GPUs that are not empty; returns their number."""
    n: Int = 0
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if phy2log[slot] != EMPTY:
                filled[n] = slot
                n += 1
    return n


@kernel
def _search_layer(
    search: Search, share: Doubles, noise: float, speed: float, num_nodes: Int, seed: Int,
    effort: Effort,
) -> None:  # fmt: skip
    layer = search.layer
    fill_layer(layer)
    layer.longest[0] = longest_even_time(layer) * effort.slack
    wide = effort.widening
    for _ in range(effort.num_steps):
        draw_samples(share, noise * wide * wide, speed, seed, search.state, search.sample)
        seed_generator(search.state, seed + 1_000_000)
        total = start_search(search, num_nodes)
        climb(search, total, effort.work)
        wide *= effort.ladder


@kernel
def take_shares(share: Doubles, gpus: Gpus, search: Search, scaled: Doubles) -> float:
    """Scale a layer's windows to shares, and their mean to loads; returns the GPUs' speed."""
    num_windows, num_experts = share.shape
    layer = search.layer
    speed = 0.0
    for g in range(gpus.size.shape[0]):
        if layer.first[g] < layer.first[g + 1]:
            speed += 1.0 / gpus.slowness[g]
    for e in range(num_experts):
        layer.weight[e] = 0.0
    used = 0
    for w in range(num_windows):
        total = 0.0
        for e in range(num_experts):
            total += share[w, e]
        if total > 0.0:
            used += 1
        for e in range(num_experts):
            scaled[w, e] = share[w, e] / total if total > 0.0 else 1.0 / num_experts
    for w in range(num_windows):
        for e in range(num_experts):
            layer.weight[e] += scaled[w, e] * speed / num_windows
    return speed if used > 0 else 0.0


@allocator
def make_search(
    num_slots: Int, num_gpus: Int, num_experts: Int, most: Int, effort: Effort
) -> Search:
    """Allocate the working memory of a layer's search."""
    num_samples, num_sets = effort.num_samples, effort.num_sets
    layer = Layer(
        ints(num_slots), ints(num_gpus + 1), ints(num_gpus), doubles(num_gpus), ints(num_slots),
        ints(num_experts), int_table(num_experts, most), doubles(num_experts), doubles(num_gpus),
        doubles(1),
    )  # fmt: skip
    flows = Flows(
        np.zeros((2, num_samples, num_slots)), np.zeros((2, num_samples, num_gpus)),
        ints(num_samples), doubles(num_samples), doubles(num_samples), ints(num_samples),
        doubles(num_gpus), ints(num_gpus), ints(num_experts), ints(num_gpus), ints(num_gpus),
        ints(num_gpus), int_table(num_samples, num_gpus), ints(num_samples), ints(2),
    )  # fmt: skip
    cuts = Cuts(
        int_table(num_gpus + 1, num_sets), int_table(num_experts, num_sets),
        double_table(num_sets, num_samples), doubles(num_sets), ints(num_sets), ints(num_gpus),
        ints(num_samples), doubles(num_sets), doubles(num_sets), ints(3),
    )  # fmt: skip
    return Search(
        layer, double_table(num_experts, num_samples), flows, cuts, doubles(num_samples),
        ints(num_gpus), ints(1), ints(MOVE_SIZE),
    )  # fmt: skip


@kernel
def fill_search(search: Search, phy2log: Ints, usable: Ints, gpus: Gpus, num_nodes: Int) -> None:
    """Take over a plan."""
    layer, flows, cuts = search.layer, search.flows, search.cuts
    num_gpus = gpus.size.shape[0]
    num_slots = layer.gpu.shape[0]
    node_gpus = num_gpus // num_nodes
    j = 0
    for g in range(num_gpus):
        layer.first[g] = j
        while j < num_slots and usable[j] < gpus.first_slot[g + 1]:
            layer.gpu[j] = g
            layer.expert[j] = phy2log[usable[j]]
            j += 1
        layer.node[g] = g // node_gpus
        layer.slowness[g] = gpus.slowness[g]
        flows.speed[g] = 1.0 / gpus.slowness[g]
    layer.first[num_gpus] = j
    seed_generator(search.state, 1)
    for g in range(num_gpus):
        cuts.gpu_key[g] = (next_number(search.state) << 20) ^ next_number(search.state)
        flows.seen[g] = 0
    for e in range(flows.seen_expert.shape[0]):
        flows.seen_expert[e] = 0
    for s in range(flows.side.shape[0]):
        flows.side[s] = 0
    flows.number[0] = 0
