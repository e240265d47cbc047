"""What the parts of the hybrid policy do to balancedness.

    python docs/studies/ablation.py [LOADS ...]

Plans every deployment in four ways, composed from the public stages: replicas allocated by Adams'
quotient alone or with the Sainte-Lague tail, packed without refinement or with it. LOADS are files
that `eplb-np plan` can read; by default, the load that ships with the package.

Balancedness is on the load that the plan was made from, averaged over the files. The last column
counts the rows (one for each layer and node) in which the donor fix-up moved a replica.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import eplb_np
from eplb_np import workloads
from eplb_np.io import read_loads
from eplb_np.stages.priority_queue.cpu import num_leaves
from eplb_np.stages.replication.cpu import allocate_replicas, donor_fixup
from eplb_np.stages.replication.decisions import tail_length
from eplb_np.workloads.deployments import DEPLOYMENTS

Load = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]

PLANNED = ("288/8/4/32", "288 global 72", "320 global 64", "288 global 32")


class Variant(NamedTuple):
    """The hybrid policy with parts left out; with both parts it is the policy itself."""

    tail: bool
    refine: bool


VARIANTS = tuple(Variant(tail, refine) for tail in (False, True) for refine in (False, True))


class Planned(NamedTuple):
    """A plan, and in how many rows the fix-up moved a replica."""

    plan: eplb_np.Plan
    num_fixups: int


def plan_variant(load: Load, topology: eplb_np.Topology, variant: Variant) -> Planned:
    """Plan ``load`` [L, E] in the three stages of docs/algorithm.md."""
    num_layers = len(load)
    num_nodes = topology.num_nodes
    weight = load.astype(np.float32)

    experts = experts_of_nodes(weight, topology, refine_steps=1 if variant.refine else 0)
    node_weight = np.take_along_axis(weight.repeat(num_nodes, axis=0), experts, axis=1)

    count, num_fixups = allocate(node_weight, topology.num_replicas // num_nodes, variant.tail)

    replica = np.array([np.repeat(np.arange(len(row)), row) for row in count])
    replica_rank = np.array([np.concatenate([np.arange(c) for c in row]) for row in count])
    replica_weight = np.take_along_axis(node_weight / count.astype(np.float32), replica, axis=1)
    gpu, place = eplb_np.balanced_packing(
        replica_weight, topology.gpus_per_node, refine_steps=2 if variant.refine else 0
    )
    slot = gpu * topology.slots_per_gpu + place
    phy2log, phyrank = np.empty_like(slot), np.empty_like(slot)
    np.put_along_axis(phy2log, slot, np.take_along_axis(experts, replica, axis=1), axis=1)
    np.put_along_axis(phyrank, slot, replica_rank, axis=1)

    shape = (num_layers, topology.num_replicas)
    name = f"ablation{tuple(variant)}"
    plan = eplb_np.Plan(phy2log.reshape(shape), phyrank.reshape(shape), topology, name)
    return Planned(plan, num_fixups)


def experts_of_nodes(
    weight: NDArray[np.float32], topology: eplb_np.Topology, refine_steps: int
) -> Counts:
    """Experts of each node, [L * nodes, E / nodes]: whole groups, in node-local order."""
    num_layers, num_experts = weight.shape
    num_groups = topology.num_groups
    # A running sum, since the algorithm adds the experts one after another.
    running = weight.reshape(num_layers, num_groups, -1).cumsum(axis=2, dtype=np.float64)
    node, rank = eplb_np.balanced_packing(running[:, :, -1], topology.num_nodes, refine_steps)
    groups = np.argsort(node * num_groups + rank, axis=1)
    members = np.arange(num_experts).reshape(num_groups, -1)
    return members[groups].reshape(num_layers * topology.num_nodes, -1)


def allocate(weight: NDArray[np.float32], num_replicas: int, tail: bool) -> tuple[Counts, int]:
    """Replicas of each expert of each row [X, E], and how many rows the fix-up changed."""
    num_rows, num_experts = weight.shape
    num_extra = num_replicas - num_experts
    num_tail = tail_length(num_extra) if tail else 0
    count = np.empty((num_rows, num_experts), np.int64)
    granted = np.empty(num_extra, np.int64)
    tree = np.empty(2 * num_leaves(num_experts), np.int64)
    num_fixups = 0
    for row in range(num_rows):
        allocate_replicas(weight[row], num_extra, num_tail, count[row], granted, tree)
        num_fixups += bool(donor_fixup(weight[row], count[row]))
    return count, num_fixups


def print_table(loads: Sequence[Load]) -> None:
    """Print every deployment and variant as a row of a Markdown table."""
    print("| replicas / GPUs / nodes / groups | tail | refinement | GPU | replica | fix-ups kept |")
    print("|---|---|---|---|---|---|")
    for name in PLANNED:
        num_replicas, num_groups, num_nodes, num_gpus = DEPLOYMENTS[name].sizes
        for variant in VARIANTS:
            gpu, replica, num_fixups = [], [], 0
            for load in loads:
                topology = eplb_np.Topology(
                    load.shape[1], num_replicas, num_gpus, num_nodes, num_groups
                )
                planned = plan_variant(load, topology, variant)
                gpu.append(planned.plan.balancedness(load))
                replica.append(planned.plan.replica_balancedness(load))
                num_fixups += planned.num_fixups
            num_rows = sum(map(len, loads)) * num_nodes
            cells = (
                f"{num_replicas} / {num_gpus} / {num_nodes} / {num_groups}",
                "yes" if variant.tail else "no",
                "yes" if variant.refine else "no",
                f"{np.mean(gpu):.4f}",
                f"{np.mean(replica):.4f}",
                f"{num_fixups} of {num_rows}",
            )
            print(f"| {' | '.join(cells)} |")


def read_or_make(paths: Sequence[str]) -> list[Load]:
    """Read the MoE layers of the files, or make the load that ships with the package."""
    if paths:
        return [read_loads(path).load for path in paths]
    load = workloads.deepseek_v3_load(seed=0).astype(np.float64)
    return [load[load.any(axis=1)]]


if __name__ == "__main__":
    print_table(read_or_make(sys.argv[1:]))
