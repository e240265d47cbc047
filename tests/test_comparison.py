"""Comparing policies: each figure is what one would get by asking for it alone."""

import numpy as np
import pytest
from support import refused

import eplb_np
from eplb_np import MoveLimits, Topology, in_order_plan, make_plan, workloads
from eplb_np.comparison import compare, windows_at_most
from eplb_np.policies import POLICIES
from eplb_np.replay import mending, once, replanning, replay

TOPOLOGY = Topology(16, 20, 4)


@pytest.fixture(scope="module")
def history():
    mean = np.random.default_rng(1).dirichlet(np.full(16, 2.0), 3)
    return workloads.draw_trace(np.stack([mean] * 6), seed=1).load


def test_one_load_is_compared_on_itself(history):
    load = history[0]
    compared = compare(load, TOPOLOGY)
    plans = {row.name: row for row in compared.plans}
    assert list(plans) == ["in-order", *POLICIES]
    for policy in POLICIES:
        made = make_plan(load, TOPOLOGY, policy=policy)
        assert plans[policy].plan == made
        assert plans[policy].summary == made.summary(load)
        assert plans[policy].milliseconds > 0
    assert plans["in-order"].plan == in_order_plan(3, TOPOLOGY)
    assert plans["in-order"].milliseconds is None
    assert all(row.moved is None for row in compared.plans)
    assert compared.at_most == plans["refined"].summary.at_most
    assert compared.best is max(plans.values(), key=lambda row: row.summary.balancedness)
    assert (compared.replays, compared.replays_at_most, compared.left_out) == ((), None, ())
    assert "refined" in repr(compared)


def test_moves_are_those_from_the_plan_in_use(history):
    current = make_plan(history[0], TOPOLOGY, policy="refined")
    limits = MoveLimits(total=4)
    load = history[1][:, ::-1]
    compared = compare(load, current=current, limits=limits)
    plans = {row.name: row for row in compared.plans}
    assert list(plans) == ["current", "in-order", *POLICIES, "mended"]
    for row in compared.plans:
        assert row.moved == eplb_np.moved_replicas(current.phy2log, row.plan.phy2log, 4)
    assert plans["current"].plan is current
    assert plans["current"].moved == 0
    mended = make_plan(load, current=current, limits=limits, policy="refined")
    assert plans["mended"].plan == mended
    assert 0 < plans["mended"].moved <= 4 < plans["refined"].moved


def test_a_history_is_also_judged_on_windows_to_come(history):
    calls = []
    compared = compare(
        history, TOPOLOGY, first_window=2, num_windows=3, on_window=lambda: calls.append(1)
    )
    total = history.sum(axis=0)
    refined = {row.name: row for row in compared.plans}["refined"]
    assert refined.plan == make_plan(total, TOPOLOGY, policy="refined")
    assert refined.summary == refined.plan.summary(total)
    expected = {
        "once": once(TOPOLOGY),
        **{f"replan-{policy}": replanning(TOPOLOGY, policy, 3) for policy in POLICIES},
        "mend": mending(TOPOLOGY),
    }
    found = {row.name: row.replay for row in compared.replays}
    assert list(found) == ["in-order", *expected]
    assert len(calls) == 4 * len(found)
    for name, planner in expected.items():
        alone = replay(history, planner, first_window=2)
        assert found[name].longest_time.tolist() == alone.longest_time.tolist()
        assert found[name].moved.tolist() == alone.moved.tolist()
    kept = in_order_plan(3, TOPOLOGY)
    assert found["in-order"].window_balancedness == pytest.approx(
        [kept.balancedness(window) for window in history[2:]]
    )
    bounds = [eplb_np.lower_bound(window, TOPOLOGY).sum() for window in history[2:]]
    assert compared.replays_at_most == pytest.approx(history[2:].sum() / 4 / sum(bounds))
    assert all(replay.balancedness <= compared.replays_at_most for replay in found.values())


def test_what_cannot_plan_for_the_sizes_is_left_out(history):
    compared = compare(history, Topology(16, 22, 4, active_gpus=[0, 1, 3]))
    assert [row.name for row in compared.plans] == ["refined"]
    assert [row.name for row in compared.replays] == ["once", "replan-refined", "mend"]
    assert [said.partition(":")[0] for said in compared.left_out] == [
        "hybrid", "deepseek", "in-order",
    ]  # fmt: skip


def test_what_no_plans_exceed_is_of_the_windows_that_are_judged():
    """One expert on each GPU: the bound is the largest expert, in every window another share."""
    load = np.ones((3, 1, 4))
    load[:, 0, 0] = [1, 2, 5]
    compared = compare(load, Topology(4, 4, 4))
    assert compared.replays_at_most == pytest.approx((5 / 4 + 8 / 4) / (2 + 5))
    assert compared.replays[0].replay.balancedness == pytest.approx(compared.replays_at_most)
    assert compared.at_most == pytest.approx(17 / 4 / 8)


def test_windows_without_load_are_balanced():
    assert windows_at_most(np.zeros((2, 3, 16)), TOPOLOGY) == 1.0


def test_bad_arguments_are_refused(history):
    with refused("no topology"):
        compare(history)
    with refused("limits are given, but no plan"):
        compare(history, TOPOLOGY, limits=MoveLimits(total=1))
    with refused("first_window=6", "7 or more"):
        compare(history, TOPOLOGY, first_window=6)
    with refused("16 experts", "num_experts=8"):
        compare(history, Topology(8, 12, 4))
    with refused("current (20 slots", "topology (24 slots"):
        compare(history, Topology(16, 24, 4), current=in_order_plan(3, TOPOLOGY))
    with refused("current must be a Plan"):
        compare(history, current="plan")
