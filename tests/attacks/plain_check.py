"""What a plan must be, said once more in plain Python, without a line of the package's own."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any


def check_plan(plan: Any, load: Any = None, *, full: bool = False) -> None:
    """Assert every invariant of a plan; ``full`` says that it was planned from scratch."""
    topology = plan.topology
    gpu_of_slot, active = layout(topology)
    phy2log, phyrank = plan.phy2log.tolist(), plan.phyrank.tolist()
    assert plan.phy2log.dtype == plan.phyrank.dtype == plan.logcnt.dtype
    assert plan.phy2log.dtype.name in ("int64", "int32")
    assert not plan.phy2log.flags.writeable
    assert len(phy2log) == len(phyrank) == len(plan.moe_layer_ids) > 0
    assert list(plan.moe_layer_ids) == sorted(set(plan.moe_layer_ids))
    for row, ranks, counts in zip(phy2log, phyrank, plan.logcnt.tolist(), strict=True):
        assert len(row) == len(ranks) == topology.num_replicas
        placed: dict[int, list[int]] = {}
        for slot, (expert, rank) in enumerate(zip(row, ranks, strict=True)):
            assert -1 <= expert < topology.num_experts
            assert (rank == -1) == (expert == -1)
            assert expert == -1 or gpu_of_slot[slot] in active, f"slot {slot} is of a lost GPU"
            assert not full or expert >= 0 or gpu_of_slot[slot] not in active
            if expert >= 0:
                placed.setdefault(expert, []).append(rank)
        assert sorted(placed) == list(range(topology.num_experts))
        assert counts == [len(placed[expert]) for expert in range(topology.num_experts)]
        assert all(sorted(numbers) == list(range(len(numbers))) for numbers in placed.values())
        if full and plan.placement == "hierarchical":
            assert groups_are_whole(row, topology)
    check_log2phy(plan.log2phy.tolist(), phy2log, phyrank)
    if load is not None:
        check_measures(plan, load)


def layout(topology: Any) -> tuple[list[int], set[int]]:
    """Return the GPU of each slot, and the GPUs that are there."""
    gpus = topology.num_gpus
    slots = topology.gpu_slots or [topology.num_replicas // gpus] * gpus
    active = range(gpus) if topology.active_gpus is None else topology.active_gpus
    return [gpu for gpu in range(gpus) for _ in range(slots[gpu])], set(active)


def groups_are_whole(row: list[int], topology: Any) -> bool:
    """Whether each group of a layer is on one node, and each node has its share of them."""
    gpu_of_slot, _ = layout(topology)
    per_node = topology.num_gpus // topology.num_nodes
    group_size = topology.num_experts // topology.num_groups
    pairs = {
        (expert // group_size, gpu // per_node)
        for expert, gpu in zip(row, gpu_of_slot, strict=True)
        if expert >= 0
    }
    shares = Counter(node for _, node in pairs)
    fair = topology.num_groups // topology.num_nodes
    return len(pairs) == topology.num_groups and set(shares.values()) == {fair}


def check_log2phy(log2phy: Any, phy2log: Any, phyrank: Any) -> None:
    """Assert that ``log2phy`` is the inverse of the other two."""
    for layer, experts in enumerate(log2phy):
        inverse = {
            (expert, rank): slot
            for expert, slots in enumerate(experts)
            for rank, slot in enumerate(slots)
            if slot != -1
        }
        pairs = zip(phy2log[layer], phyrank[layer], strict=True)
        assert inverse == {pair: slot for slot, pair in enumerate(pairs) if pair[0] >= 0}


def check_measures(plan: Any, load: Any) -> None:
    """Assert that what is measured of a plan is finite, and adds up."""
    rows = [[float(value) for value in row] for row in load]
    gpu_load, gpu_time = plan.gpu_load(load).tolist(), plan.gpu_time(load).tolist()
    bound = plan.lower_bound(load).tolist()
    for row, loads, times, least in zip(rows, gpu_load, gpu_time, bound, strict=True):
        assert all(math.isfinite(value) and value >= 0 for value in loads + times)
        assert math.isclose(sum(loads), sum(row), rel_tol=1e-6, abs_tol=1e-300)
        assert math.isfinite(least)
        if plan.policy != "refined" or plan.placement == "global":
            assert least <= max(times) * (1 + 1e-6)
    for value in (plan.balancedness(load), plan.replica_balancedness(load)):
        assert 0 < value <= 1 + 1e-6, value


def check_one_line(error: BaseException) -> str:
    """Return what is wrong with an error's message, or nothing."""
    message = str(error)
    if not isinstance(error, (ValueError, OSError)) or isinstance(error, UnicodeError):
        return f"{type(error).__name__}: {message[:300]}"
    if "\n" in message or not message:
        return f"not one line: {message[:300]!r}"
    return ""
