"""The DeepSeek balancer in NumPy, with packing batched over the layers.

Our own implementation of the idea behind the fastest Python planners (vLLM's default EPLB policy,
https://github.com/vllm-project/vllm, ``vllm/distributed/eplb``, in NumPy, where only
packing loops, over items, and every step is taken in all layers at once). The plans are those of
``deepseek_python``, bit for bit.
"""

from __future__ import annotations

import numpy as np

from peers.deepseek_python import heaviest_first, plan, slots_of_experts


def balanced_packing(weight: np.ndarray, num_packs: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack of each item of ``weight`` [X, n] and its rank in the pack, both [X, n]."""
    num_rows, num_items = weight.shape
    capacity = num_items // num_packs
    if capacity == 1:
        first_rank = np.zeros(weight.shape, np.int64)
        return np.broadcast_to(np.arange(num_items), weight.shape), first_rank
    order = heaviest_first(weight)
    step_weight = np.take_along_axis(weight, order, axis=-1).T.copy()
    step_pack = np.empty((num_items, num_rows), np.int64)
    step_rank = np.empty((num_items, num_rows), np.int64)
    load = np.zeros((num_rows, num_packs), np.float32)
    held = np.zeros((num_rows, num_packs), np.int64)
    # One flat index for a pack of a row is cheaper than a pair of index arrays.
    flat_load, flat_held = load.reshape(-1), held.reshape(-1)
    first_pack = np.arange(num_rows) * num_packs
    for step in range(num_items):
        pack = load.argmin(axis=-1, out=step_pack[step])
        place = first_pack + pack
        rank = flat_held.take(place, out=step_rank[step])
        new_load = flat_load.take(place) + step_weight[step]
        if step + 1 >= capacity:  # no pack is full before
            new_load[rank == capacity - 1] = np.inf
        flat_load[place] = new_load
        flat_held[place] = rank + 1
    pack_index = np.empty(weight.shape, np.int64)
    rank_in_pack = np.empty(weight.shape, np.int64)
    np.put_along_axis(pack_index, order, step_pack.T, axis=-1)
    np.put_along_axis(rank_in_pack, order, step_rank.T, axis=-1)
    return pack_index, rank_in_pack


def replicate_experts(
    weight: np.ndarray, num_replicas: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expert and rank of each replica, both [X, P], and the count of each expert, [X, E]."""
    num_rows, num_experts = weight.shape
    rows = np.arange(num_rows)
    expert = np.tile(np.arange(num_replicas), (num_rows, 1))
    rank = np.zeros((num_rows, num_replicas), np.int64)
    count = np.ones((num_rows, num_experts), np.int64)
    quotient = weight.copy()
    for replica in range(num_experts, num_replicas):
        neediest = quotient.argmax(axis=-1)
        old_count = count[rows, neediest]
        new_count = old_count + 1
        expert[:, replica] = neediest
        rank[:, replica] = old_count
        count[rows, neediest] = new_count
        quotient[rows, neediest] = weight[rows, neediest] / new_count.astype(np.float32)
    return expert, rank, count


def rebalance_experts(
    weight: np.ndarray,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    with_log2phy: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """``phy2log`` [L, P], ``log2phy`` [L, E, largest count] or None, ``logcnt`` [L, E]."""
    phy2log, phyrank, logcnt = plan(
        weight, num_replicas, num_groups, num_nodes, num_gpus, balanced_packing, replicate_experts
    )
    log2phy = slots_of_experts(phy2log, phyrank, logcnt) if with_log2phy else None
    return phy2log, log2phy, logcnt
