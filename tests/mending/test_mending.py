"""Mending a plan in use: it gets no worse, keeps to its budget, and keeps what can stay."""

from itertools import permutations

import numpy as np
import pytest
from plans import fetches_by_gpu, random_plan
from support import compiled, fewer, refused

import eplb_np
from eplb_np import MoveLimits, Plan, Topology
from eplb_np.mending import assignment, planner
from eplb_np.moves.fetches import count_fetches, fetched_slots


def mended(load, current: Plan, **options) -> Plan:
    plan = eplb_np.make_plan(load, current=current, policy="refined", **options)
    plan.check()
    return plan


def random_history(generator, topology: Topology, num_layers: int = 3) -> np.ndarray:
    """Some windows around one load, with a layer that has none now and then."""
    num_windows = int(generator.integers(1, 5))
    mean = generator.lognormal(0, generator.uniform(0.1, 2), (num_layers, topology.num_experts))
    mean[generator.random(num_layers) < 0.1] = 0
    return generator.poisson(100 * mean, (num_windows, *mean.shape)).astype(np.float64)


def random_topology(generator, *, uneven: bool = True) -> Topology:
    """Few GPUs of random slots and speeds, some of them gone; with and without groups."""
    num_nodes = int(generator.integers(1, 4))
    num_gpus = num_nodes * int(generator.integers(1, 4))
    num_groups = num_nodes * int(generator.integers(1, 4))
    num_experts = num_groups * int(generator.integers(1, 4))
    slots = -(-num_experts // num_gpus) + int(generator.integers(0, 3))
    if not uneven:
        return Topology(num_experts, slots * num_gpus, num_gpus, num_nodes, num_groups)
    gpu_slots = slots + generator.integers(0, 3, num_gpus)
    while True:
        try:
            return Topology(
                num_experts, int(gpu_slots.sum()), num_gpus, num_nodes, num_groups, gpu_slots,
                gpu_speeds=generator.choice([0.5, 1.0, 1.25], num_gpus),
                active_gpus=generator.random(num_gpus) < 0.9,
            )  # fmt: skip
        except ValueError:  # too many gone
            gpu_slots += 1


def longest_times(plan: Plan, load) -> np.ndarray:
    return plan.gpu_time(load).max(axis=1)


def expected_load(history) -> np.ndarray:
    forecast = eplb_np.forecast.LoadForecast(*history.shape[1:])
    forecast.observe(history.astype(np.float32))
    return forecast.load


def test_no_layer_gets_slower_under_the_forecast() -> None:
    generator = np.random.default_rng(1)
    moved = 0
    for i in range(fewer(400, 30)):
        topology = random_topology(generator, uneven=bool(i % 2))
        if topology.placement == "global":
            current = random_plan(generator, 3, topology)
            if (current.phy2log[:, topology.active_slots[topology.gpu_of_slot] > 0] < 0).any():
                continue  # filling an empty slot can take load to a GPU
        else:
            load = generator.lognormal(0, 1, (3, topology.num_experts))
            current = eplb_np.make_plan(load, topology, policy="refined")
        history = random_history(generator, topology)
        plan = mended(history, current)
        load = expected_load(history)
        moved += fetches_by_gpu(current, plan).sum()
        assert (longest_times(plan, load) <= longest_times(current, load) * (1 + 1e-9)).all()
    assert moved > 0


def test_budgets_are_never_exceeded() -> None:
    generator = np.random.default_rng(2)
    spent = 0
    for i in range(fewer(300, 25)):
        topology = random_topology(generator, uneven=bool(i % 2))
        if topology.placement == "hierarchical" and topology.num_nodes > 1:
            load = generator.lognormal(0, 1, (3, topology.num_experts))
            current = eplb_np.make_plan(load, topology, policy="refined")
        else:
            current = random_plan(generator, 3, topology)
        limits = MoveLimits(
            total=int(generator.integers(0, 12)), per_gpu=int(generator.integers(0, 5))
        )
        fetched = fetches_by_gpu(
            current, mended(random_history(generator, topology), current, limits=limits)
        )
        assert fetched.sum() <= limits.total
        assert fetched.max() <= limits.per_gpu
        spent += fetched.sum()
    assert spent > 0


def test_what_stays_on_a_gpu_keeps_its_slot() -> None:
    generator = np.random.default_rng(3)
    for i in range(fewer(200, 20)):
        topology = random_topology(generator, uneven=bool(i % 2))
        current = random_plan(generator, 3, topology)
        plan = mended(random_history(generator, topology), current)
        changed = (plan.phy2log != current.phy2log) & (plan.phy2log >= 0)
        assert changed.sum() == fetches_by_gpu(current, plan).sum()


def test_all_counts_of_fetches_agree_on_mended_plans() -> None:
    generator = np.random.default_rng(8)
    compared = 0
    for i in range(fewer(200, 20)):
        topology = random_topology(generator, uneven=bool(i % 2))
        current = random_plan(generator, 3, topology)
        plan = mended(random_history(generator, topology), current)
        count = count_fetches(current.phy2log, plan.phy2log, topology.gpu_of_slot)
        assert count == fetches_by_gpu(current, plan).sum()
        assert count == fetched_slots(current.phy2log, plan.phy2log).sum()
        moves = plan.moves_from(current)
        assert len(moves) == count
        within_a_gpu = int((moves.source_gpu == moves.gpu).sum())
        assert moves.num_fetched == count - within_a_gpu
        if not has_duplicates(plan):
            assert within_a_gpu == 0
            compared += 1
    assert compared > 0


def has_duplicates(plan: Plan) -> bool:
    """Whether a GPU holds an expert twice."""
    return any(
        len(set(row[row >= 0].tolist())) < (row >= 0).sum()
        for gpu in np.split(plan.phy2log, plan.topology.first_slots[1:-1], axis=1)
        for row in gpu
    )


def test_groups_end_whole_on_their_nodes_whatever_was_in_use() -> None:
    generator = np.random.default_rng(4)
    topology = Topology(24, 36, 6, 3, 6)
    for _ in range(fewer(50, 5)):
        plan = mended(random_history(generator, topology), random_plan(generator, 3, topology))
        for row in plan.phy2log.reshape(3, 3, 12) // 4:
            assert [len(set(node)) for node in row.tolist()] == [2, 2, 2]
            assert set(row.ravel().tolist()) == set(range(6))


def test_a_steady_load_moves_nothing() -> None:
    load = eplb_np.workloads.skewed_load(8, 64)
    topology = Topology(64, 96, 16)
    current = eplb_np.make_plan(load, topology, policy="refined")
    assert mended(np.stack([load] * 5), current).phy2log.tolist() == current.phy2log.tolist()


def test_a_new_workload_is_followed_with_few_moves() -> None:
    old, new = eplb_np.workloads.skewed_load(2, 64)[:, None]
    topology = Topology(64, 96, 16)
    current = eplb_np.make_plan(old, topology, policy="refined")
    plan = mended(new, current)
    from_scratch = eplb_np.make_plan(new, topology, policy="refined")
    assert current.balancedness(new) < 0.75
    assert plan.balancedness(new) > 0.95
    assert fetches_by_gpu(current, plan).sum() < 0.7 * fetches_by_gpu(current, from_scratch).sum()


def test_two_groups_swap_nodes_where_that_pays() -> None:
    topology = Topology(16, 16, 8, 2, 4)
    current = eplb_np.make_plan(np.ones((1, 16)), topology, policy="refined")
    heavy_groups = sorted({e // 4 for e in current.phy2log[0, :8].tolist()})
    load = np.ones((1, 16))
    for group in heavy_groups:
        load[0, group * 4 : group * 4 + 4] = 10
    plan = mended(load, current)
    assert plan.balancedness(load) > 1.5 * current.balancedness(load)
    assert len({e // 4 for e in plan.phy2log[0, :8].tolist()} & set(heavy_groups)) == 1
    kept = mended(load, current, limits=MoveLimits(total=7))  # a swap of groups takes 8
    assert {e // 4 for e in kept.phy2log[0, :8].tolist()} == set(heavy_groups)


def test_a_bad_plan_is_planned_anew_where_that_is_clearly_better() -> None:
    load = np.random.default_rng(0).lognormal(0, 1, (fewer(20, 6), 16))
    topology = Topology(16, 24, 8)
    plan = mended(np.stack([load] * 6), eplb_np.in_order_plan(len(load), topology))
    best = eplb_np.make_plan(load, topology, policy="refined")
    assert plan.balancedness(load) > best.balancedness(load) - 0.005


def test_prices_and_tolerances_keep_plans_still() -> None:
    old, new = eplb_np.workloads.skewed_load(2, 64)[:, None]
    current = eplb_np.make_plan(old, Topology(64, 96, 16), policy="refined")
    moved = [
        int(fetches_by_gpu(current, mended(new, current, limits=limits)).sum())
        for limits in (
            MoveLimits(),
            MoveLimits(price=float(new.mean() / 4)),
            MoveLimits(price=float(new.sum())),
            MoveLimits(tolerance=0.2),
            MoveLimits(tolerance=10),
        )
    ]
    assert moved[0] > moved[1] > moved[2] == 0
    assert moved[0] > moved[3] > moved[4] == 0


def test_a_budget_goes_to_the_layers_that_gain_most() -> None:
    load = np.ones((3, 8))
    load[0, :2], load[1, :2], load[2, :2] = 10, 50, 20
    current = eplb_np.in_order_plan(3, Topology(8, 8, 4))
    plan = mended(load, current, limits=MoveLimits(total=2))
    assert (plan.phy2log != current.phy2log).any(axis=1).tolist() == [False, True, False]


@pytest.mark.same_without_jit
def test_a_total_goes_where_it_gains_most_in_every_layer() -> None:
    old, new = eplb_np.workloads.skewed_load(2 * 8, 64).reshape(2, 8, 64)
    current = eplb_np.make_plan(old, Topology(64, 96, 16), policy="refined")
    unlimited = mended(new, current)
    pays = int(fetches_by_gpu(current, unlimited).sum())
    most = unlimited.balancedness(new) - current.balancedness(new)
    total = pays // 3
    plan = mended(new, current, limits=MoveLimits(total=total))
    fetched = int(fetches_by_gpu(current, plan).sum())
    assert 0.9 * total < fetched <= total
    assert (plan.phy2log != current.phy2log).any(axis=1).all()  # none is left out for another
    assert plan.balancedness(new) - current.balancedness(new) > 2 / 3 * most
    enough = mended(new, current, limits=MoveLimits(total=pays))
    assert enough.phy2log.tolist() == unlimited.phy2log.tolist()


@pytest.mark.same_without_jit
def test_a_total_gets_most_of_the_balance_back_when_a_gpu_is_lost() -> None:
    load = eplb_np.workloads.skewed_load(8, 64)
    topology = Topology(64, 96, 16, 2, 4)
    without = {"active_gpus": [gpu for gpu in range(16) if gpu != 3]}
    current = eplb_np.make_plan(load, topology, policy="refined")
    seats = mended(load, current, limits=MoveLimits(total=0), **without)
    unlimited = mended(load, current, **without)
    pays = int(fetches_by_gpu(current, unlimited).sum())
    plan = mended(load, current, limits=MoveLimits(total=pays // 3), **without)
    assert plan.placement == "hierarchical"
    assert fetches_by_gpu(current, plan).sum() <= pays // 3
    got_back = plan.balancedness(load) - seats.balancedness(load)
    assert got_back > 0.6 * (unlimited.balancedness(load) - seats.balancedness(load))


@pytest.mark.same_without_jit
def test_what_each_gpu_may_fetch_goes_where_it_gains_most(monkeypatch) -> None:
    load = eplb_np.workloads.skewed_load(8, 64)
    topology = Topology(64, 96, 16, 2, 4)
    without = {"active_gpus": [gpu for gpu in range(16) if gpu != 3]}
    current = eplb_np.make_plan(load, topology, policy="refined")
    limits = MoveLimits(per_gpu=5)
    plan = mended(load, current, limits=limits, **without)
    assert fetches_by_gpu(current, plan).max() <= 5
    monkeypatch.setattr(planner, "SURCHARGES_PER_GPU", np.empty(0))
    in_turn = mended(load, current, limits=limits, **without)
    assert fetches_by_gpu(current, in_turn).max() == 5
    assert plan.balancedness(load) > in_turn.balancedness(load) + 0.01
    enough = mended(load, current, limits=MoveLimits(per_gpu=100), **without)
    assert enough == mended(load, current, **without)


def test_doubled_replicas_are_parted() -> None:
    topology = Topology(4, 8, 4)
    maps = np.array([[0, 0, 1, 1, 2, 2, 3, 3]])
    current = Plan(maps, np.array([[0, 1] * 4]), topology, "by hand")
    plan = mended([[4.0, 4, 4, 4]], current)
    assert all(len(set(gpu)) == 2 for gpu in plan.phy2log.reshape(4, 2).tolist())


def test_same_bytes_on_every_thread_count() -> None:
    loads = eplb_np.workloads.skewed_load(fewer(24, 6), 32)
    topology = Topology(32, 48, 8)
    current = eplb_np.make_plan(loads[::-1], topology, policy="refined")
    for limits in (MoveLimits(), MoveLimits(total=fewer(40, 10)), MoveLimits(per_gpu=4)):
        plans = [mended(loads, current, limits=limits, num_threads=n) for n in (1, 2, 5)]
        assert all(plan == plans[0] for plan in plans)


def test_a_mended_plan_is_of_the_kind_of_the_one_in_use() -> None:
    current = eplb_np.make_plan(
        np.ones((2, 8)), Topology(8, 12, 4), dtype=np.int32, moe_layer_ids=[3, 5]
    )
    plan = mended(np.ones((2, 8)), current)
    assert (plan.dtype, plan.moe_layer_ids, plan.policy) == (np.int32, (3, 5), "refined")


# ---------------------------------------------------------------------------------------------
# GPUs that are gone, or differ
# ---------------------------------------------------------------------------------------------


def test_every_expert_keeps_a_seat_when_gpus_are_lost() -> None:
    generator = np.random.default_rng(5)
    for _ in range(fewer(100, 10)):
        topology = random_topology(generator)
        current = random_plan(generator, 3, topology)
        there = np.flatnonzero(topology.active_slots)
        kept = generator.permutation(there)[: max(1, len(there) - 1)]
        if topology.active_slots[kept].sum() < topology.num_experts:
            missing = topology.num_experts - topology.active_slots[kept].sum()
            with refused(f"{missing} slots are missing"):
                mended(np.ones((3, topology.num_experts)), current, active_gpus=kept)
            continue
        plan = mended(random_history(generator, topology), current, active_gpus=kept)
        assert (plan.logcnt > 0).all()
        load = np.full((3, topology.num_experts), 7.0)
        assert plan.gpu_load(load).sum(axis=1) == pytest.approx(load.sum(axis=1))
        gone = ~np.isin(topology.gpu_of_slot, kept)
        assert (plan.phy2log[:, gone] == -1).all()
        assert (
            plan.phy2log[:, ~gone & (topology.active_slots[topology.gpu_of_slot] > 0)] >= 0
        ).all()
        make_moves_possible = plan.moves_from(current)
        assert (np.isin(make_moves_possible.source_gpu, [-1, *kept.tolist()])).all()


def test_seats_are_given_even_beyond_the_budget() -> None:
    topology = Topology(8, 12, 4)
    current = eplb_np.in_order_plan(1, topology)
    plan = mended(np.ones((1, 8)), current, active_gpus=[0, 1, 2], limits=MoveLimits(total=0))
    lost = set(range(8)) - set(current.phy2log[0, :9].tolist())
    assert fetches_by_gpu(current, plan).sum() == len(lost)
    assert (plan.logcnt > 0).all()


def test_a_gpu_that_comes_back_is_filled_as_far_as_the_budget_goes() -> None:
    load = eplb_np.workloads.skewed_load(1, 8)
    whole = Topology(8, 16, 4)
    without = eplb_np.make_plan(load, whole, active_gpus=[0, 1, 3], policy="refined")
    assert (without.phy2log[0, 8:12] == -1).all()
    back = mended(load, without, topology=whole)
    assert (back.phy2log >= 0).all()
    few = mended(load, without, topology=whole, limits=MoveLimits(total=2))
    assert 0 < (few.phy2log[0, 8:12] >= 0).sum() <= 2
    assert (few.phyrank[few.phy2log < 0] == -1).all()
    assert longest_times(few, load) <= longest_times(without, load)


def test_faster_gpus_get_more_and_bounds_hold() -> None:
    generator = np.random.default_rng(6)
    for _ in range(fewer(100, 10)):
        topology = random_topology(generator)
        load = generator.lognormal(0, 1, (3, topology.num_experts))
        plan = eplb_np.make_plan(load, topology, policy="refined")
        plan.check()
        assert (longest_times(plan, load) >= plan.lower_bound(load) * (1 - 1e-12)).all()
    load = eplb_np.workloads.skewed_load(4, 64)
    topology = Topology(64, 96, 8, gpu_speeds=[1, 1, 1, 1, 2, 2, 2, 2])
    plan = eplb_np.make_plan(load, topology, policy="refined")
    slow, fast = np.hsplit(plan.gpu_load(load).mean(axis=0), 2)
    assert 1.9 < fast.mean() / slow.mean() < 2.1
    assert plan.balancedness(load) > 0.96


def test_bounds_know_the_fastest_gpu() -> None:
    topology = Topology(2, 2, 2, gpu_speeds=[1, 4])
    load = [[8.0, 1.0]]
    assert eplb_np.lower_bound(load, topology) == pytest.approx([2.0])
    plan = eplb_np.make_plan(load, topology, policy="refined")
    assert plan.gpu_time(load).tolist() == [[1.0, 2.0]]
    assert plan.balancedness(load) == pytest.approx(9 / 5 / 2)


def test_replicas_that_gpus_do_not_divide_are_planned_for() -> None:
    load = eplb_np.workloads.skewed_load(2, 16)
    plan = eplb_np.make_plan(load, num_replicas=22, num_gpus=4, policy="refined")
    assert np.diff(plan.topology.first_slots).tolist() == [5, 6, 5, 6]
    assert (plan.phy2log >= 0).all()
    assert plan.gpu_load(load).sum(axis=1) == pytest.approx(load.sum(axis=1))
    assert plan.balancedness(load) > 0.9


@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"active_gpus": [0, 1, 2]}, "active_gpus=(0, 1, 2)"),
        ({"gpu_speeds": [1, 2, 1, 1]}, "gpu_speeds=(1.0, 2.0, 1.0, 1.0)"),
        ({"gpu_slots": [2, 4, 3, 3]}, "gpu_slots differ, from 2 to 4"),
    ],
)
def test_published_policies_refuse_gpus_that_differ(policy, given, part) -> None:
    with refused(policy, part, "policy='refined'"):
        eplb_np.make_plan(np.ones((1, 8)), num_replicas=12, num_gpus=4, policy=policy, **given)


# ---------------------------------------------------------------------------------------------
# The assignment kernel, and bad arguments
# ---------------------------------------------------------------------------------------------


def test_assignments_are_optimal() -> None:
    assign = compiled(assignment.assign)
    make_scratch = compiled(assignment.make_assignment_scratch)
    generator = np.random.default_rng(7)
    for _ in range(fewer(200, 20)):
        n = int(generator.integers(1, 7))
        cost = generator.integers(0, 10, (n, n))
        column_of = np.empty(n, np.int64)
        assign(cost, column_of, make_scratch(n))
        assert sorted(column_of) == list(range(n))
        best = min(cost[range(n), order].sum() for order in permutations(range(n)))
        assert cost[range(n), column_of].sum() == best


CURRENT = eplb_np.in_order_plan(1, Topology(8, 12, 4))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"current": CURRENT.phy2log}, ["current must be a Plan, not ndarray", "Plan.load"]),
        ({"current": CURRENT, "policy": "hybrid"}, ["'hybrid'", "policy='refined'"]),
        (
            {"load": np.ones((2, 8)), "current": CURRENT},
            ["current has [layers, experts] = (1, 8)", "(2, 8) is wanted"],
        ),
        (
            {"current": CURRENT, "topology": Topology(8, 12, 6)},
            ["12 slots on 4", "12 slots on 6", "plan from scratch"],
        ),
        ({"topology": CURRENT.topology, "limits": MoveLimits()}, ["limits", "give current"]),
    ],
)
def test_what_cannot_be_mended_is_refused(given, parts) -> None:
    with refused(*parts):
        eplb_np.make_plan(**{"load": np.ones((1, 8)), "policy": "refined", **given})


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"total": -1}, "total=-1"),
        ({"per_gpu": 1.5}, "per_gpu=1.5"),
        ({"price": -0.1}, "price=-0.1"),
        ({"price": float("inf")}, "price=inf"),
        ({"tolerance": "x"}, "tolerance='x'"),
    ],
)
def test_limits_are_checked(given, part) -> None:
    with refused(part, "at least 0"):
        MoveLimits(**given)


def test_bad_loads_of_a_history_are_named_by_window() -> None:
    load = np.ones((3, 2, 4))
    load[1, 0, 2] = np.nan
    with refused("load[1, 0, 2] = nan (window 1, layer 0, expert 2)"):
        eplb_np.make_plan(load, num_replicas=4, num_gpus=2)
    with refused("4 dimension(s)", "[windows, layers, experts]"):
        eplb_np.make_plan(load[None], num_replicas=4, num_gpus=2)
