"""The refined policy: valid plans, close to the best there are, with few duplicates."""

import cases
import naive
import numpy as np
import pytest
from plans import separate_plan
from recorded import needs_loads, recorded_loads
from support import fewer, needs_jit

import eplb_np
from eplb_np.local_search.node import DUPLICATES_GAIN
from eplb_np.metrics import layer_balancedness

TINY = [  # experts, replicas, GPUs, nodes, groups
    (3, 6, 3, 1, 1),
    (4, 8, 4, 1, 1),
    (4, 6, 2, 1, 1),
    (4, 8, 4, 2, 2),
    (4, 8, 4, 2, 4),
    (5, 8, 4, 1, 1),
]

# GPU balancedness to reach on the real loads, mean over the files.
TO_REACH = {
    "288 global 72": 0.9975,
    "320 global 64": 0.999,
    "288 global 32": 0.9997,
    "384 global 128": 0.996,
}


def plan_of(load, topology, **options) -> eplb_np.Plan:
    return eplb_np.make_plan(load, topology, policy="refined", **options)


def num_duplicates(plan: eplb_np.Plan) -> int:
    """Replicas that share a GPU with their like."""
    by_gpu = plan.phy2log.reshape(plan.num_layers, plan.topology.num_gpus, -1)
    return sum(len(gpu) - len(set(gpu)) for layer in by_gpu.tolist() for gpu in layer)


def test_plans_are_sound_in_all_random_cases() -> None:
    for case in cases.random_cases(fewer(1500, 60), seed=11):
        arguments = (case.num_replicas, case.num_groups, case.num_nodes, case.num_gpus)
        phy2log, log2phy, logcnt = eplb_np.rebalance_experts(
            case.weight, *arguments, policy="refined"
        )
        experts = case.weight.shape[1]
        for row, slots, count in zip(phy2log, log2phy, logcnt, strict=True):
            assert np.array_equal(np.bincount(row, minlength=experts), count), case.id
            assert (count > 0).all(), case.id
            for e in range(experts):
                assert sorted(np.flatnonzero(row == e)) == list(slots[e, : count[e]]), case.id


def test_groups_stay_whole_on_their_node() -> None:
    load = eplb_np.workloads.skewed_load(3, 24, num_groups=6)
    plan = plan_of(load, eplb_np.Topology(24, 48, 12, 3, 6))
    group_of_slot = plan.phy2log.reshape(3, 3, 16) // 4
    for layer in group_of_slot:
        groups = [set(node) for node in layer.tolist()]
        assert [len(node) for node in groups] == [2, 2, 2]
        assert set().union(*groups) == set(range(6))


def test_twice_on_a_gpu_only_where_that_balances_better() -> None:
    generator = np.random.default_rng(5)
    paid = 0
    for _ in range(fewer(400, 40)):
        gpus, slots = generator.integers(2, 9), generator.integers(1, 6)
        replicas = int(gpus * slots)
        experts = int(generator.integers(max(1, slots), replicas + 1))
        load = generator.lognormal(0, generator.uniform(0, 3), (1, experts)).astype(np.float32)
        topology = eplb_np.Topology(experts, replicas, int(gpus))
        plan, separate = plan_of(load, topology), separate_plan(load, topology)
        assert num_duplicates(separate) == 0, topology
        longest, separate_longest = (p.gpu_load(load).max() for p in (plan, separate))
        if num_duplicates(plan) > 0:
            assert longest < separate_longest * (1 - DUPLICATES_GAIN), topology
            paid += 1
        assert longest <= separate_longest, topology
    assert paid > 0


@pytest.mark.parametrize(
    "sizes",
    [(8, 12, 4), (8, 16, 8), (16, 24, 8, 2, 4), (6, 9, 3), (32, 48, 16, 2, 8), (64, 80, 16)],
    ids=str,
)
def test_no_worse_than_the_published_policies_on_small_layers(sizes) -> None:
    topology = eplb_np.Topology(*sizes)
    generator = np.random.default_rng(sizes[0])
    load = np.concatenate(
        [generator.lognormal(0, sigma, (fewer(130, 3), sizes[0])) for sigma in (0.5, 1, 2)]
    )
    by_policy = {
        policy: layer_balancedness(eplb_np.make_plan(load, topology, policy=policy).gpu_load(load))
        for policy in ("deepseek", "hybrid", "refined")
    }
    # A plan is as good as the best if it ends within DUPLICATES_GAP of what any plan could reach.
    assert (by_policy["refined"] >= by_policy["deepseek"] - 0.004).all()
    # The hybrid policy packs the groups in a way of its own, which now and then turns out lucky.
    worse = by_policy["refined"] < by_policy["hybrid"] - 0.004
    assert worse.mean() <= (0.02 if topology.num_nodes > 1 else 0)


def test_more_replicas_than_gpus_have_to_share() -> None:
    plan = separate_plan([[5.0, 1.0]], eplb_np.Topology(2, 12, 3))
    assert num_duplicates(plan) == 12 - 2 * 3


@pytest.mark.parametrize("sizes", TINY, ids=str)
def test_tiny_plans_are_close_to_the_optimum(sizes) -> None:
    experts, replicas, gpus, nodes, groups = sizes
    topology = eplb_np.Topology(*sizes)
    generator = np.random.default_rng(3)
    ratios = []
    for _ in range(25):
        load = generator.integers(0, 50, (1, experts)).astype(np.float64) + 1
        best = naive.optimal_makespan(load[0], replicas, gpus, nodes, groups, may_double=True)
        plan = plan_of(load, topology)
        largest = plan.gpu_load(load).max()
        assert largest >= best * (1 - 1e-12)
        ratios.append(largest / best)
    # With so few replicas there is little to search in; real layers end within 0.1 % of a bound.
    assert np.mean(ratios) < 1.05
    assert max(ratios) < 1.18


def test_balances_no_worse_than_hybrid() -> None:
    load = eplb_np.workloads.skewed_load(fewer(20, 2), 64, num_groups=8)
    for sizes in [(64, 80, 16), (64, 96, 32, 4, 8), (64, 72, 8, 1, 1)]:
        topology = eplb_np.Topology(*sizes)
        hybrid = eplb_np.make_plan(load, topology).balancedness(load)
        assert plan_of(load, topology).balancedness(load) >= hybrid, sizes


def test_same_bytes_on_every_run_and_thread_count() -> None:
    load = eplb_np.workloads.skewed_load(fewer(12, 3), 32)
    topology = eplb_np.Topology(32, 48, 8)
    plans = [plan_of(load, topology, num_threads=n) for n in (1, 1, 2, 5)]
    assert all(plan == plans[0] for plan in plans)


def test_layers_without_load_are_planned() -> None:
    plan = plan_of(np.zeros((2, 6)), eplb_np.Topology(6, 8, 4))
    plan.check()
    assert num_duplicates(plan) == 0


@needs_jit
@needs_loads
def test_reaches_its_goals_on_real_loads() -> None:
    loads = [load for _, load in recorded_loads()]
    for name, goal in TO_REACH.items():
        num_replicas, num_gpus = (int(word) for word in name.split(" global "))
        topology = eplb_np.Topology(256, num_replicas, num_gpus)
        plans = [plan_of(load, topology) for load in loads]
        reached = [p.balancedness(load) for p, load in zip(plans, loads, strict=True)]
        assert np.mean(reached) >= goal, name
        duplicates = sum(num_duplicates(p) for p in plans)
        assert duplicates <= (10 if num_gpus > 72 else 0), name  # of 384 slots in 348 layers
    hierarchical = eplb_np.Topology(*(256, 288, 32, 4, 8))
    for load in loads:
        plan = plan_of(load, hierarchical)
        # The bound is exact for the heaviest of four nodes with two groups each.
        best = load.sum() / 32 / plan.lower_bound(load).sum()
        assert best - 2e-4 <= plan.balancedness(load) <= best + 1e-12
