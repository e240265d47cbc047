"""What people find who come from deepseek-ai/EPLB."""

import naive
import numpy as np
import pytest
from support import assert_same

from eplb_np import make_plan, rebalance_experts

WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
SIZES = {"num_replicas": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8}
PHY2LOG = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def test_the_originals_own_example():
    phy2log, log2phy, logcnt = rebalance_experts(WEIGHT, **SIZES, policy="deepseek")
    assert phy2log.tolist() == PHY2LOG
    assert logcnt.tolist() == [[PHY2LOG[i].count(e) for e in range(12)] for i in range(2)]
    assert log2phy.shape == (2, 12, 2)  # the largest count
    assert log2phy[0, 5].tolist() == [0, 2]
    assert log2phy[0, 0].tolist() == [12, -1]


def test_the_original_example_as_a_plan():
    plan = make_plan(WEIGHT, **SIZES, policy="deepseek")
    assert plan.phy2log.tolist() == PHY2LOG
    assert_same([plan.log2phy], [rebalance_experts(WEIGHT, **SIZES, policy="deepseek")[1]], "plan")


def test_arguments_have_the_originals_order():
    positional = rebalance_experts(WEIGHT, *SIZES.values(), policy="deepseek")
    assert_same(positional, rebalance_experts(WEIGHT, **SIZES, policy="deepseek"), "positional")


def test_log2phy_of_the_hybrid_policy_has_room_for_every_redundant_slot():
    log2phy = rebalance_experts(WEIGHT, **SIZES)[1]
    assert log2phy.shape == (2, 12, 16 - 12 + 1)


@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
def test_groups_that_do_not_fit_the_nodes_go_global(policy):
    sizes = SIZES | {"num_groups": 3}
    assert_same(
        rebalance_experts(WEIGHT, **sizes, policy=policy),
        rebalance_experts(WEIGHT, 16, 1, 1, 8, policy=policy),
        "one group, one node",
    )
    plan = make_plan(WEIGHT, **sizes, policy=policy)
    assert plan.placement == "global"
    assert make_plan(WEIGHT, **SIZES, policy=policy).placement == "hierarchical"


def test_policies_differ():
    hybrid = rebalance_experts(WEIGHT, **SIZES)
    assert_same(hybrid, rebalance_experts(WEIGHT, **SIZES, policy="hybrid"), "the default")
    assert_same(hybrid, naive.rebalance_experts(WEIGHT, **SIZES), "naive")
    assert not np.array_equal(hybrid[0], PHY2LOG)
