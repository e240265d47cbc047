"""A program that uses the package as type checkers see it: mypy and pyright check it from outside.

`make lint` checks it against the sources, and `make test-dist` against the installed wheel.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import eplb_np
from eplb_np import (
    Move,
    MoveLimits,
    Moves,
    Plan,
    PlanSummary,
    Proposal,
    Rebalancer,
    Splitter,
    Topology,
    make_plan,
)
from eplb_np.comparison import ComparedPlan, Comparison, compare
from eplb_np.engines import atom, fastdeploy, sglang, vllm
from eplb_np.io import RecordedLoads, WrittenPlan, read_loads, read_plan, write_plan
from eplb_np.replay import Planner, Replay, ReplayedWindow, mending, replay, replay_windows
from eplb_np.sweeps import Sweep, SweptCase, grid, sweep
from eplb_np.workloads import LoadTrace, draw_trace, skewed_load

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def plans(path: Path) -> Plan:
    """Plan, measure, save and load."""
    load = assert_type(skewed_load(2, 8, seed=1), Ints)
    topology = Topology(num_experts=8, num_replicas=12, num_gpus=4)
    assert_type(make_plan([[3, 1], [2, 2]], num_replicas=4, num_gpus=2, dtype=np.int32), Plan)
    plan = assert_type(make_plan(load, topology, policy="hybrid"), Plan)
    assert_type(eplb_np.in_order_plan(2, topology), Plan)
    assert_type(plan.topology, Topology)
    assert_type(topology.num_nodes, int)
    assert_type(plan.num_layers, int)
    assert_type(plan.gpu_load(load), Floats)
    assert_type(plan.gpu_time(load, split="best"), Floats)
    assert_type(plan.balancedness(load), float)
    assert_type(plan.lower_bound(load), Floats)
    assert_type(plan.summary(load), PlanSummary)
    assert_type(plan.summary(load).worst_layer_id, int)
    moves = assert_type(plan.moves_from(plan), Moves)
    assert_type(len(moves), int)
    assert_type(moves[0], Move)
    assert_type(moves[:1], Moves)
    assert_type([move.source_gpu for move in moves], list[int])
    plan.save(path)
    assert_type(Plan.load(path), Plan)
    return plan


def published() -> None:
    """The published program's functions, and measures."""
    phy2log, log2phy, logcnt = eplb_np.rebalance_experts(np.ones((1, 4)), 4, 1, 1, 2)
    for array in (phy2log, log2phy, logcnt):
        assert_type(array, Ints)
    assert_type(eplb_np.replicate_experts([[3.0, 1.0]], 3), tuple[Ints, Ints, Ints])
    assert_type(eplb_np.balanced_packing([[3.0, 1.0]], 2), tuple[Ints, Ints])
    gpu_load = assert_type(eplb_np.gpu_load(phy2log, logcnt, [[1, 1, 1, 1]], 2), Floats)
    assert_type(eplb_np.balancedness(gpu_load), float)
    assert_type(eplb_np.layer_balancedness(gpu_load), Floats)
    assert_type(eplb_np.moved_replicas(phy2log, phy2log, 2), int)


def serving(plan: Plan, load: Ints, path: Path) -> None:
    """A serving loop, and batches."""
    rebalancer = Rebalancer(plan.topology, current=plan, limits=MoveLimits(total=4))
    rebalancer.observe(load)
    proposal = assert_type(rebalancer.propose(), Proposal)
    assert_type(proposal.plan, Plan)
    assert_type(proposal.moves, Moves | None)
    assert_type(proposal.reason, str)
    assert_type(rebalancer.current, Plan | None)
    rebalancer.save(path)
    assert_type(Rebalancer.load(path), Rebalancer)
    splitter = Splitter(plan)
    assert_type(splitter.shares, Floats)
    assert_type(splitter.binding_gpus(load), NDArray[np.bool_])
    slot_load = splitter.split(load)
    assert_type(eplb_np.make_quotas(plan, slot_load, load), Ints)
    eplb_np.warmup(["refined"])


def files(path: Path) -> None:
    """Files of engines."""
    recorded = assert_type(read_loads(path), RecordedLoads)
    assert_type(recorded.load, Floats)
    assert_type(recorded.moe_layer_ids, list[int])
    plan = assert_type(read_plan(path, num_gpus=8), Plan)
    written = assert_type(write_plan(plan, path, "sglang"), WrittenPlan)
    assert_type(written.start, str)
    assert_type(written.path, Path)


def judged(load: Ints, topology: Topology) -> None:
    """Comparisons, replays and sweeps."""
    trace = assert_type(draw_trace(load, seed=1), LoadTrace)
    planner = assert_type(mending(topology), Planner)
    found = assert_type(replay(trace.load, planner), Replay)
    assert_type(found.balancedness, float)
    assert_type(replay_windows(trace.load, planner), Iterator[ReplayedWindow])
    comparison = assert_type(compare(trace.load, topology), Comparison)
    assert_type(comparison.best, ComparedPlan)
    swept = assert_type(sweep(load, grid(8, num_gpus=[2, 4], slots_per_gpu=[4])), Sweep)
    assert_type(swept.knee(), SweptCase)


def engines() -> None:
    """What engines call."""
    assert_type(vllm.make_policy(), type[vllm.EplbPolicy])
    assert_type(atom.make_rebalance_experts(), Callable[..., tuple[Any, Any, Any]])
    atom.install()
    sglang.install(limits=MoveLimits(per_gpu=1))
    fastdeploy.uninstall()
