"""The slow twins of `make_quotas` and `assign`, in plain Python, one token or one pair at a time.

Nothing here comes from ``eplb_np``. A *row* is one layer; -1 is an empty slot, and padding.
"""

from __future__ import annotations

Row = list[int]
Rows = list[Row]


def quotas_of_layer(
    phy2log: Row,
    slot_load: Row,
    counts: Rows,
    gpu_of_slot: Row,
    rank_gpus: Row,
    gpus_per_node: int,
) -> Rows:
    """Quotas [ranks][slots] of one layer from its counts [ranks][experts]."""
    quotas = [[0] * len(phy2log) for _ in counts]
    rest = [list(row) for row in counts]
    room = list(slot_load)

    def same_gpu(rank: int, slot: int) -> bool:
        return rank_gpus[rank] == gpu_of_slot[slot]

    def same_node(rank: int, slot: int) -> bool:
        return rank_gpus[rank] // gpus_per_node == gpu_of_slot[slot] // gpus_per_node

    def anywhere(rank: int, slot: int) -> bool:
        return True

    order = sorted(range(len(counts)), key=lambda rank: (rank_gpus[rank], rank))
    for near in (same_gpu, same_node, anywhere):
        for rank in order:
            for slot, e in enumerate(phy2log):
                if e != -1 and near(rank, slot):
                    amount = min(rest[rank][e], room[slot])
                    quotas[rank][slot] += amount
                    rest[rank][e] -= amount
                    room[slot] -= amount
    return quotas


def slots_of_tokens(topk_ids: Rows, quotas: Row, log2phy: Rows) -> Rows:
    """Slots of a rank's ids, row by row.

    An expert whose quotas are used up stays on its last slot; what is no expert becomes -1.
    """
    left = list(quotas)
    slots = []
    for row in topk_ids:
        slots.append([_next_slot(e, left, log2phy) for e in row])
    return slots


def _next_slot(e: int, left: Row, log2phy: Rows) -> int:
    if not 0 <= e < len(log2phy):
        return -1
    replicas = [slot for slot in log2phy[e] if slot != -1]
    for slot in replicas:
        if left[slot] > 0:
            left[slot] -= 1
            return slot
    return replicas[-1]
