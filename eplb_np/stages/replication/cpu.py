"""Replica allocation, row by row: how many replicas each logical expert gets.

The twins are `simd.py`, for many short rows at once, and `cuda.py`, by the threads of a block.
Letters: X rows, E logical experts, P physical experts (replicas).
"""

from __future__ import annotations

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import (
    NEVER,
    adams_quotient,
    heaviest_first,
    key_index,
    lightest_first,
    sainte_lague_quotient,
)
from eplb_np.stages.priority_queue.cpu import build_tree, num_leaves, replay_leaf
from eplb_np.stages.replication.decisions import is_lower, tail_length


@entry
def replicate_layers(weight: Floats, phy2log: Ints, rank: Ints, logcnt: Ints) -> None:
    """Choose the number of replicas of every expert, for every row. Nothing is checked.

    Parameters
    ----------
    weight : ndarray, shape [X, E], float32
        Load of each logical expert, in any unit.
    phy2log : ndarray, shape [X, P], int64
        Out: logical expert of each replica, ascending.
    rank : ndarray, shape [X, P], int64
        Out: which of its expert's replicas it is, from 0.
    logcnt : ndarray, shape [X, E], int64
        Out: number of replicas of each expert.

    Notes
    -----
    As `eplb_np.replicate_experts`, with its ties and its source. O(E + (P - E) log E) for each row.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import replicate_layers
    >>> phy2log, rank = np.empty((2, 1, 5), np.int64)
    >>> logcnt = np.empty((1, 3), np.int64)
    >>> replicate_layers(np.float32([[90, 30, 10]]), phy2log, rank, logcnt)
    >>> logcnt.tolist(), phy2log.tolist()
    ([[3, 1, 1]], [[0, 0, 0, 1, 2]])
    """
    num_layers, num_experts = weight.shape
    num_phy = phy2log.shape[1]
    granted = ints(num_phy - num_experts)
    tree = ints(2 * num_leaves(num_experts))
    for layer in range(num_layers):
        count = logcnt[layer]
        replicate_layer(weight[layer], num_phy, count, granted, tree)
        slot = 0
        for e in range(num_experts):
            for r in range(count[e]):
                phy2log[layer, slot] = e
                rank[layer, slot] = r
                slot += 1


@kernel
def replicate_layer(weight: Floats, num_phy: Int, count: Ints, granted: Ints, tree: Ints) -> None:
    """Replica counts of one row: allocation with the Sainte-Lague tail, then the fix-up."""
    num_extra = num_phy - weight.shape[0]
    allocate_replicas(weight, num_extra, tail_length(num_extra), count, granted, tree)
    donor_fixup(weight, count)


@kernel
def allocate_replicas(
    weight: Floats, num_extra: Int, num_tail: Int, count: Ints, granted: Ints, tree: Ints
) -> None:
    """Grant ``num_extra`` replicas one by one to the expert with the largest quotient.

    The first ``num_extra - num_tail`` go by Adams' quotient, the rest by Sainte-Lague's.

    ``weight`` [E] float32; out: ``count`` [E] replicas of each expert, ``granted`` [num_extra]
    the experts in the order of the grants; scratch: ``tree`` [2 * leaves(E)].
    O(E + num_extra log E). Twin of `allocate_batch` in `simd.py` and of the function of this name
    in `cuda.py`.
    """
    num_experts = weight.shape[0]
    leaves = num_leaves(num_experts)
    for e in range(num_experts):
        count[e] = 1
    if num_extra == 0:
        return
    for i in range(leaves + num_experts, 2 * leaves):
        tree[i] = NEVER
    num_adams = num_extra - num_tail
    # Two loops instead of `grant_quotient` in one, which takes 2 to 3 % more time.
    if num_adams > 0:
        for e in range(num_experts):
            tree[leaves + e] = heaviest_first(weight[e], e)
        build_tree(tree, leaves)
        for step in range(num_adams):
            winner = key_index(tree[1])
            granted[step] = winner
            count[winner] += 1
            quotient = adams_quotient(weight[winner], count[winner])
            replay_leaf(tree, leaves, winner, heaviest_first(quotient, winner))
    if num_tail > 0:
        for e in range(num_experts):
            tree[leaves + e] = heaviest_first(sainte_lague_quotient(weight[e], count[e]), e)
        build_tree(tree, leaves)
        for step in range(num_adams, num_extra):
            winner = key_index(tree[1])
            granted[step] = winner
            count[winner] += 1
            quotient = sainte_lague_quotient(weight[winner], count[winner])
            replay_leaf(tree, leaves, winner, heaviest_first(quotient, winner))


@kernel
def donor_fixup(weight: Floats, count: Ints) -> bool:
    """Move one replica from the largest average to the smallest, if that lowers the largest.

    It never does: without a replica, the donor's own average can only grow (docs/algorithm.md has
    the argument), so the first comparison decides. It is here because the published algorithm has
    it. Returns whether a replica was moved. O(E). Twin of the function of this name in `cuda.py`.
    """
    num_experts = weight.shape[0]
    heaviest: Int = NEVER
    lightest: Int = NEVER
    for e in range(num_experts):
        average = adams_quotient(weight[e], count[e])
        heaviest = min(heaviest, heaviest_first(average, e))
        lightest = min(lightest, lightest_first(average, e))
    donor = key_index(heaviest)
    receiver = key_index(lightest)
    if donor == receiver or count[donor] <= 1:
        return False
    largest = adams_quotient(weight[donor], count[donor])
    new_largest = adams_quotient(weight[donor], count[donor] - 1)
    if not is_lower(new_largest, largest):
        return False
    for e in range(num_experts):
        if e != donor:
            new_count = count[e] + 1 if e == receiver else count[e]
            new_largest = max(new_largest, adams_quotient(weight[e], new_count))
    if not is_lower(new_largest, largest):
        return False
    count[donor] -= 1
    count[receiver] += 1
    return True
