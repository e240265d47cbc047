"""Plans made for the best split, and mended for it."""

import numpy as np
import pytest
from support import fewer, refused

from eplb_np import MoveLimits, Plan, Rebalancer, Topology, make_plan
from eplb_np.dispatch.loads_to_come import FIRST_NOISE, MOST_WORKLOADS, Workloads
from eplb_np.forecast import Expected
from eplb_np.replay import once, replay

LAYERS = fewer(4, 1)
SPREAD = Topology(64, 72, 8)
NODES = Topology(64, 80, 8, 2, 4)
UNEVEN = Topology(64, 75, 8, gpu_speeds=[1, 1, 2, 1, 1, 1, 0.5, 1], active_gpus=range(1, 8))


def profile_of(rng, layers=LAYERS):
    weight = rng.gamma(1.5, size=(layers, 64)) + 0.05
    return weight / weight.sum(axis=1, keepdims=True)


def windows(rng, profile, number, tokens=100_000, concentration=20_000):
    """Windows of a workload, each with shares of its own."""
    share = rng.gamma(np.repeat(profile[None], number, axis=0) * concentration)
    share /= share.sum(axis=2, keepdims=True)
    return rng.poisson(share * tokens)


@pytest.mark.same_without_jit
@pytest.mark.parametrize("topology", [SPREAD, NODES, UNEVEN], ids=["spread", "nodes", "uneven"])
def test_a_plan_made_for_the_split_is_better_under_it(topology):
    rng = np.random.default_rng(1)
    profile = profile_of(rng)
    history = windows(rng, profile, 4)
    refined = make_plan(history, topology, policy="refined")
    made = make_plan(history, topology, policy="refined", split="best")
    made.check()
    gain = even = 0.0
    for load in windows(rng, profile, 6):
        gain += made.balancedness(load, split="best") - refined.balancedness(load, split="best")
        even += made.balancedness(load) - refined.balancedness(load)
    # Nodes that must take their groups' load leave the split little to gain.
    assert gain > 0 or (topology is NODES and gain == 0)
    assert even / 6 > -0.025  # the guard: 2 % on the forecast


@pytest.mark.parametrize(
    "topology",
    [SPREAD, NODES, pytest.param(UNEVEN, marks=pytest.mark.same_without_jit)],
    ids=["spread", "nodes", "uneven"],
)
def test_a_plan_made_for_the_split_is_a_good_plan(topology):
    rng = np.random.default_rng(2)
    history = windows(rng, profile_of(rng), 2)
    made = make_plan(history, topology, policy="refined", split="best")
    gpu = topology.gpu_of_slot
    for row in made.phy2log:
        pairs = [(g, e) for g, e in zip(gpu.tolist(), row.tolist(), strict=True) if e >= 0]
        assert len(set(pairs)) == len(pairs), "duplicates on a GPU"
        if topology.placement == "hierarchical":
            group_size = topology.num_experts // topology.num_groups
            homes = {(e // group_size, g // topology.gpus_per_node) for g, e in pairs}
            assert len(homes) == topology.num_groups


def test_the_same_bytes_on_any_number_of_threads():
    rng = np.random.default_rng(3)
    history = windows(rng, profile_of(rng), 3)
    plans = [
        make_plan(history, SPREAD, policy="refined", split="best", num_threads=threads)
        for threads in (1, 1, 3)
    ]
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.same_without_jit
def test_one_plan_for_several_workloads():
    rng = np.random.default_rng(4)
    profiles = [profile_of(rng) for _ in range(3)]
    history = np.concatenate([windows(rng, profile, 2) for profile in profiles])
    refined = make_plan(history.sum(axis=0), SPREAD, policy="refined")
    made = make_plan(history, SPREAD, policy="refined", split="best")
    for profile in profiles:
        load = windows(rng, profile, 3).sum(axis=0)
        assert made.balancedness(load, split="best") > refined.balancedness(load, split="best")


@pytest.mark.same_without_jit
def test_mending_for_the_split_moves_less_and_balances_better():
    rng = np.random.default_rng(5)
    first, second = profile_of(rng), profile_of(rng)
    trace = np.concatenate([windows(rng, p, fewer(6, 2)) for p in (first, second, first)])
    moved, balance = {}, {}
    for split in ("even", "best"):
        rebalancer = Rebalancer(SPREAD, LAYERS, split=split)
        moved[split], times = 0, []
        for window in trace:
            if rebalancer.current is not None:
                times.append(rebalancer.current.balancedness(window, split=split))
            rebalancer.observe(window)
            moves = rebalancer.propose().moves
            moved[split] += 0 if moves is None else moves.num_fetched
        balance[split] = np.mean(times)
    assert balance["best"] > balance["even"]
    assert moved["best"] < moved["even"]


def test_a_rebalancer_plans_for_all_workloads_that_it_has_met():
    rng = np.random.default_rng(13)
    history = np.concatenate([windows(rng, profile_of(rng), 2) for _ in range(2)])
    rebalancer = Rebalancer(SPREAD, LAYERS, split="best")
    for window in history:
        rebalancer.observe(window)
    assert rebalancer.propose().plan == make_plan(history, SPREAD, policy="refined", split="best")
    latest = make_plan(history[2:], SPREAD, policy="refined", split="best")
    assert rebalancer.current != latest


def test_mending_keeps_a_plan_that_the_split_can_balance():
    rng = np.random.default_rng(6)
    profile = profile_of(rng)
    history = windows(rng, profile, 4)
    plan = make_plan(history, SPREAD, policy="refined", split="best")
    rebalancer = Rebalancer(SPREAD, current=plan, split="best")
    for window in windows(rng, profile, 3):
        rebalancer.observe(window)
        proposal = rebalancer.propose()
        assert proposal.stays
        assert "under the best split" in proposal.reason
        assert proposal.plan is plan


@pytest.mark.parametrize("limits", [MoveLimits(total=7), MoveLimits(per_gpu=2), MoveLimits(9, 2)])
def test_limits_hold(limits):
    rng = np.random.default_rng(7)
    plan = make_plan(windows(rng, profile_of(rng), 1)[0], SPREAD, policy="refined")
    load = windows(rng, profile_of(rng), 2)
    unlimited = make_plan(load, current=plan, policy="refined", split="best")
    assert len(unlimited.moves_from(plan)) > fewer(9, 7)
    mended = make_plan(load, current=plan, policy="refined", split="best", limits=limits)
    moves = mended.moves_from(plan)
    assert 0 < len(moves) <= (limits.total or 10**9)
    assert np.bincount(moves.gpu).max() <= (limits.per_gpu or 10**9)
    before, after = (p.balancedness(load[-1], split="best") for p in (plan, mended))
    assert after > before


def test_what_is_saved_goes_on_as_before(tmp_path):
    rng = np.random.default_rng(8)
    profiles = [profile_of(rng), profile_of(rng)]
    rebalancer = Rebalancer(SPREAD, LAYERS, split="best")
    for window in np.concatenate([windows(rng, p, 2) for p in profiles]):
        rebalancer.observe(window)
        rebalancer.propose()
    rebalancer.save(tmp_path / "state.npz")
    restored = Rebalancer.load(tmp_path / "state.npz")
    for window in windows(rng, profiles[0] + profile_of(rng), 2):
        for each in (rebalancer, restored):
            each.observe(window)
        assert rebalancer.propose().plan == restored.propose().plan


def workloads_of(history):
    """The workloads found in windows, and their noise."""
    memory = Workloads(*history.shape[1:])
    for window in history:
        memory.observe(window)
    expected = memory.added_to(Expected(history[-1]))
    return memory, expected.workloads, expected.noise


def test_windows_are_sorted_into_workloads():
    rng = np.random.default_rng(9)
    first, second = profile_of(rng, 4), profile_of(rng, 4)
    steady = windows(rng, first, 8)
    _, share, noise = workloads_of(steady)
    assert share.shape == (1, 4, 64)
    assert 5e-5 < noise < 7e-5  # 1 / 20,000 and 1 / 100,000
    np.testing.assert_allclose(share[0], (steady / steady.sum(axis=2, keepdims=True)).mean(axis=0))
    both = np.concatenate([windows(rng, p, 4) for p in (first, second, first)])
    _, share, _ = workloads_of(both)
    assert len(share) == 2
    np.testing.assert_allclose(share, [first, second], atol=2e-3)
    # Two windows that differ by more than noise are no reason to take the difference for noise.
    _, share, noise = workloads_of(both[[0, 4]])
    assert len(share) == 2
    assert noise == FIRST_NOISE


def test_a_layer_without_load_says_nothing_about_its_workload():
    rng = np.random.default_rng(12)
    history = windows(rng, profile_of(rng, 4), 6)
    history[3, 2] = 0
    _, share, _ = workloads_of(history)
    known = history[:, 2] / np.maximum(history[:, 2].sum(axis=1), 1)[:, None]
    known[3] = known[:3].mean(axis=0)  # as if the mean had come again
    assert len(share) == 1
    np.testing.assert_allclose(share[0, 2], known.mean(axis=0))
    history[0, 1] = 0  # nothing is known yet
    assert workloads_of(history[:1])[1][0, 1].tolist() == [1 / 64] * 64
    assert len(workloads_of(history)[1]) == 1
    history[0, [0, 2, 3]] = 0  # two windows with no layer in common
    history[0, 1] = 5
    history[1, 1] = 0
    _, share, noise = workloads_of(history[:2])
    assert len(share) == 1
    assert noise == FIRST_NOISE


def test_memory_of_workloads_is_bounded():
    rng = np.random.default_rng(10)
    nothing = Expected(np.zeros((LAYERS, 64)))
    memory = Workloads(LAYERS, 64)
    memory.observe(nothing.load)
    assert memory.added_to(nothing) is nothing
    memory, share, _ = workloads_of(np.stack([profile_of(rng) for _ in range(30)]))
    assert len(share) == MOST_WORKLOADS
    np.testing.assert_allclose(share.sum(axis=2), 1.0)
    copy = Workloads(LAYERS, 64)
    copy.restore(memory.state_dict())
    np.testing.assert_array_equal(copy.added_to(nothing).workloads, share)
    for name, bad in (("share", share + 1), ("windows", np.zeros(8)), ("noise", np.ones(1))):
        with refused("its workloads hold what no window can leave behind"):
            copy.restore(memory.state_dict() | {name: bad})


@pytest.mark.same_without_jit
def test_layers_without_load():
    load = np.zeros((3, LAYERS, 64), np.int64)
    for history in (load[0], load):
        make_plan(history, SPREAD, policy="refined", split="best").check()
    load[1] = 1
    load[1, 0] = 0
    make_plan(load, SPREAD, policy="refined", split="best").check()


def test_gpu_load_under_the_best_split():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    load = [[60, 50, 5, 15]]
    assert plan.gpu_load(load, split="best").tolist() == [[65, 65]]
    assert plan.gpu_load(load).tolist() == plan.gpu_load(load, split="even").tolist()
    assert plan.balancedness(load, split="best") == 1.0
    assert plan.gpu_time(load, split="best").tolist() == [[65, 65]]
    trace = np.array([load, load, load])
    planner = once(plan.topology)
    assert (
        replay(trace, planner, split="best").balancedness
        > replay(trace, planner, split="even").balancedness - 1e-12
    )


@pytest.mark.same_without_jit
def test_plans_for_the_best_split_hold_no_duplicates():
    rng = np.random.default_rng(2)
    topology = Topology(8, 12, 4)
    loads = rng.lognormal(0, 2, (fewer(12, 12), 8))
    assert make_plan(loads, topology).summary(loads).duplicates > 0
    assert make_plan(loads, topology, split="best").summary(loads).duplicates == 0


def test_unknown_splits_are_refused():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    load = [[1, 2, 3, 4]]
    with refused("split='fair' is unknown", "'best'"):
        plan.gpu_load(load, split="fair")
    with refused("split=3 is unknown"):
        Rebalancer(plan.topology, 1, split=3)
    with refused("split='fair' is unknown"):
        replay([load, load], lambda *_: pytest.fail("planned before"), split="fair")
    with refused("policy='hybrid' plans for the even split only", "policy='refined'"):
        make_plan(load, plan.topology, policy="hybrid", split="best")
    assert isinstance(make_plan(load, plan.topology, split="best"), Plan)


@pytest.mark.same_without_jit
def test_a_split_that_is_certain_gains_where_spare_slots_are_few():
    rng = np.random.default_rng(11)
    topology = Topology(256, 288, 72)
    weight = rng.gamma(4.0, size=(1, 256))
    history = windows(rng, weight / weight.sum(), 4)
    plans = {
        split: make_plan(history, topology, policy="refined", split=split)
        for split in ("best", "certain")
    }
    loads = windows(rng, weight / weight.sum(), 6)
    guarded, certain = (
        np.mean([plans[split].balancedness(load, split="best") for load in loads])
        for split in ("best", "certain")
    )
    assert certain > guarded + 0.005
    with refused("split='sure' is unknown", "'certain'"):
        make_plan(history, topology, policy="refined", split="sure")
    rebalancer = Rebalancer(topology, current=plans["certain"], split="certain")
    rebalancer.observe(loads[0])
    assert rebalancer.propose().plan.balancedness(loads[1], split="best") > guarded
