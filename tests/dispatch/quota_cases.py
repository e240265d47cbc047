"""Random plans on several nodes, ranks with counts of their own, and whole splits of their sums."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from split_cases import random_plan

from eplb_np import Plan, Topology, make_plan
from eplb_np.dispatch import Splitter


class Case(NamedTuple):
    plan: Plan
    slot_load: np.ndarray  # [L, P]
    counts: np.ndarray  # [L, ranks, E]
    rank_gpus: np.ndarray | None  # [ranks]


def random_case(rng: np.random.Generator, num_layers: int = 1, most: int = 1000) -> Case:
    """Any plan, any ranks; ``slot_load`` is the best split, or any other into whole tokens."""
    plan = plan_on_nodes(rng, num_layers)
    num_gpus = plan.topology.num_gpus
    rank_gpus = None
    num_ranks = num_gpus
    if rng.random() < 0.6:  # several ranks on a GPU, GPUs without one, in any order
        num_ranks = int(rng.integers(1, 2 * num_gpus + 2))
        rank_gpus = rng.integers(0, num_gpus, num_ranks)
    counts = rng.integers(
        0, rng.choice([2, 10, most]), (num_layers, num_ranks, plan.logcnt.shape[1])
    )
    counts[rng.random(counts.shape) < 0.3] = 0
    total = counts.sum(axis=1)
    if rng.random() < 0.5:
        return Case(plan, Splitter(plan).split(total), counts, rank_gpus)
    return Case(plan, any_split(rng, plan, total), counts, rank_gpus)


def plan_on_nodes(rng: np.random.Generator, num_layers: int) -> Plan:
    """Whole groups on nodes, a plan of the split's tests, or few experts that are everywhere."""
    kind = rng.choice(["groups", "split", "crowded"], p=[0.25, 0.25, 0.5])
    if kind == "split":
        plan = random_plan(rng, num_layers)
        divisors = [n for n in range(1, 9) if plan.topology.num_gpus % n == 0]
        topology = replace(plan.topology, num_nodes=int(rng.choice(divisors)))
        return Plan(plan.phy2log, plan.phyrank, topology, "random")
    num_nodes = int(rng.integers(2, 4))
    num_gpus = num_nodes * int(rng.integers(2, 4))
    if kind == "crowded":
        num_experts = int(rng.integers(1, 5))
        gone = rng.integers(num_gpus) if rng.random() < 0.3 else -1
        topology = Topology(
            num_experts,
            3 * num_gpus,
            num_gpus,
            num_nodes,
            active_gpus=[g for g in range(num_gpus) if g != gone],
        )
        phy2log = rng.integers(-1, num_experts, (num_layers, 3 * num_gpus))
        usable = np.flatnonzero(topology.gpu_of_slot != gone)
        for row in phy2log:
            row[rng.choice(usable, num_experts, replace=False)] = np.arange(num_experts)
        phy2log[:, topology.gpu_of_slot == gone] = -1
        phyrank = [
            [(row[:i] == e).sum() if e >= 0 else -1 for i, e in enumerate(row)] for row in phy2log
        ]
        return Plan(phy2log, phyrank, topology, "random")
    num_experts = 2 * num_nodes * int(rng.integers(1, 4))
    slots = -(-num_experts // num_gpus) + int(rng.integers(0, 3))
    load = rng.lognormal(sigma=1.5, size=(num_layers, num_experts))
    return make_plan(
        load,
        num_replicas=slots * num_gpus,
        num_gpus=num_gpus,
        num_nodes=num_nodes,
        num_groups=2 * num_nodes,
    )


def any_split(rng: np.random.Generator, plan: Plan, total: np.ndarray) -> np.ndarray:
    """Whole tokens of each expert, [L, E], put on its slots at random."""
    slot_load = np.zeros(plan.phy2log.shape, np.int64)
    for layer, row in enumerate(plan.phy2log):
        for e, tokens in enumerate(total[layer]):
            slots = np.flatnonzero(row == e)
            slot_load[layer, slots] = rng.multinomial(tokens, rng.dirichlet(np.ones(len(slots))))
    return slot_load


def ranks_of(case: Case) -> np.ndarray:
    """GPU of each rank."""
    return np.arange(case.plan.topology.num_gpus) if case.rank_gpus is None else case.rank_gpus


def routed_ids(rng: np.random.Generator, counts: np.ndarray, width: int = 4) -> np.ndarray:
    """Shuffled ids [T, width] in which each expert is as often as ``counts`` [E] says, padded."""
    ids = np.repeat(np.arange(len(counts)), counts)
    num_tokens = -(-(len(ids) + int(rng.integers(0, 5))) // width)
    padded = np.full(num_tokens * width, -1)
    padded[: len(ids)] = ids
    return rng.permutation(padded).reshape(num_tokens, width)
