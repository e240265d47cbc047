"""Groups to nodes: equally many groups for each node, so that the slowest node ends soonest.

Letters: L layers, G groups, N nodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.layers import search_layers
from eplb_np.local_search.node import GOOD_ENOUGH, NO_DUPLICATES
from eplb_np.maps.maps import Maps
from eplb_np.topology import Gpus

EXACT_STEPS = np.int64(4096)
"""Steps of the enumeration: more than enough for 8 groups on 2 nodes or 12 on 4; about 20
microseconds."""

NUM_PACKINGS = 3
"""Ways to pack groups, see `pack_groups`."""


def pack_groups(
    load: NDArray[np.float64], slowness: NDArray[np.float64], packing: int = 0
) -> NDArray[np.int64]:
    """Give every group of each layer a node: from ``load`` [L, G], the nodes [L, G].

    ``slowness`` [N] is the time that each node takes for a unit of load. Packing 0 is the best
    one: two groups for each of several equal nodes are paired, the heaviest with the lightest,
    which is optimal. Otherwise LPT and swaps come first, and then an enumeration that finds the
    optimum unless it is cut short. Packing 1 is LPT and swaps, and 2 is LPT alone, as in
    DeepSeek's policy.
    """
    num_layers, num_groups = load.shape
    num_nodes = len(slowness)
    capacity = num_groups // num_nodes
    alike = bool((slowness == slowness[0]).all())
    if capacity == 1 and alike:
        return np.tile(np.arange(num_groups), (num_layers, 1))
    order = np.argsort(-load, axis=1, kind="stable")
    if packing == 0 and capacity == 2 and alike:
        return _fold(order)
    node = _search(load, slowness, np.inf if packing == 2 else GOOD_ENOUGH)
    if packing == 0:
        pack_rows_exactly(load, slowness, order, EXACT_STEPS, node)
    return node


def _fold(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pair the heaviest group with the lightest, and so on: optimal for two groups per node.

    The proof is in `eplb_np.lower_bound`. ``order`` [L, G]: groups by descending load.
    """
    nodes = np.arange(order.shape[1] // 2)
    return _spread(np.concatenate((nodes, nodes[::-1])), order)


def _search(
    load: NDArray[np.float64], slowness: NDArray[np.float64], good_enough: float
) -> NDArray[np.int64]:
    """Pack by the same search as a node's plan, with groups as experts and nodes as GPUs."""
    num_layers, num_groups = load.shape
    num_nodes = len(slowness)
    capacity = num_groups // num_nodes
    nodes = Gpus(
        np.arange(0, num_groups + 1, capacity), np.full(num_nodes, capacity), slowness.copy()
    )
    for array in nodes:
        array.flags.writeable = False  # as those of a topology, or the kernel is compiled again
    maps = Maps(*(np.empty(load.shape, np.int64) for _ in range(3)))
    together = np.zeros((num_layers, 1), np.int64)
    ends = np.full((num_layers, 1), good_enough)
    search_layers(
        load.astype(np.float32), together, ends, NO_DUPLICATES, nodes, maps, np.empty(num_layers)
    )
    return _spread(np.repeat(np.arange(num_nodes), capacity), maps.phy2log)


def _spread(values: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put ``values`` [G] into each row at the row's ``places`` [L, G]."""
    spread = np.empty_like(places)
    np.put_along_axis(spread, places, np.tile(values, (len(places), 1)), axis=1)
    return spread


@entry
def pack_rows_exactly(
    load: Doubles, slowness: Doubles, order: Ints, max_steps: Int, node: Ints
) -> None:
    """Improve the packing of every row, in place, as `pack_exactly` does."""
    num_layers, num_groups = load.shape
    num_nodes = slowness.shape[0]
    choice = ints(num_groups)
    node_load = doubles(num_nodes)
    node_size = ints(num_nodes)
    for i in range(num_layers):
        pack_exactly(load[i], slowness, order[i], max_steps, node[i], choice, node_load, node_size)


@kernel
def pack_exactly(
    group_load: Doubles,
    slowness: Doubles,
    order: Ints,
    max_steps: Int,
    node: Ints,
    choice: Ints,
    node_load: Doubles,
    node_size: Ints,
) -> bool:
    """Improve a packing by a depth-first search, until it is optimal or ``max_steps`` are over.

    ``node`` [G] is the packing to improve, and ``order`` [G] the groups by descending load. The
    search places groups from the heaviest on. Of empty nodes that are alike it tries only the
    first, and it cuts off a branch in which a node would take as long as in the best packing so
    far. Returns whether the search was complete, that is, whether the result is optimal. Scratch:
    ``choice`` [G], ``node_load`` [N], ``node_size`` [N].
    """
    num_groups = group_load.shape[0]
    num_nodes = slowness.shape[0]
    capacity = num_groups // num_nodes
    for n in range(num_nodes):
        node_load[n] = 0.0
        node_size[n] = 0
    for g in range(num_groups):
        node_load[node[g]] += group_load[g]
    best = _longest(node_load, slowness)
    bound = _group_bound(group_load, order, slowness)
    for n in range(num_nodes):
        node_load[n] = 0.0
    choice[0] = -1
    depth = 0
    for _ in range(max_steps):
        if depth < 0 or best <= bound * (1.0 + 1e-9):
            return True
        group = order[depth]
        n = choice[depth]
        if n >= 0:
            node_load[n] -= group_load[group]
            node_size[n] -= 1
        n += 1
        while n < num_nodes and (
            node_size[n] == capacity
            or (n > 0 and node_size[n] == node_size[n - 1] == 0 and slowness[n] == slowness[n - 1])
            or (node_load[n] + group_load[group]) * slowness[n] >= best * (1.0 - 1e-9)
        ):
            n += 1
        if n == num_nodes:
            depth -= 1
            continue
        choice[depth] = n
        node_load[n] += group_load[group]
        node_size[n] += 1
        if depth == num_groups - 1:
            best = _longest(node_load, slowness)
            for i in range(num_groups):
                node[order[i]] = choice[i]
            continue
        depth += 1
        choice[depth] = -1
    return False


@kernel
def _longest(load: Doubles, slowness: Doubles) -> float:
    """Time of the slowest node."""
    longest = load[0] * slowness[0]
    for n in range(1, load.shape[0]):
        longest = max(longest, load[n] * slowness[n])
    return float(longest)


@kernel
def _group_bound(group_load: Doubles, order: Ints, slowness: Doubles) -> float:
    """Lower bound: the mean time, or that of the heaviest group with the lightest ones."""
    num_groups = group_load.shape[0]
    num_nodes = slowness.shape[0]
    heaviest = group_load[order[0]]
    total = 0.0
    for g in range(num_groups):
        total += group_load[g]
    for i in range(num_groups // num_nodes - 1):
        heaviest += group_load[order[num_groups - 1 - i]]
    speed = 0.0
    fastest = 0.0
    for n in range(num_nodes):
        speed += 1.0 / slowness[n]
        fastest = max(fastest, 1.0 / slowness[n])
    return float(max(total / speed, heaviest / fastest))
