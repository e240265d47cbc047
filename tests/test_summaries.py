"""A plan under a load, in a dozen numbers."""

import dataclasses
import json

import numpy as np
import pytest
from support import refused

from eplb_np import Plan, Topology, in_order_plan, make_plan

NODES = Topology(num_experts=4, num_replicas=8, num_gpus=4, num_nodes=2)
LOAD = np.array([[60.0, 20, 10, 10], [0, 0, 0, 0], [10, 10, 10, 70]])


def by_hand(phy2log, topology, **options):
    phy2log = np.array(phy2log)
    rank = np.zeros_like(phy2log)
    for layer, row in enumerate(phy2log):
        rank[layer] = [-1 if e < 0 else int((row[:i] == e).sum()) for i, e in enumerate(row)]
    return Plan(phy2log, rank, topology, "by hand", **options)


def test_each_number_of_a_small_plan():
    row = [0, 0, 0, 1, 2, 3, 2, 3]
    plan = by_hand([row] * 3, NODES, moe_layer_ids=[3, 4, 7])
    # GPU loads 40, 40, 10, 10, then none, then 20/3, 40/3, 40, 40.
    summary = plan.summary(LOAD)
    assert summary.balancedness == pytest.approx(plan.balancedness(LOAD))
    assert summary.balancedness == pytest.approx((25 + 25) / (40 + 40))
    assert summary.at_most == pytest.approx(50 / plan.lower_bound(LOAD).sum())
    assert (summary.worst_layer_id, summary.worst_layer_balancedness) == (3, 25 / 40)
    assert summary.node_share == pytest.approx((80 / 50 + 80 / 50) / 2)  # the empty one has none
    assert (summary.most_replicas, summary.fewest_replicas) == (3, 1)
    assert summary.duplicates == 3
    assert (summary.most_slots, summary.fewest_slots) == (2, 2)


def test_the_node_that_is_the_busiest_in_most_layers():
    row = [0, 0, 0, 1, 2, 3, 2, 3]
    plan = by_hand([row] * 4, NODES)
    heavy, light, even = [60, 20, 10, 10], [10, 10, 10, 70], [30, 20, 20, 30]
    summary = plan.summary([heavy, light, light, even])
    assert (summary.busiest_node, summary.busiest_node_layers) == (1, 2)
    summary = plan.summary([even] * 4)
    assert (summary.busiest_node, summary.busiest_node_layers) == (0, 0)
    assert summary.node_share == 1.0


def test_one_node_has_no_busiest():
    summary = in_order_plan(2, Topology(4, 6, 2)).summary([[9, 1, 1, 1]] * 2)
    assert summary.node_share == 1.0
    assert (summary.busiest_node, summary.busiest_node_layers) == (0, 0)


def test_nodes_are_measured_by_their_speed():
    fast = Topology(4, 8, 4, 2, gpu_speeds=[3, 3, 1, 1])
    plan = by_hand([[0, 1, 0, 1, 2, 3, 2, 3]], fast)
    summary = plan.summary([[30, 30, 10, 10]])
    assert (summary.node_share, summary.balancedness) == pytest.approx((1.0, 1.0))
    assert plan.summary([[10, 10, 30, 30]]).node_share == pytest.approx((60 / 2) / (80 / 8))


def test_a_node_that_is_gone_and_gpus_that_differ():
    topology = Topology(4, 9, 4, 2, gpu_slots=[3, 2, 2, 2], active_gpus=[0, 1])
    plan = by_hand([[0, 0, 1, 2, 3, -1, -1, -1, -1]], topology)
    summary = plan.summary([[60, 20, 10, 10]])
    assert summary.balancedness == pytest.approx(plan.balancedness([[60, 20, 10, 10]]))
    assert summary.node_share == pytest.approx(1.0)
    assert (summary.most_slots, summary.fewest_slots) == (3, 2)
    assert summary.duplicates == 1


def test_no_load_is_balanced():
    summary = in_order_plan(2, NODES).summary(np.zeros((2, 4)))
    assert (summary.balancedness, summary.at_most, summary.node_share) == (1.0, 1.0, 1.0)
    assert (summary.worst_layer_id, summary.worst_layer_balancedness) == (0, 1.0)


def test_rows_of_dense_layers_are_left_out():
    plan = make_plan(LOAD[[0, 2]], NODES, moe_layer_ids=[1, 2])
    whole = np.vstack([np.zeros(4), LOAD[[0, 2]]])
    assert plan.summary(whole) == plan.summary(LOAD[[0, 2]])


def test_all_numbers_are_plain():
    summary = make_plan(LOAD, NODES).summary(LOAD.astype(np.float32))
    assert json.loads(json.dumps(dataclasses.asdict(summary))) == dataclasses.asdict(summary)


def test_loads_that_do_not_fit():
    with refused("load has shape (3, 5)"):
        in_order_plan(3, NODES).summary(np.ones((3, 5)))
