"""Plans and counts for the split in rounds, and the split itself, on the CPU."""

from typing import NamedTuple

import numpy as np
from plans import random_plan

import eplb_np
from eplb_np.dispatch.cuda_graph import RoundGraphs, build_round_graphs
from eplb_np.dispatch.cuda_on_cpu import split_in_rounds
from eplb_np.dispatch.cuda_rounds import MOST_ROUNDS
from eplb_np.dispatch.graph import SplitGraph, build_graph
from eplb_np.metrics import replica_load


class RoundCase(NamedTuple):
    plan: eplb_np.Plan
    load: np.ndarray  # [L, E], expected
    counts: np.ndarray  # [L, E]
    graph: SplitGraph
    rounds: RoundGraphs


def case_of(plan, load, counts) -> RoundCase:
    phy2log, logcnt = plan.phy2log.astype(np.int64), plan.logcnt.astype(np.int64)
    gpus = plan.topology.gpus
    graph = build_graph(phy2log, logcnt, gpus, replica_load(phy2log, logcnt, load))
    rounds = build_round_graphs(phy2log, gpus.first_slot, graph)
    return RoundCase(plan, load, counts, graph, rounds)


def random_topology(rng, most_gpus: int) -> eplb_np.Topology:
    num_gpus = int(rng.integers(1, most_gpus + 1))
    num_experts = int(rng.integers(1, 3 * num_gpus + 2))
    slots = rng.integers(1, 5, num_gpus) if rng.random() < 0.3 else None
    least = -(-num_experts // num_gpus) * num_gpus
    num_replicas = least + num_gpus * int(rng.integers(0, 3))
    options = {}
    if slots is not None and slots.sum() >= num_experts:
        num_replicas = int(slots.sum())
        options["gpu_slots"] = slots.tolist()
    if rng.random() < 0.3:
        options["gpu_speeds"] = rng.choice([0.5, 0.7, 1.0, 1.9], num_gpus).tolist()
    if rng.random() < 0.3:
        active = [g for g in range(num_gpus) if rng.random() < 0.8]
        held = slots if "gpu_slots" in options else np.full(num_gpus, num_replicas // num_gpus)
        if active and held[active].sum() >= num_experts:
            options["active_gpus"] = active
    return eplb_np.Topology(num_experts, num_replicas, num_gpus, **options)


def round_cases(number: int, seed: int, most_gpus: int = 9, num_layers: int = 2):
    for case in range(number):
        rng = np.random.default_rng([seed, case])
        topology = random_topology(rng, most_gpus)
        plan = random_plan(rng, num_layers, topology)
        load = rng.lognormal(3.0, 1.0, (num_layers, topology.num_experts))
        counts = rng.poisson(load * rng.lognormal(0.0, rng.choice([0.1, 1.0]), load.shape))
        if case % 7 == 0:
            counts[0] = 0
        yield case_of(plan, load, counts)


def split(case: RoundCase, counts=None, most_rounds: int = MOST_ROUNDS):
    """Load of each slot [L, P], and rounds, steps and levels of each layer [L, 3]."""
    counts = case.counts if counts is None else counts
    slot_load = np.empty(case.plan.phy2log.shape, np.int64)
    done = np.empty((len(counts), 3), np.int64)
    split_in_rounds(counts, *case.rounds, most_rounds, slot_load, done)
    return slot_load, done
