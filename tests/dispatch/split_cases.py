"""Random plans and counts to split, and what says plainly whether a split is the best one."""

from collections import deque

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from eplb_np import Plan, Topology


def random_plan(rng: np.random.Generator, num_layers: int = 1) -> Plan:
    """Few or many spare slots; GPUs that differ, or are gone; slots that are empty."""
    num_gpus = int(rng.integers(1, 9))
    num_experts = int(rng.integers(1, 20))
    slots = rng.integers(1, 6, num_gpus)
    active = rng.random(num_gpus) < 0.9
    while slots[active].sum() < num_experts:
        slots += 1
        active[rng.integers(num_gpus)] = True
    speeds = rng.choice([1.0, 0.5, 3.0, 0.37], num_gpus) if rng.random() < 0.4 else None
    topology = Topology(
        num_experts,
        int(slots.sum()),
        num_gpus,
        gpu_slots=slots.tolist(),
        gpu_speeds=None if speeds is None else speeds.tolist(),
        active_gpus=None if active.all() else active,
    )
    phy2log = np.full((num_layers, slots.sum()), -1)
    usable = np.flatnonzero(active[topology.gpu_of_slot])
    for row in phy2log:
        filled = rng.permutation(usable)
        filled = filled[: rng.integers(num_experts, len(usable) + 1)]
        row[filled[:num_experts]] = np.arange(num_experts)
        # Some experts get many replicas, others none.
        weight = rng.random(num_experts) ** 3 + 1e-3
        row[filled[num_experts:]] = rng.choice(
            num_experts, len(filled) - num_experts, p=weight / weight.sum()
        )
    phyrank = np.full_like(phy2log, -1)
    for row, ranks in zip(phy2log, phyrank, strict=True):
        for e in range(num_experts):
            ranks[row == e] = np.arange((row == e).sum())
    return Plan(phy2log, phyrank, topology, "random")


def crowded_plan(rng: np.random.Generator) -> Plan:
    """Many GPUs joined by replicas, in sets that cannot relieve each other."""
    num_experts, num_gpus, slots_each = 40, 24, 3
    topology = Topology(num_experts, num_gpus * slots_each, num_gpus)
    row = np.concatenate([np.arange(num_experts), rng.integers(0, 12, 72 - num_experts)])
    phy2log = rng.permutation(row)[None]
    phyrank = np.zeros_like(phy2log)
    for e in range(num_experts):
        phyrank[phy2log == e] = np.arange((phy2log == e).sum())
    return Plan(phy2log, phyrank, topology, "crowded")


def random_counts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Counts of few or many tokens, some of them zero, some experts hot."""
    counts = rng.integers(0, rng.choice([2, 10, 1000, 10**9]), shape)
    counts[rng.random(shape) < 0.2] = 0
    counts[rng.random(shape) < 0.1] *= 20
    return counts


def gpu_sums(plan: Plan, slot_load: np.ndarray) -> np.ndarray:
    """Load of each GPU, [L, D]."""
    gpu = plan.topology.gpu_of_slot
    return np.stack([slot_load[:, gpu == g].sum(axis=1) for g in range(plan.topology.num_gpus)], 1)


def expert_sums(plan: Plan, slot_load: np.ndarray) -> np.ndarray:
    """Load of each expert, [L, E]."""
    experts = range(plan.topology.num_experts)
    return np.stack([np.where(plan.phy2log == e, slot_load, 0).sum(axis=1) for e in experts], 1)


def least_makespan(plan: Plan, layer: int, counts: np.ndarray) -> float:
    """Least time of the slowest GPU over all fractional splits, by linear programming (HiGHS)."""
    slots = np.flatnonzero(plan.phy2log[layer] >= 0)
    n, num_gpus = len(slots), plan.topology.num_gpus
    gpu = plan.topology.gpu_of_slot[slots]
    speed = 1 / plan.topology.slowness
    rows = np.concatenate([gpu, np.arange(num_gpus)])
    columns = np.concatenate([np.arange(n), np.full(num_gpus, n)])
    within = coo_matrix((np.concatenate([np.ones(n), -speed]), (rows, columns)))
    sums = coo_matrix(
        (np.ones(n), (plan.phy2log[layer, slots], np.arange(n))), (len(counts), n + 1)
    )
    objective = np.zeros(n + 1)
    objective[n] = 1
    unit = max(float(counts.sum()), 1.0)
    found = linprog(objective, within, np.zeros(num_gpus), sums, counts / unit, method="highs")
    assert found.status == 0
    return float(found.fun) * unit


def reachable(plan: Plan, layer: int, slot_load: np.ndarray, start: int) -> set[int]:
    """GPUs that can get load from a GPU, directly or through others."""
    row, gpu = plan.phy2log[layer], plan.topology.gpu_of_slot
    seen, queue = {start}, deque([start])
    while queue:
        g = queue.popleft()
        for slot in np.flatnonzero((gpu == g) & (slot_load[layer] > 0)):
            new = set(gpu[row == row[slot]].tolist()) - seen
            seen |= new
            queue.extend(new)
    return seen
