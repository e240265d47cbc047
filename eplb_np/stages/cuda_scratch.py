"""Working memory of a block: its parts, and their sizes.

It is in shared memory if it fits there, else in global memory.

Letters: E logical experts, G groups; n experts and p replicas of a node; i items, the larger of p
and G; r room for keys.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._cuda.jit import device
from eplb_np._cuda.memory import Memory
from eplb_np._numba.types import Floats, Int, Ints


class Scratch(NamedTuple):
    """Parts of a block's memory.

    Their places follow from the sizes alone: `carve` hands them out, and `scratch_bytes` says how
    much memory that takes.
    """

    keys: Ints  # [r + 2] int64, sorted keys; r is a power of two, at least i and n
    spare: Ints  # [r + 5] int64, two queues of at most half as many packs
    queues: Ints  # [2 r + 7] int64, keys and spare together: a queue of experts in each
    team_keys: Ints  # [2 * threads] int64, what the threads bring to a common decision
    expert: Ints  # [n] int32, logical expert at each node-local place
    logcnt: Ints  # [n] int32, replicas of each expert
    owner: Ints  # [p] int32, node-local expert of each replica
    rank: Ints  # [p] int32, which of its expert's replicas it is
    members: Ints  # [i] int32, item in each place of each pack
    order: Ints  # [i] int32, members in another order
    layer_weight: Floats  # [E] float32
    weight: Floats  # [n] float32, loads of the node's experts
    item_load: Floats  # [i] float32, loads of the items that are packed
    half: Floats  # [1] float32, a product that must be rounded before it is used


MOST_INDICES = 1 << 31
"""Indices that fit into a key."""


def scratch_bytes(
    num_experts: int, node_experts: int, node_replicas: int, num_items: int, threads: int
) -> tuple[int, int]:
    """Bytes of a `Scratch`, a multiple of 8, and its room for keys."""
    room = 1 << (max(num_items, node_experts, 1) - 1).bit_length()
    words = 2 * room + 7 + 2 * threads
    shorts = 2 * node_experts + 2 * node_replicas + 2 * num_items
    floats = num_experts + node_experts + num_items + 1
    return 8 * (words + (shorts + floats + 1) // 2), room


def count_bits(num_experts: int, num_replicas: int) -> int:
    """Bits of a key's index that hold a count of replicas, or ``ValueError`` if it has too few."""
    shift = (num_replicas - num_experts + 1).bit_length()
    if num_experts << shift > MOST_INDICES:
        raise ValueError(
            f"{num_experts} experts with up to {num_replicas - num_experts + 1} replicas each are "
            "too many for the GPU's kernels: plan on the CPU"
        )
    return shift


@device
def carve(
    memory: Memory,
    num_experts: Int,
    node_experts: Int,
    node_replicas: Int,
    num_items: Int,
    room: Int,
    threads: Int,
) -> Scratch:
    """Hand out the parts of a block's memory."""
    words, ints, floats = memory
    spare = room + 2
    team_keys = spare + room + 5
    expert = 2 * (team_keys + 2 * threads)
    count = expert + node_experts
    owner = count + node_experts
    rank = owner + node_replicas
    members = rank + node_replicas
    order = members + num_items
    layer_weight = order + num_items
    weight = layer_weight + num_experts
    item_load = weight + node_experts
    half = item_load + num_items
    return Scratch(
        words[0:spare],
        words[spare:team_keys],
        words[0:team_keys],
        words[team_keys : team_keys + 2 * threads],
        ints[expert:count],
        ints[count:owner],
        ints[owner:rank],
        ints[rank:members],
        ints[members:order],
        ints[order:layer_weight],
        floats[layer_weight:weight],
        floats[weight:item_load],
        floats[item_load:half],
        floats[half : half + 1],
    )
