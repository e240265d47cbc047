"""Curves and bars: loads of experts, replays, sweeps, batches."""

import numpy as np
import pytest
from picture_cases import LOAD, MADE, line_named, panels, title_of
from support import refused

from eplb_np import Topology, in_order_plan, make_plan, pictures
from eplb_np.pictures.expert_loads import sorted_shares, staying_share
from eplb_np.replay import Replay
from eplb_np.sweeps import SweptCase
from eplb_np.sweeps.sweeping import Sweep

BALANCED = Replay(np.full(4, 9.0), np.full(4, 10.0), np.array([0, 3, 0, 2]), np.ones(4), 50, 2)
MOVING = Replay(np.full(4, 8.0), np.full(4, 10.0), np.array([0, 40, 41, 39]), np.ones(4), 50, 2)
STILL = Replay(np.full(4, 7.0), np.full(4, 10.0), np.zeros(4, int), np.ones(4), 50, 2)


def test_experts_most_loaded_first():
    load = np.array([[1.0, 6, 2, 3], [0, 0, 0, 0], [4, 4, 4, 4], [0, 2, 0, 2]])
    figure = pictures.expert_loads(load)
    (axes,) = panels(figure)
    assert sorted_shares(load).tolist() == [[2, 1, 2 / 3, 1 / 3], [1, 1, 1, 1], [2, 2, 0, 0]]
    assert line_named(axes, "median").get_xdata().tolist() == [1, 2, 3, 4]
    assert line_named(axes, "median").get_ydata().tolist() == [2, 1, 2 / 3, 1 / 3]
    assert line_named(axes, "most skewed").get_ydata().tolist() == [2, 1, 2 / 3, 1 / 3]
    assert title_of(figure) == "The hottest expert of a layer takes 2.00 times the mean"


def test_load_that_stays_from_window_to_window():
    windows = np.array([
        [[3.0, 1], [1, 1]],
        [[6.0, 2], [0, 0]],  # a layer without load says nothing
        [[0.0, 8], [2, 0]],
        [[0.0, 4], [1, 1]],
    ])  # fmt: skip
    assert staying_share(windows).tolist() == [1.0, 0.25, 0.75]
    figure = pictures.expert_loads(windows)
    _, axes = panels(figure)
    assert axes.lines[0].get_ydata().tolist() == [100, 25, 75]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert axes.get_ylim()[0] < 25
    assert "25% to 100%" in pictures.description(figure)


def test_no_load_is_even():
    assert title_of(pictures.expert_loads(np.zeros((2, 4)))) == (
        "The hottest expert of a layer takes 1.00 times the mean"
    )
    pictures.expert_loads(np.zeros((3, 2, 1)))


def test_replays_with_moves_under_them():
    results = {"mend": BALANCED, "again": MOVING, "once": STILL}
    figure = pictures.replays(results, marks=[3, 5])
    top, bottom = panels(figure)
    for name, result in results.items():
        line = line_named(top, name)
        assert line.get_xdata().tolist() == [2, 3, 4, 5]
        assert line.get_ydata().tolist() == result.window_balancedness.tolist()
    drawn = [line for line in bottom.lines if len(line.get_xdata()) == 4]
    assert [line.get_ydata().tolist() for line in drawn] == [
        [0, 3, 3, 5], [0, 40, 81, 120], [0, 0, 0, 0],
    ]  # fmt: skip
    assert bottom.get_yscale() == "log"
    marks = [line.get_xdata()[0] for line in top.lines if len(line.get_xdata()) == 2]
    assert marks == [2.5, 4.5]
    assert (
        title_of(figure) == "Best balanced: mend, 0.900; it fetches 3.3% of the slots at a replan"
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mend: 0.900, 3.3% fetched", "again: 0.800, 80.0% fetched", "once: 0.700, 0.0% fetched",
    ]  # fmt: skip
    assert "again: balancedness 0.800, 80.0% fetched" in pictures.description(figure)


def test_moves_that_are_alike_or_none_have_a_plain_scale():
    for results in ({"a": MOVING, "b": MOVING}, {"a": STILL}):
        figure = pictures.replays(results)
        _, bottom = panels(figure)
        assert bottom.get_yscale() == "linear"
        assert bottom.get_ylim()[0] == 0
    assert title_of(figure) == ("a: 0.700 over all windows, 0.0% of the slots fetched at a replan")


def test_lines_differ_in_more_than_colour():
    top, _ = panels(pictures.replays({str(i): STILL for i in range(7)}))
    assert len({line.get_color() for line in top.lines}) == 7
    assert len({str(line._dash_pattern) for line in top.lines}) == 7


@pytest.mark.parametrize(
    "results", [{}, {str(i): STILL for i in range(8)}, [STILL], {"a": 1}, {1: STILL}]
)
def test_what_is_no_replay(results):
    with refused("results"):
        pictures.replays(results)


def test_marks_that_are_no_windows():
    with refused("a mark=-1 is too small"):
        pictures.replays({"a": STILL}, marks=[-1])


def row(gpus, slots, balance, next_windows=None, policy="refined"):
    return SweptCase(
        gpus, gpus * slots, 1, 1, policy, gpus * slots - 8, slots, None, "global", 0, balance, 1.0,
        next_windows, None if next_windows is None else 0.1,
    )  # fmt: skip


def test_a_sweep_with_what_to_buy():
    rows = (row(4, 2, 0.80), row(4, 4, 0.981), row(4, 3, 0.975), row(4, 5, 0.984))
    figure = pictures.sweep_curves(Sweep(rows, (), 2, 8, 1))
    (axes,) = panels(figure)
    curve = line_named(axes, "4 GPUs, refined")
    assert curve.get_xdata().tolist() == [2, 3, 4, 5]
    assert curve.get_ydata().tolist() == [0.80, 0.975, 0.981, 0.984]
    ring = line_named(axes, "what to buy")
    assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == ([3], [0.975])
    assert title_of(figure) == "12 slots on 4 GPUs balance at 0.975: more gain less than 1%"
    assert ring.get_label() == "what to buy"
    figure = pictures.sweep_curves(Sweep(rows, (), 2, 8, 1), within=0.005)
    assert line_named(panels(figure)[0], "what to buy").get_xdata().tolist() == [4]


def test_a_sweep_of_several_sizes_is_judged_on_the_next_windows():
    rows = (row(4, 2, 0.9, 0.8), row(4, 3, 0.99, 0.9), row(2, 5, 0.9, 0.85), row(2, 6, 1.0, 0.851))
    figure = pictures.sweep_curves(Sweep(rows, (), 2, 8, 5))
    (axes,) = panels(figure)
    assert line_named(axes, "2 GPUs").get_ydata().tolist() == [0.85, 0.851]
    ring = line_named(axes, "what to buy, judged on the next windows")
    assert ring.get_xdata().tolist() == [3, 5]
    assert title_of(figure) == (
        "12 slots on 4 GPUs balance at 0.900; 10 slots on 2 GPUs balance at 0.850"
    )


def test_sweeps_that_cannot_be_drawn():
    with refused("found must be a Sweep, not list"):
        pictures.sweep_curves([])
    with refused("the sweep has no results"):
        pictures.sweep_curves(Sweep((), (), 2, 8, 1))
    many = tuple(row(gpus, 2, 0.9) for gpus in range(4, 12))
    with refused("found has 8 curves", "at most 7"):
        pictures.sweep_curves(Sweep(many, (), 2, 8, 1))


def heights(figure):
    (axes,) = panels(figure)
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


def test_a_batch_before_and_after_its_split():
    counts = [[60, 50, 5, 15], [10, 10, 10, 10], [0, 0, 0, 90]]
    topology = Topology(4, 6, 2)
    plan = make_plan([[90, 30, 10, 10]] * 3, topology, moe_layer_ids=[2, 5, 6])
    figure = pictures.split_batch(plan, counts, layer_id=2)
    even, best = heights(figure)
    assert even == sorted(plan.gpu_load(counts)[0].tolist(), reverse=True)
    assert best == [65, 65]
    assert title_of(figure) == (
        f"The busiest GPU has {max(even) / 65:.2f} times the mean with the even split, 1.00 with "
        "the best split"
    )
    (axes,) = panels(figure)
    assert axes.get_ylabel() == "load of a GPU, layer 2"
    assert axes.lines[0].get_ydata()[0] == 65


def test_the_layer_in_the_middle_is_taken():
    counts = [[60, 50, 5, 15], [10, 10, 10, 10], [0, 0, 0, 90]]
    plan = make_plan([[90, 30, 10, 10]] * 3, Topology(4, 6, 2), moe_layer_ids=[2, 5, 6])
    share = plan.gpu_load(counts).max(axis=1) / np.mean(plan.gpu_load(counts), axis=1)
    middle = plan.moe_layer_ids[int(np.argsort(share)[1])]
    (axes,) = panels(pictures.split_batch(plan, counts))
    assert axes.get_ylabel() == f"load of a GPU, layer {middle}"


def test_gpus_that_are_gone_have_no_bars():
    topology = Topology(4, 8, 4, active_gpus=[0, 2, 3])
    plan = make_plan(LOAD, topology, policy="refined")
    assert [len(bars) for bars in heights(pictures.split_batch(plan, LOAD))] == [3, 3]
    pictures.split_batch(in_order_plan(2, Topology(4, 4, 4)), np.zeros((2, 4)))


def test_batches_that_cannot_be_drawn():
    with refused("layer_id=4 is no layer of the plan: give one of [3, 7]"):
        pictures.split_batch(MADE, LOAD, layer_id=4)
    with refused("load has shape (2, 5)"):
        pictures.split_batch(MADE, np.ones((2, 5)))
