"""Replaying traces: the measures, against plain ones, and what is promised of mending."""

import numpy as np
import pytest
from support import fewer, needs_jit, refused

import eplb_np
from eplb_np import Topology, workloads
from eplb_np.policies import POLICIES
from eplb_np.replay import (
    Replay,
    knowing_the_future,
    mending,
    once,
    planner_named,
    replanning,
    replay,
    replay_windows,
)

TOPOLOGY = Topology(16, 20, 4)


def small_trace(num_windows: int = 12, seed: int = 1):
    mean = np.random.default_rng(seed).dirichlet(np.full(16, 2.0), 3)
    return workloads.draw_trace(np.stack([mean] * num_windows), seed=seed)


def test_measures_are_those_of_a_plain_loop() -> None:
    trace = small_trace()
    result = replay(trace.load, replanning(TOPOLOGY, "deepseek", 3), first_window=2)
    means, longest, moved = [], [], [0]
    before = None
    for t in range(2, 12):
        plan = eplb_np.make_plan(
            trace.load[max(0, t - 3) : t].sum(axis=0), TOPOLOGY, policy="deepseek"
        )
        gpu_load = plan.gpu_load(trace.load[t])
        means.append(gpu_load.mean(axis=1).sum())
        longest.append(gpu_load.max(axis=1).sum())
        if before is not None:
            moved.append(eplb_np.moved_replicas(before.phy2log, plan.phy2log, 4))
        before = plan
    assert result.mean_time == pytest.approx(means)
    assert result.longest_time == pytest.approx(longest)
    assert result.moved.tolist() == moved
    assert result.balancedness == pytest.approx(sum(means) / sum(longest))
    assert result.window_balancedness == pytest.approx(np.array(means) / longest)
    assert result.moved_share == pytest.approx(sum(moved) / (9 * 3 * 20))
    assert (result.seconds > 0).all()
    assert result.milliseconds == pytest.approx(np.median(result.seconds) * 1e3)
    assert "moved" in repr(result)


def test_planning_once_moves_nothing_and_the_future_is_the_ceiling() -> None:
    trace = small_trace(fewer(30, 8))
    never = replay(trace.load, once(TOPOLOGY))
    ceiling = replay(trace.load, knowing_the_future(TOPOLOGY, trace.mean))
    from_scratch = replay(trace.load, replanning(TOPOLOGY, "refined"))
    assert never.moved.sum() == 0
    assert ceiling.balancedness > from_scratch.balancedness
    assert from_scratch.moved_share > 0.1


def test_gpus_that_differ_are_replayed() -> None:
    topology = Topology(16, 22, 4, gpu_speeds=[1, 1, 2, 2], active_gpus=[0, 2, 3])
    result = replay(small_trace().load, mending(topology))
    assert 0.7 < result.balancedness < 1


def test_windows_without_load_are_replayed() -> None:
    load = small_trace().load.copy()
    load[[0, 4, 5]] = 0
    result = replay(load, mending(TOPOLOGY))
    assert np.isfinite(result.balancedness)
    assert result.window_balancedness[3] == 1.0


def test_too_few_windows_are_refused() -> None:
    with refused("1 window(s)", "first_window=1", "2 or more"):
        replay(np.ones((1, 3, 16)), once(TOPOLOGY))
    with refused("first_window=0", "at least 1"):
        replay(np.ones((2, 3, 16)), once(TOPOLOGY), first_window=0)


def test_a_replay_is_made_window_by_window() -> None:
    load = small_trace().load
    whole = replay(load, replanning(TOPOLOGY, "deepseek"), first_window=3)
    planned = []
    planner = replanning(TOPOLOGY, "deepseek")

    def watched(history, current):
        planned.append(len(history))
        return planner(history, current)

    windows = replay_windows(load, watched, first_window=3)
    assert planned == []
    first = [next(windows), next(windows)]
    assert planned == [row.window for row in first] == [3, 4]
    part = Replay.of_windows(first)
    assert (part.first_window, part.num_replicas) == (3, whole.num_replicas)
    for figure in ("mean_time", "longest_time", "moved"):
        assert getattr(part, figure).tolist() == getattr(whole, figure)[:2].tolist()
    assert Replay.of_windows([*first, *windows]).balancedness == whole.balancedness
    with refused("no window"):
        Replay.of_windows([])
    with refused("1 window(s)"):  # at the call, not at the first window
        replay_windows(load[:1], planner)


def test_planners_by_name() -> None:
    load = small_trace().load
    others = {
        "once": once(TOPOLOGY),
        **{f"replan-{policy}": replanning(TOPOLOGY, policy, 2) for policy in POLICIES},
        "mend": mending(TOPOLOGY),
    }
    for name, planner in others.items():
        found = replay(load, planner_named(name, TOPOLOGY, 2))
        expected = replay(load, planner)
        assert found.longest_time.tolist() == expected.longest_time.tolist()
    kept = replay(load, planner_named("in-order", TOPOLOGY))
    plan = eplb_np.in_order_plan(3, TOPOLOGY)
    assert kept.window_balancedness == pytest.approx([plan.balancedness(w) for w in load[1:]])
    assert kept.moved.sum() == 0
    with refused("'best' is unknown", "in-order, once, replan-hybrid"):
        planner_named("best", TOPOLOGY)
    with refused("num_replicas=22", "policy='refined'"):
        planner_named("replan-deepseek", Topology(16, 22, 4))


def test_figures_of_the_windows_as_a_table_of_pandas() -> None:
    pytest.importorskip("pandas")
    result = replay(small_trace().load, replanning(TOPOLOGY, "deepseek"), first_window=4)
    table = result.to_dataframe()
    assert table["window"].tolist() == list(range(4, 12))
    assert table["moved"].tolist() == result.moved.tolist()
    assert table["balancedness"].tolist() == result.window_balancedness.tolist()
    assert table["moved_share"].sum() == pytest.approx(result.moved_share * 7)


GOALS = {  # scenario: points above DeepSeek's policy at least, share of slots moved at most
    "drift": (-0.2, 0.02),
    "stationary": (0.0, 0.01),
    "decode": (0.0, 0.01),
}


@needs_jit
@pytest.mark.parametrize("scenario", GOALS)
def test_mending_balances_no_worse_than_planning_anew_and_moves_little(scenario) -> None:
    points, share = GOALS[scenario]
    load = workloads.deepseek_v3_load(seed=0)
    base = load[load.sum(axis=1) > 0][::6]
    trace = workloads.scenario_trace(scenario, workloads.related_profiles(base, 3), num_windows=32)
    topology = Topology(256, 288, 32)
    mended = replay(trace.load, mending(topology), first_window=4)
    from_scratch = replay(trace.load, replanning(topology, "deepseek"), first_window=4)
    assert 100 * (mended.balancedness - from_scratch.balancedness) > points
    assert mended.moved_share < share


@needs_jit
def test_a_change_of_workload_is_followed_at_once() -> None:
    load = workloads.deepseek_v3_load(seed=0)
    base = load[load.sum(axis=1) > 0][::6]
    profiles = workloads.related_profiles(base, 2, variation=0.3)
    mean = np.concatenate([np.stack([profile] * 10) for profile in profiles])
    trace = workloads.draw_trace(mean, seed=2)
    topology = Topology(256, 288, 32)
    mended = replay(trace.load, mending(topology)).window_balancedness[10:].mean()
    last_eight = replay(trace.load, replanning(topology, "deepseek"))
    assert mended > last_eight.window_balancedness[10:].mean() + 0.03
