"""Sweeps: which cases fit, what each gives, and what to buy."""

from dataclasses import replace

import numpy as np
import pytest
from support import refused

from eplb_np import Topology, make_plan, workloads
from eplb_np.replay import replanning, replay
from eplb_np.sweeps import Case, Sweep, SweptCase, grid, sweep


@pytest.fixture(scope="module")
def history():
    mean = np.random.default_rng(1).dirichlet(np.full(16, 2.0), 3)
    return workloads.draw_trace(np.stack([mean] * 6), seed=1).load


def test_a_grid_has_every_combination_that_fits():
    found = grid(
        16, [4, 8], num_redundant=[0, 8, 8, 12], num_nodes=[1, 4], num_groups=[8],
        policies=["deepseek", "refined"],
    )  # fmt: skip
    expected = {
        Case(gpus, 16 + more, nodes, 8, policy)
        for gpus in (4, 8)
        for more in (0, 8, 12)
        for nodes in (1, 4)
        for policy in ("deepseek", "refined")
        if policy == "refined" or (16 + more) % gpus == 0
    }
    assert set(found.cases) == expected
    assert len(found.cases) == len(expected)
    assert len(found.left_out) == 2
    assert all("28 slots on 8 GPUs" in said and "deepseek" in said for said in found.left_out)


def test_slots_per_gpu_make_replicas_and_default_to_the_fewest_and_more():
    assert [case.num_replicas for case in grid(10, [4], slots_per_gpu=[3, 5]).cases] == [12, 20]
    default = grid(10, [4, 5]).cases
    assert [case.num_replicas for case in default] == [
        12, 16, 20, 24, 28, 32, 10, 15, 20, 25, 30, 35,
    ]  # fmt: skip


def test_bad_grids_are_refused():
    with refused("no combination", "num_gpus=6 is not a multiple of num_nodes=4"):
        grid(16, [6], num_nodes=[4])
    with refused("both num_redundant and slots_per_gpu"):
        grid(16, [4], num_redundant=[0], slots_per_gpu=[4])
    with refused("20000 combinations", "10000"):
        grid(16, range(1, 10_001), num_redundant=[0, 1])
    with refused("0 combinations"):
        grid(16, [])
    with refused("policy='best' is unknown"):
        grid(16, [4], policies=["best"])
    with refused("an entry of num_gpus='4'"):
        grid(16, ["4"])


def test_a_case_is_judged_in_and_out_of_sample(history):
    cases = grid(16, [4], num_redundant=[4], policies=["deepseek", "refined"])
    found = sweep(history, cases, first_window=2, num_windows=3, expert_bytes=10)
    total = history.sum(axis=0)
    topology = Topology(16, 20, 4)
    assert (found.num_layers, found.num_experts, found.num_windows) == (3, 16, 6)
    for row, policy in zip(found.rows, ("deepseek", "refined"), strict=True):
        summary = make_plan(total, topology, policy=policy).summary(total)
        replayed = replay(history, replanning(topology, policy, 3), first_window=2)
        assert row.case == Case(4, 20, 1, 1, policy)
        assert (row.balancedness, row.at_most) == (summary.balancedness, summary.at_most)
        assert row.duplicates == summary.duplicates
        assert row.next_windows == row.judged == replayed.balancedness
        assert row.moved_share == replayed.moved_share
        assert (row.num_redundant, row.slots_per_gpu, row.bytes_per_gpu) == (4, 5, 5 * 3 * 10)


@pytest.mark.parametrize("load", [0, slice(0, 1)], ids=["load", "one window"])
def test_one_window_is_judged_in_sample_only(load, history):
    (row,) = sweep(history[load], [Case(4, 22, 2, 4)]).rows
    assert (row.next_windows, row.moved_share, row.bytes_per_gpu) == (None, None, None)
    assert row.judged == row.balancedness
    assert (row.placement, row.slots_per_gpu) == ("hierarchical", 6)


def test_several_processes_give_what_one_gives(history):
    cases = grid(16, [4, 8], num_redundant=[0, 8], policies=["deepseek", "refined"])
    assert sweep(history, cases, num_jobs=2).rows == sweep(history, cases).rows


def test_bad_arguments_are_refused(history):
    with refused("6 windows", "first_window=6", "7 or more"):
        sweep(history, grid(16, [4]), first_window=6)
    with refused("num_replicas=15 is less than num_experts=16"):
        sweep(history, [Case(5, 15)])
    with refused("a Case each"):
        sweep(history, [(4, 16)])
    with refused("from 1 to 10000"):
        sweep(history, [])
    with refused("num_jobs=0"):
        sweep(history, grid(16, [4]), num_jobs=0)
    with refused("dask must be a str"):
        sweep(history, grid(16, [4]), dask=1)
    with refused("expert_bytes=-1"):
        sweep(history, grid(16, [4]), expert_bytes=-1)


BASE = SweptCase(
    num_gpus=4, num_replicas=16, num_nodes=1, num_groups=1, policy="refined", num_redundant=0,
    slots_per_gpu=4, bytes_per_gpu=None, placement="global", duplicates=0, balancedness=0.5,
    at_most=1.0, next_windows=None, moved_share=None,
)  # fmt: skip


def swept(*rows):
    cases = [replace(BASE, **row) for row in rows]
    cases = [replace(case, slots_per_gpu=-(-case.num_replicas // case.num_gpus)) for case in cases]
    return Sweep(tuple(cases), (), 3, 16, 1)


def test_the_knee_is_the_fewest_slots_that_are_nearly_as_good_as_the_best():
    found = swept(
        {"num_replicas": 28, "balancedness": 0.95},
        {"num_replicas": 16, "balancedness": 0.80},
        {"num_replicas": 20, "balancedness": 0.945},
        {"num_replicas": 24, "balancedness": 0.93},
    )
    assert found.knee().num_replicas == 20
    assert found.knee(within=0).num_replicas == 28
    assert found.knee(within=0.2).num_replicas == 16
    assert [row.num_replicas for row in next(iter(found.curves.values()))] == [16, 20, 24, 28]


def test_the_knee_is_out_of_sample_where_there_is_a_history():
    found = swept(
        {"num_replicas": 16, "balancedness": 1.0, "next_windows": 0.5},
        {"num_replicas": 20, "balancedness": 0.9, "next_windows": 0.7},
    )
    assert found.knee().num_replicas == 20


def test_the_knee_counts_the_slots_of_the_largest_gpu():
    """A GPU with a slot less saves nothing: all of them need the memory of the largest."""
    found = swept(
        {"num_replicas": 17, "balancedness": 0.995},
        {"num_replicas": 20, "balancedness": 0.999},
        {"num_replicas": 24, "balancedness": 0.9999},
    )
    assert found.knee().num_replicas == 20


def test_the_knee_of_some_rows():
    found = swept(
        {"num_gpus": 4, "balancedness": 0.99},
        {"num_gpus": 8, "balancedness": 0.7},
        {"num_gpus": 8, "num_replicas": 24, "balancedness": 0.9, "policy": "deepseek"},
        {"num_gpus": 8, "num_replicas": 24, "balancedness": 0.9001, "num_nodes": 2},
    )
    assert found.knee().num_gpus == 4
    assert found.knee(num_gpus=8).num_nodes == 2  # of as many slots, the better balanced
    assert found.knee(num_gpus=8, policy="deepseek").policy == "deepseek"
    assert found.knee(num_gpus=8, num_nodes=1, policy="refined").num_replicas == 16
    assert [str(curve) for curve in found.curves] == [
        "4 GPUs, refined", "8 GPUs, refined", "8 GPUs, deepseek", "8 GPUs on 2 nodes, refined",
    ]  # fmt: skip
    with refused("num_groups=3"):
        found.knee(num_groups=3)
    with refused("within=2"):
        found.knee(within=2)


def test_rows_as_a_table_of_pandas():
    pytest.importorskip("pandas")
    table = swept({}, {"num_replicas": 20, "next_windows": 0.25}).to_dataframe()
    assert table["num_replicas"].tolist() == [16, 20]
    assert table["next_windows"].tolist()[1] == 0.25
    assert table["policy"].tolist() == ["refined"] * 2
