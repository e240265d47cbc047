"""A first plan for the search: Adams' allocation and LPT, no expert twice on a GPU."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.slot_table import SlotTable, clear_table, fill_slot, replica_load
from eplb_np.stages.decisions import (
    INFINITY_BITS,
    KEY_SHIFT,
    NEVER,
    heaviest_first,
    key_index,
    lightest_first,
)
from eplb_np.stages.priority_queue.cpu import build_tree, num_leaves, replay_leaf


@kernel
def allocate_capped(
    weight: Doubles, num_replicas: Int, max_count: Int, count: Ints, tree: Ints
) -> None:
    """Adams' allocation: each extra replica to the expert with the heaviest replicas.

    An expert that is on ``max_count`` GPUs already gets no more while another can take it: one
    more copy would share a GPU with its like and relieve nobody. O(E + extra log E).
    """
    num_experts = weight.shape[0]
    leaves = num_leaves(num_experts)
    for i in range(leaves + num_experts, 2 * leaves):
        tree[i] = NEVER
    for e in range(num_experts):
        count[e] = 1
        tree[leaves + e] = _claim(weight[e], count[e], max_count, e)
    build_tree(tree, leaves)
    for _ in range(num_replicas - num_experts):
        winner = key_index(tree[1])
        count[winner] += 1
        claim = _claim(weight[winner], count[winner], max_count, winner)
        replay_leaf(tree, leaves, winner, claim)


@kernel
def _claim(weight: float, count: Int, max_count: Int, e: Int) -> Int:
    """Key whose minimum is the expert that is next to get a replica."""
    if count >= max_count:  # behind every expert that can take one; the fewest copies first
        return ((INFINITY_BITS + count) << KEY_SHIFT) | e
    return heaviest_first(np.float32(weight / count), e)


@kernel
def place_longest_first(grid: SlotTable, order: Ints, filled: Ints, tree: Ints) -> Int:
    """LPT: experts by descending replica load, each replica to the GPU that is done first.

    GPUs that are full, or hold the expert already, are passed over. ``order`` [E]; scratch:
    ``filled`` [D] int64, ``tree`` [2 * leaves(D)]. Returns the replicas that had to share a GPU
    with their like. O(P log D), and O(D) for each replica whose first choice holds its like.
    """
    num_gpus = filled.shape[0]
    leaves = num_leaves(num_gpus)
    clear_table(grid)
    for i in range(leaves + num_gpus, 2 * leaves):
        tree[i] = NEVER
    for g in range(num_gpus):
        filled[g] = 0
        tree[leaves + g] = lightest_first(np.float32(0), g) if grid.size[g] > 0 else NEVER
    build_tree(tree, leaves)
    doubled = 0
    for e in order:
        load = replica_load(grid.weight[e], grid.logcnt[e], grid.margin[0])
        for _ in range(grid.logcnt[e]):
            chosen = key_index(tree[1])
            if grid.held[chosen, e] > 0:
                other = _lightest_without(grid, e, filled)
                if other >= 0:
                    chosen = other
                else:
                    doubled += 1
            fill_slot(grid, filled[chosen], chosen, e, load)
            filled[chosen] += 1
            key: Int = NEVER
            if filled[chosen] < grid.size[chosen]:
                key = lightest_first(
                    np.float32(grid.gpu_load[chosen] * grid.slowness[chosen]), chosen
                )
            replay_leaf(tree, leaves, chosen, key)
    return doubled


@kernel
def _lightest_without(grid: SlotTable, e: Int, filled: Ints) -> Int:
    """GPU done first among those that have room and do not hold expert ``e``, or -1."""
    best = -1
    best_time = np.inf
    for g in range(filled.shape[0]):
        time = grid.gpu_load[g] * grid.slowness[g]
        if filled[g] < grid.size[g] and grid.held[g, e] == 0 and time < best_time:
            best = g
            best_time = time
    return best
