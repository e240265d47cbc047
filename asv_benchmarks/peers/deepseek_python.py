"""The DeepSeek balancer as it was published: Python loops over layers and items.

Our own implementation, over NumPy arrays, of the algorithm of deepseek-ai/EPLB
(https://github.com/deepseek-ai/EPLB, ``eplb.py``, which is a torch program). Sorts are stable
and ties go to the lower index.

Letters: L layers, E experts, P replicas, X rows (layers, or layers times nodes).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Packing = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
Replication = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def heaviest_first(weight: np.ndarray) -> np.ndarray:
    """Items of each row of ``weight`` [X, n] by descending weight."""
    return np.argsort(-weight, axis=-1, kind="stable")


def balanced_packing(weight: np.ndarray, num_packs: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack of each item of ``weight`` [X, n] and its rank in the pack, both [X, n]."""
    num_rows, num_items = weight.shape
    capacity = num_items // num_packs
    if capacity == 1:
        first_rank = np.zeros(weight.shape, np.int64)
        return np.broadcast_to(np.arange(num_items), weight.shape), first_rank
    order = heaviest_first(weight)
    pack_index = np.empty(weight.shape, np.int64)
    rank_in_pack = np.empty(weight.shape, np.int64)
    for row in range(num_rows):
        load = [np.float32(0)] * num_packs
        held = [0] * num_packs
        for item in order[row]:
            open_packs = (p for p in range(num_packs) if held[p] < capacity)
            pack = min(open_packs, key=load.__getitem__)
            pack_index[row, item] = pack
            rank_in_pack[row, item] = held[pack]
            load[pack] += weight[row, item]
            held[pack] += 1
    return pack_index, rank_in_pack


def replicate_experts(
    weight: np.ndarray, num_replicas: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expert and rank of each replica, both [X, P], and the count of each expert, [X, E].

    Grants one extra replica after the other, in all rows at once.
    """
    num_rows, num_experts = weight.shape
    rows = np.arange(num_rows)
    expert = np.tile(np.arange(num_replicas), (num_rows, 1))
    rank = np.zeros((num_rows, num_replicas), np.int64)
    count = np.ones((num_rows, num_experts), np.int64)
    for replica in range(num_experts, num_replicas):
        neediest = (weight / count.astype(np.float32)).argmax(axis=-1)
        expert[:, replica] = neediest
        rank[:, replica] = count[rows, neediest]
        count[rows, neediest] += 1
    return expert, rank, count


def plan(
    weight: np.ndarray,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    packing: Packing,
    replication: Replication,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compose the stages: expert and rank in each slot, both [L, P], and counts, [L, E]."""
    if num_groups % num_nodes != 0:
        num_groups = num_nodes = 1
    weight = np.asarray(weight, np.float32)
    num_layers, num_experts = weight.shape
    group_size = num_experts // num_groups
    node_groups = num_groups // num_nodes
    num_rows = num_layers * num_nodes

    # Groups to nodes; from here on a row is one node of one layer.
    by_group = weight.reshape(num_layers, num_groups, group_size)
    group_weight = by_group.sum(axis=-1, dtype=np.float64).astype(np.float32)
    node, rank_in_node = packing(group_weight, num_nodes)
    groups = np.argsort(node * node_groups + rank_in_node, axis=-1)
    node_experts = groups[:, :, None] * group_size + np.arange(group_size)
    node_experts = node_experts.reshape(num_layers, num_experts)
    node_weight = np.take_along_axis(weight, node_experts, axis=-1).reshape(num_rows, -1)

    # Replicas within each node, and the replicas to its GPUs.
    local, local_rank, local_count = replication(node_weight, num_replicas // num_nodes)
    average = node_weight / local_count.astype(np.float32)
    replica_weight = np.take_along_axis(average, local, axis=-1)
    gpu, rank_in_gpu = packing(replica_weight, num_gpus // num_nodes)
    slot = gpu * (num_replicas // num_gpus) + rank_in_gpu

    local_log = np.take_along_axis(node_experts.reshape(num_rows, -1), local, axis=-1)
    phy2log = np.empty_like(local_log)
    phyrank = np.empty_like(local_rank)
    logcnt = np.empty_like(node_experts)
    np.put_along_axis(phy2log, slot, local_log, axis=-1)
    np.put_along_axis(phyrank, slot, local_rank, axis=-1)
    np.put_along_axis(logcnt, node_experts, local_count.reshape(num_layers, -1), axis=-1)
    return phy2log.reshape(num_layers, -1), phyrank.reshape(num_layers, -1), logcnt


def slots_of_experts(phy2log: np.ndarray, phyrank: np.ndarray, logcnt: np.ndarray) -> np.ndarray:
    """``log2phy`` [L, E, largest count]: slot of each replica by its rank, padded with -1."""
    num_layers, num_replicas = phy2log.shape
    log2phy = np.full((*logcnt.shape, logcnt.max()), -1, np.int64)
    log2phy[np.arange(num_layers)[:, None], phy2log, phyrank] = np.arange(num_replicas)
    return log2phy


def rebalance_experts(
    weight: np.ndarray, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``phy2log`` [L, P], ``log2phy`` [L, E, largest count], ``logcnt`` [L, E]."""
    phy2log, phyrank, logcnt = plan(
        weight, num_replicas, num_groups, num_nodes, num_gpus, balanced_packing, replicate_experts
    )
    return phy2log, slots_of_experts(phy2log, phyrank, logcnt), logcnt
