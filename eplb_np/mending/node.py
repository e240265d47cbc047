"""One node of a layer while it is mended: a slot table of its GPUs and its own experts.

Experts have numbers of their own in the node, so that the table is no larger than it must be.
Letters: E logical experts of the layer, D GPUs of the node.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.layers import most_slots
from eplb_np.local_search.slot_table import SlotTable, make_slot_table, update_table
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import Budget, make_budget
from eplb_np.mending.layer_plan import LayerPlan
from eplb_np.topology import Gpus


class Node(NamedTuple):
    """Working memory for one node after another."""

    table: SlotTable
    budget: Budget  # of the node's GPUs, and of all GPUs of the deployment together
    member: Ints  # [E] int64, expert of the layer for each number in the node
    number: Ints  # [E] int64, number in the node of each of its experts


@allocator
def make_node(num_experts: Int, num_nodes: Int, gpus: Gpus) -> Node:
    """Allocate a `Node`."""
    node_gpus = gpus.size.shape[0] // num_nodes
    return Node(
        make_slot_table(most_slots(gpus), node_gpus, num_experts // num_nodes),
        make_budget(node_gpus),
        ints(num_experts),
        ints(num_experts),
    )


@kernel
def read_node(node: Node, n: Int, layer: LayerPlan, home: Ints) -> None:
    """Copy node ``n`` of a layer, and its part of the budget; ``home`` [G] is each group's node."""
    table, gpus, left = node.table, layer.gpus, node.budget.left
    node_gpus = table.size.shape[0]
    num_experts = layer.weight.shape[0]
    group_size = num_experts // home.shape[0]
    members = 0
    for e in range(num_experts):
        if home[e // group_size] == n:
            node.number[e] = members
            node.member[members] = e
            table.weight[members] = layer.weight[e]
            members += 1
    for g in range(node_gpus):
        gpu = n * node_gpus + g
        table.size[g] = gpus.size[gpu]
        table.slowness[g] = gpus.slowness[gpu]
        left[g] = layer.budget.left[gpu]
        for r in range(table.size[g]):
            e = layer.phy2log[gpus.first_slot[gpu] + r]
            table.expert[r, g] = node.number[e] if e != EMPTY else EMPTY
    left[node_gpus] = layer.budget.left[gpus.size.shape[0]]
    table.margin[0] = 0.0
    update_table(table)


@kernel
def write_node(node: Node, n: Int, layer: LayerPlan) -> None:
    """Copy the plan of node ``n``, and what is left of the budget, back to the layer."""
    table, gpus, left = node.table, layer.gpus, node.budget.left
    node_gpus = table.size.shape[0]
    for g in range(node_gpus):
        gpu = n * node_gpus + g
        layer.budget.left[gpu] = left[g]
        for r in range(table.size[g]):
            e = table.expert[r, g]
            layer.phy2log[gpus.first_slot[gpu] + r] = node.member[e] if e != EMPTY else EMPTY
    layer.budget.left[gpus.size.shape[0]] = left[node_gpus]
