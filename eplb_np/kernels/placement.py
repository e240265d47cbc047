"""A first plan for the search: Adams' allocation and LPT, no expert twice on a GPU."""

from __future__ import annotations

import numpy as np

from eplb_np._jit import kernel
from eplb_np._types import Doubles, Int, Ints
from eplb_np.kernels import tournament
from eplb_np.kernels.decisions import (
    INFINITY_BITS,
    KEY_SHIFT,
    NEVER,
    heaviest_first,
    key_index,
    lightest_first,
)
from eplb_np.kernels.grid import EMPTY, Grid, clear_grid, pair_time, put, replica_load, swap


@kernel
def allocate_capped(
    weight: Doubles, num_replicas: Int, max_count: Int, count: Ints, tree: Ints
) -> None:
    """Adams' allocation: each extra replica to the expert with the heaviest replicas.

    An expert that is on ``max_count`` GPUs already gets no more while another can take it: one
    more copy would share a GPU with its like and relieve nobody. O(E + extra log E).
    """
    num_experts = weight.shape[0]
    leaves = tournament.num_leaves(num_experts)
    for i in range(leaves + num_experts, 2 * leaves):
        tree[i] = NEVER
    for e in range(num_experts):
        count[e] = 1
        tree[leaves + e] = _claim(weight[e], count[e], max_count, e)
    tournament.build(tree, leaves)
    for _ in range(num_replicas - num_experts):
        winner = key_index(tree[1])
        count[winner] += 1
        claim = _claim(weight[winner], count[winner], max_count, winner)
        tournament.replay(tree, leaves, winner, claim)


@kernel
def _claim(weight: float, count: Int, max_count: Int, e: Int) -> Int:
    """Key whose minimum is the expert that is next to get a replica."""
    if count >= max_count:  # behind every expert that can take one; the fewest copies first
        return ((INFINITY_BITS + count) << KEY_SHIFT) | e
    return heaviest_first(np.float32(weight / count), e)


@kernel
def place_longest_first(grid: Grid, order: Ints, filled: Ints, tree: Ints) -> Int:
    """LPT: experts by descending replica load, each replica to the GPU that is done first.

    GPUs that are full, or hold the expert already, are passed over. ``order`` [E]; scratch:
    ``filled`` [D] int64, ``tree`` [2 * leaves(D)]. Returns the replicas that had to share a GPU
    with their like. O(P log D), and O(D) for each replica whose first choice holds its like.
    """
    num_gpus = filled.shape[0]
    leaves = tournament.num_leaves(num_gpus)
    clear_grid(grid)
    for i in range(leaves + num_gpus, 2 * leaves):
        tree[i] = NEVER
    for g in range(num_gpus):
        filled[g] = 0
        tree[leaves + g] = lightest_first(np.float32(0), g) if grid.size[g] > 0 else NEVER
    tournament.build(tree, leaves)
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
            put(grid, filled[chosen], chosen, e, load)
            filled[chosen] += 1
            key: Int = NEVER
            if filled[chosen] < grid.size[chosen]:
                key = lightest_first(
                    np.float32(grid.gpu_load[chosen] * grid.slowness[chosen]), chosen
                )
            tournament.replay(tree, leaves, chosen, key)
    return doubled


@kernel
def _lightest_without(grid: Grid, e: Int, filled: Ints) -> Int:
    """GPU done first among those that have room and do not hold expert ``e``, or -1."""
    best = -1
    best_time = np.inf
    for g in range(filled.shape[0]):
        time = grid.gpu_load[g] * grid.slowness[g]
        if filled[g] < grid.size[g] and grid.held[g, e] == 0 and time < best_time:
            best = g
            best_time = time
    return best


@kernel
def part_duplicates(grid: Grid) -> None:
    """Swap until no GPU holds two replicas of one expert, where that can be.

    If GPU g holds expert a twice, some GPU k does not hold a at all (while a has no more
    replicas than there are GPUs). Of k's distinct experts fewer than all are on g, or k itself
    holds one twice; either way one swap lowers the number of doubled replicas, so this ends.
    With equal slots per GPU such a k is always found; with unequal slots a plan without
    doubled replicas may not exist, and the search for k may come back empty.
    """
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            if grid.held[g, grid.expert[row, g]] > 1:
                _, k, other = best_parting(grid, row, g)
                if k >= 0:
                    swap(grid, row, g, other, k)


@kernel
def best_parting(grid: Grid, row: Int, g: Int) -> tuple[float, Int, Int]:
    """Swap of a doubled replica that leaves the smallest longest time of the two GPUs.

    Returns that time, the other GPU and its row; the GPU is -1 where no swap parts the two.
    """
    a = grid.expert[row, g]
    best = np.inf
    best_k: Int = -1
    best_row: Int = -1
    for k in range(grid.size.shape[0]):
        if grid.held[k, a] > 0:
            continue
        for other in range(grid.size[k]):
            b = grid.expert[other, k]
            if b == EMPTY or (grid.held[g, b] > 0 and grid.held[k, b] < 2):
                continue
            time = pair_time(grid, row, g, other, k)
            if grid.held[g, b] > 0:  # moves the double of b here: only if nothing else helps
                time += 1e9
            if time < best:
                best = time
                best_k = k
                best_row = other
    return best, best_k, best_row
