"""Bridges: redundant slots that hold an expert of another node's group."""

import json

import numpy as np
import pytest
from support import fewer, refused

from eplb_np import MoveLimits, Plan, Rebalancer, Topology, lower_bound, make_plan, split_load
from eplb_np.dispatch.planner import _needs_repair
from eplb_np.maps.homes import groups_are_home, home_nodes

LAYERS = fewer(4, 1)
SIZES = {"num_experts": 64, "num_replicas": 80, "num_gpus": 8, "num_nodes": 2, "num_groups": 4}
WHOLE = Topology(**SIZES)
BRIDGED = Topology(**SIZES, bridges=3)
ROOMY = Topology(64, 96, 8, 2, 4, bridges=3)  # hierarchical although a GPU is lost


def windows(seed, number=3):
    """Windows of a workload with groups of unequal load."""
    rng = np.random.default_rng(seed)
    weight = rng.gamma(1.5, size=(LAYERS, 64)) + 0.05
    weight *= rng.permuted(np.tile([4.0, 1.0, 0.8, 0.5], (LAYERS, 1)), axis=1).repeat(16, axis=1)
    share = weight / weight.sum(axis=1, keepdims=True)
    return rng.poisson(np.repeat(share[None], number, axis=0) * 100_000)


def plan_for(history, topology, split="best", **options):
    return make_plan(history, topology, policy="refined", split=split, **options)


def check_bridges(plan, home, most):
    """Assert with given home nodes, [L, G], what bridges must keep; returns how many there are."""
    topology = plan.topology
    size = topology.num_experts // topology.num_groups
    node = (topology.gpu_of_slot // topology.gpus_per_node).tolist()
    total = 0
    for row, homes in zip(plan.phy2log.tolist(), home.tolist(), strict=True):
        away = [n != homes[e // size] for n, e in zip(node, row, strict=True) if e >= 0]
        assert sum(away) <= most
        total += sum(away)
        at_home = {e for n, e in zip(node, row, strict=True) if e >= 0 and n == homes[e // size]}
        assert at_home == set(range(topology.num_experts))
        gpu = topology.gpu_of_slot.tolist()
        pairs = [pair for pair in zip(gpu, row, strict=True) if pair[1] >= 0]
        assert len(set(pairs)) == len(pairs), "duplicates on a GPU"
    return total


def homes_of(plan):
    """Home node of each group, [L, G]."""
    size = plan.topology.num_experts // plan.topology.num_groups
    return home_nodes(plan.phy2log, plan.topology)[:, ::size]


def best(plan, history):
    return plan.balancedness(history[-1], split="best")


@pytest.mark.parametrize("split", ["best", "certain"])
def test_bridges_keep_within_the_limit_and_balance_better(split):
    history = windows(1)
    whole = plan_for(history, WHOLE, split)
    plan = plan_for(history, BRIDGED, split)
    plan.check()
    assert check_bridges(whole, homes_of(whole), 0) == 0
    assert check_bridges(plan, homes_of(whole), 3) > 0  # groups stay where they were planned
    fresh = windows(1, 5)
    assert best(plan, fresh) > best(whole, fresh) + 0.05


def test_an_even_split_is_guarded():
    history = windows(2)
    start = make_plan(history.sum(axis=0), WHOLE, policy="refined")
    plan = plan_for(history, BRIDGED)
    load = history.sum(axis=0)
    assert plan.balancedness(load) > start.balancedness(load) - 0.025


@pytest.mark.same_without_jit
def test_the_same_bytes_on_any_number_of_threads():
    history = windows(3)
    plans = [plan_for(history, BRIDGED, num_threads=threads) for threads in (1, 3)]
    assert plans[0] == plans[1]


def test_crossing_is_the_load_outside_the_home_node():
    history = windows(4)
    plan = plan_for(history, BRIDGED)
    home = homes_of(plan_for(history, WHOLE))
    load = windows(5)[0]
    even = load / plan.logcnt
    for split in ("best", "even"):
        slots = split_load(plan, load).tolist()
        crossing = 0.0
        for i, row in enumerate(plan.phy2log.tolist()):
            for slot, expert in enumerate(row):
                served = slots[i][slot] if split == "best" else even[i, expert]
                if slot // 10 // 4 != home[i, expert // 16]:
                    crossing += served
        assert plan.crossing(load, split=split) == pytest.approx(crossing / load.sum())
    assert plan.crossing(load) > 0
    assert plan.crossing(np.zeros_like(load)) == 0
    with refused("split='odd'"):
        plan.crossing(load, split="odd")


def test_nothing_crosses_where_groups_are_whole():
    history = windows(6)
    assert plan_for(history, WHOLE).crossing(history[0]) == 0
    one_node = make_plan(history, num_replicas=80, num_gpus=8, policy="refined")
    assert one_node.crossing(history[0]) == 0


def test_home_is_where_most_experts_are_then_most_replicas_then_the_lowest():
    topology = Topology(4, 12, 2, 2, 2)
    rows = np.array(
        [
            [0, 1, 2, 2, 2, -1, 2, 3, 0, 0, 0, 0],  # most experts, though fewer replicas
            [0, 1, 2, 3, 3, -1, 2, 3, 0, 0, 0, 1],  # all experts on both: most replicas
            [0, 1, 2, 3, -1, -1, 0, 1, 2, 3, -1, -1],
        ]
    )
    assert home_nodes(rows, topology).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_mending_keeps_bridges_and_limits():
    first, second = windows(7), windows(8)
    whole = plan_for(first, WHOLE)
    limits = MoveLimits(total=9, per_gpu=3)
    rebalancer = Rebalancer(BRIDGED, current=whole, split="best", limits=limits)
    built = 0
    for window in (*first, *second):
        rebalancer.observe(window)
        proposal = rebalancer.propose()
        assert len(proposal.moves) <= 9
        assert np.bincount(proposal.moves.gpu, minlength=1).max() <= 3
        built = max(built, check_bridges(proposal.plan, homes_of(whole), 3))
    assert built > 0


def test_mending_builds_bridges_where_they_pay_and_then_stays():
    history = windows(9)
    whole = plan_for(history, WHOLE)
    mended = plan_for(history, BRIDGED, current=whole)
    assert check_bridges(mended, homes_of(whole), 3) > 0
    assert best(mended, history) > best(whole, history) + 0.05
    again = plan_for(history, BRIDGED, current=mended)
    assert len(again.moves_from(mended)) <= len(mended.moves_from(whole)) // 4
    assert check_bridges(again, homes_of(whole), 3) > 0


@pytest.mark.parametrize("most", [0, 1])
def test_a_lower_limit_takes_bridges_away(most):
    history = windows(10)
    plan = plan_for(history, BRIDGED)
    fewer_bridges = Topology(**SIZES, bridges=most)
    assert check_bridges(plan, homes_of(plan), 3) > most * LAYERS
    mended = plan_for(history, fewer_bridges, current=plan)
    check_bridges(mended, homes_of(mended), most)


@pytest.mark.same_without_jit
@pytest.mark.parametrize("topology", [BRIDGED, ROOMY], ids=["global", "hierarchical"])
def test_bridges_are_back_after_gpus_were_lost(topology):
    history = windows(11)
    rebalancer = Rebalancer(topology, LAYERS, split="best", limits=MoveLimits(total=40 * LAYERS))

    def next_plan():
        rebalancer.observe(history[0])
        return rebalancer.propose().plan

    assert next_plan().crossing(history[0]) > 0
    rebalancer.use_gpus(range(7))
    lost = next_plan()
    lost.check()
    if lost.placement == "hierarchical":
        check_bridges(lost, homes_of(lost), 3)
    rebalancer.use_gpus(None)
    for _ in range(8):
        plan = next_plan()
    assert not _needs_repair(plan.phy2log.astype(np.int64), topology)
    assert check_bridges(plan, homes_of(plan), 3) > 0


def test_groups_are_home_but_for_the_bridges():
    sizes = (4, 8, 2, 2, 2)
    rows = np.array([[0, 1, 0, 2, 2, 3, 3, 2]])  # one bridge
    assert not groups_are_home(rows, Topology(*sizes))
    assert groups_are_home(rows, Topology(*sizes, bridges=1))
    rows = np.array([[0, 1, 2, 1, 2, 2, 2, 3]])
    assert groups_are_home(rows, Topology(*sizes, bridges=1))
    rows = np.array([[0, 0, 0, 0, 1, 2, 3, 3]])  # expert 1 is not at home
    assert not groups_are_home(rows, Topology(*sizes, bridges=4))


def test_the_lower_bound_allows_for_bridges():
    load = windows(12)[:1].sum(axis=0)
    assert (lower_bound(load, BRIDGED) <= lower_bound(load, WHOLE)).all()
    apart = Topology(64, 80, 8)
    np.testing.assert_array_equal(lower_bound(load, BRIDGED), lower_bound(load, apart))


def test_what_cannot_have_bridges_is_refused():
    load = windows(13)[0]
    for options in ({}, {"policy": "refined"}, {"policy": "deepseek"}):
        with refused("bridges=3", "for the best split only", "split='best'", "bridges=0"):
            make_plan(load, BRIDGED, **options)
    with refused("for the best split only"):
        Rebalancer(BRIDGED, LAYERS)
    with refused("bridges=17", "16 redundant slots"):
        Topology(**SIZES, bridges=17)
    with refused("bridges=-1"):
        Topology(**SIZES, bridges=-1)
    with refused("bridges=2", "several nodes", "num_nodes=1"):
        Topology(64, 80, 8, bridges=2)
    with refused("bridges=2", "num_nodes=4", "num_groups=2"):
        Topology(64, 80, 8, 4, 2, bridges=2)
    assert Topology(64, 80, 8, bridges=0) == Topology(64, 80, 8)


def test_files_keep_bridges_and_old_ones_have_none(tmp_path):
    history = windows(14)
    for topology in (WHOLE, BRIDGED):
        plan = plan_for(history, topology)
        rebalancer = Rebalancer(topology, current=plan, split="best")
        rebalancer.observe(history[0])
        for name in ("plan.json", "plan.npz"):
            plan.save(tmp_path / name)
            assert Plan.load(tmp_path / name) == plan
        rebalancer.save(tmp_path / "state.npz")
        restored = Rebalancer.load(tmp_path / "state.npz")
        assert restored.topology == topology
        assert restored.current == plan
        stored = json.loads((tmp_path / "plan.json").read_text())["topology"]
        assert stored.get("bridges") == (3 if topology is BRIDGED else None)
    for window in history[1:]:
        rebalancer.observe(window)
        restored.observe(window)
        assert restored.propose().plan == rebalancer.propose().plan
