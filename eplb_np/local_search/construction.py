"""A first plan for the search: replicas by Adams' method, placed by LPT.

A GPU gets an expert twice only if the table lets it, or if it cannot be avoided. Letters: E logical
experts, P slots, D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.slot_table import (
    SlotTable,
    clear_table,
    fill_slot,
    gpu_time,
    replica_load,
)
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
    weight: Doubles, num_replicas: Int, max_count: Int, num_tail: Int, count: Ints, tree: Ints
) -> None:
    """Allocate replicas by Adams' method: each extra one to the expert with the heaviest replicas.

    The last ``num_tail`` go by Sainte-Lague's method, as in the hybrid policy. An expert that has
    ``max_count`` replicas gets no more while another expert can take one. Out: ``count`` [E].
    Scratch: ``tree`` [2 * leaves(E)]. O(E + P log E).
    """
    num_experts = weight.shape[0]
    leaves = num_leaves(num_experts)
    for i in range(leaves + num_experts, 2 * leaves):
        tree[i] = NEVER
    for e in range(num_experts):
        count[e] = 1
    for tail in range(2):
        divisor = 0.5 * tail  # Adams divides by the count, Sainte-Lague by half a replica more
        for e in range(num_experts):
            tree[leaves + e] = _claim(weight[e], count[e], max_count, divisor, e)
        build_tree(tree, leaves)
        num_extra = num_replicas - num_experts
        for _ in range(num_tail if tail else num_extra - num_tail):
            winner = key_index(tree[1])
            count[winner] += 1
            claim = _claim(weight[winner], count[winner], max_count, divisor, winner)
            replay_leaf(tree, leaves, winner, claim)


@kernel
def _claim(weight: float, count: Int, max_count: Int, more: float, e: Int) -> Int:
    """Key of an expert; the expert with the smallest key gets the next replica."""
    if count >= max_count:  # after every expert that can take one; the fewest replicas first
        return ((INFINITY_BITS + count) << KEY_SHIFT) | e
    return heaviest_first(np.float32(weight / (count + more)), e)


@kernel
def place_longest_first(table: SlotTable, order: Ints, filled: Ints, tree: Ints) -> Int:
    """LPT: experts by descending replica load, each replica to the GPU that ends soonest.

    Skips GPUs that are full or already hold the expert. ``order`` [E]; scratch: ``filled`` [D]
    int64, ``tree`` [2 * leaves(D)]. Returns the number of duplicates: replicas for which every
    GPU with room already held the expert. O(P log D), and O(D) for each replica whose first
    choice holds the expert.
    """
    num_gpus = filled.shape[0]
    leaves = num_leaves(num_gpus)
    clear_table(table)
    for i in range(leaves + num_gpus, 2 * leaves):
        tree[i] = NEVER
    for g in range(num_gpus):
        filled[g] = 0
        tree[leaves + g] = lightest_first(np.float32(0), g) if table.size[g] > 0 else NEVER
    build_tree(tree, leaves)
    duplicates = 0
    for e in order:
        load = replica_load(table, e, table.logcnt[e])
        for _ in range(table.logcnt[e]):
            chosen = key_index(tree[1])
            if table.held[chosen, e] >= table.most_held[0]:
                other = _soonest_without(table, e, filled)
                if other >= 0:
                    chosen = other
                else:
                    duplicates += 1
            fill_slot(table, filled[chosen], chosen, e, load)
            filled[chosen] += 1
            key: Int = NEVER
            if filled[chosen] < table.size[chosen]:
                key = lightest_first(np.float32(gpu_time(table, chosen)), chosen)
            replay_leaf(tree, leaves, chosen, key)
    return duplicates


@kernel
def _soonest_without(table: SlotTable, e: Int, filled: Ints) -> Int:
    """GPU that ends soonest of those that have room and do not hold expert ``e``, or -1."""
    best = -1
    best_time = np.inf
    for g in range(filled.shape[0]):
        time = gpu_time(table, g)
        if filled[g] < table.size[g] and table.held[g, e] == 0 and time < best_time:
            best = g
            best_time = time
    return best
