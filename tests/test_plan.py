"""The plan that users hold."""

import copy
import dataclasses
import pickle

import naive
import numpy as np
import pytest
from cases import random_cases
from support import assert_same, fewer, refused

from eplb_np import Plan, Topology, in_order_plan, make_plan

TOPOLOGY = Topology(num_experts=4, num_replicas=6, num_gpus=2)
PHY2LOG = np.array([[0, 0, 3, 0, 1, 2], [0, 1, 2, 3, 3, 2]])
PHYRANK = np.array([[0, 1, 0, 2, 0, 0], [0, 0, 0, 0, 1, 1]])
LOAD = np.array([[90.0, 30, 10, 10], [0, 0, 0, 0]])


def tiny_plan(**changes):
    fields = {
        "phy2log": PHY2LOG, "phyrank": PHYRANK, "topology": TOPOLOGY, "policy": "by hand",
    }  # fmt: skip
    return Plan(**{**fields, **changes})


def changed(array, layer, slot, value):
    array = array.copy()
    array[layer, slot] = value
    return array


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
def test_a_plan_holds_what_the_entry_point_returns(policy, dtype):
    for case in random_cases(fewer(200, 30), 50):
        topology = Topology(
            case.weight.shape[1], case.num_replicas, case.num_gpus, case.num_nodes, case.num_groups
        )
        plan = make_plan(case.weight, topology, policy=policy, dtype=dtype)
        plan.check()
        expected = naive.rebalance_experts(*case.args, policy=policy)
        assert_same(
            (plan.phy2log, plan.log2phy, plan.logcnt), [a.astype(dtype) for a in expected], case.id
        )
        assert plan.dtype == dtype
        assert plan.topology is topology
        assert plan.placement == (
            "global" if case.is_global or case.num_nodes == 1 else "hierarchical"
        )
        assert (plan.policy, plan.num_layers) == (policy, len(case.weight))
        assert plan.moe_layer_ids == tuple(range(plan.num_layers))


def test_views_of_a_tiny_plan():
    plan = tiny_plan()
    assert plan.logcnt.tolist() == [[3, 1, 1, 1], [1, 1, 2, 2]]
    assert plan.log2phy[0].tolist() == [[0, 1, 3], [4, -1, -1], [5, -1, -1], [2, -1, -1]]
    assert plan.gpu_load(LOAD).tolist() == [[70, 70], [0, 0]]
    assert plan.balancedness(LOAD) == 1.0
    assert plan.replica_balancedness(LOAD) == pytest.approx(140 / 6 / 30)
    assert plan.lower_bound(LOAD).tolist() == [70, 0]
    assert repr(plan) == (
        "Plan(2 layers, 4 experts in 6 slots on 2 GPUs, policy='by hand', placement='global')"
    )


def test_log2phy_is_built_only_when_asked_for_and_once():
    plan = make_plan(LOAD, TOPOLOGY)
    assert "log2phy" not in vars(plan)
    assert plan.log2phy is plan.log2phy


@pytest.mark.parametrize("made_by", [tiny_plan, lambda: make_plan(LOAD, TOPOLOGY)])
@pytest.mark.parametrize("name", ["phy2log", "phyrank", "logcnt", "log2phy"])
def test_a_plan_cannot_be_changed(name, made_by):
    plan = made_by()
    with pytest.raises(ValueError, match="read-only"):
        getattr(plan, name)[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(plan, name, PHY2LOG)


def test_plans_are_compared_by_content():
    assert tiny_plan() == tiny_plan()
    assert tiny_plan() != tiny_plan(policy="other")
    assert tiny_plan() != tiny_plan(moe_layer_ids=[3, 4])
    assert tiny_plan() != tiny_plan(phyrank=PHYRANK[:, ::-1], phy2log=PHY2LOG[:, ::-1])
    assert tiny_plan() != tiny_plan(phy2log=np.int32(PHY2LOG), phyrank=np.int32(PHYRANK))
    assert tiny_plan() != "a plan"
    with pytest.raises(TypeError, match="unhashable"):
        hash(tiny_plan())


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda plan: (
    pickle.loads(pickle.dumps(plan)))])  # fmt: skip
def test_copies_are_equal_and_read_only(duplicate):
    plan = make_plan(LOAD, TOPOLOGY, moe_layer_ids=[3, 7])
    twin = duplicate(plan)
    assert twin == plan
    assert not twin.phy2log.flags.writeable


def test_sizes_in_place_of_a_topology():
    sizes = {"num_replicas": 16, "num_gpus": 8, "num_nodes": 2, "num_groups": 4}
    load = np.arange(24.0).reshape(2, 12)
    assert make_plan(load, **sizes) == make_plan(load, Topology(12, **sizes))


def test_an_all_zero_layer_is_planned_the_same_whatever_is_beside_it():
    both = make_plan(LOAD, TOPOLOGY)
    alone = make_plan(LOAD[1:], TOPOLOGY)
    assert_same([both.phy2log[1:]], [alone.phy2log], "the zero layer")


def test_layer_ids():
    assert make_plan(LOAD, TOPOLOGY, moe_layer_ids=np.array([3, 7])).moe_layer_ids == (3, 7)


def test_in_order_plan():
    plan = in_order_plan(2, Topology(4, 10, 2), dtype=np.int32)
    assert plan.phy2log.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]] * 2
    assert plan.phyrank.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]] * 2
    assert plan.dtype == np.int32
    plan.check()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"phy2log": PHY2LOG.astype(float)}, ["phy2log has dtype float64", "int64 or int32"]),
        ({"phyrank": np.int32(PHYRANK)}, ["phyrank has dtype int32", "the same for both"]),
        ({"phy2log": PHY2LOG[0]}, ["phy2log has shape (6,)", "num_replicas=6", "[layers, 6]"]),
        ({"phy2log": PHY2LOG[:, :4]}, ["phy2log has shape (2, 4)", "num_replicas=6"]),
        ({"phy2log": PHY2LOG[:0]}, ["phy2log has shape (0, 6)"]),
        ({"phyrank": PHYRANK[:1]}, ["phyrank has shape (1, 6)"]),
        ({"phy2log": changed(PHY2LOG, 1, 2, 4)}, ["phy2log[1, 2] = 4 is not an expert", "0 .. 3"]),
        (
            {"phy2log": changed(PHY2LOG, 0, 5, -2)},
            ["phy2log[0, 5] = -2 is not an expert", "-1 for"],
        ),
        ({"phy2log": changed(PHY2LOG, 1, 4, -1)}, ["phyrank of layer 1"]),
        ({"phy2log": changed(PHY2LOG, 1, 1, 0)}, ["expert 1 has no replica in layer 1"]),
        ({"phyrank": changed(PHYRANK, 0, 3, 1)}, ["phyrank of layer 0", "0 .. count - 1"]),
        ({"phyrank": changed(PHYRANK, 1, 4, 2)}, ["phyrank of layer 1"]),
        ({"phyrank": changed(PHYRANK, 1, 4, -1)}, ["phyrank of layer 1"]),
        ({"phyrank": PHYRANK - 1}, ["phyrank of layer 0"]),
        ({"moe_layer_ids": [0]}, ["moe_layer_ids", "2 layers", "one id for each"]),
        ({"moe_layer_ids": 5}, ["moe_layer_ids=5 is not a sequence", "one id for each"]),
        ({"moe_layer_ids": [1, 1]}, ["moe_layer_ids", "ascending"]),
        ({"moe_layer_ids": [-1, 1]}, ["moe_layer_ids", "at least 0"]),
        ({"moe_layer_ids": [0, 1.5]}, ["moe_layer_ids", "1.5", "integer"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value[0],
)
def test_what_is_no_plan_is_refused(changes, parts):
    with refused(*parts):
        tiny_plan(**changes)


def test_slots_of_gpus_that_are_gone_are_empty():
    topology = Topology(4, 9, 3, active_gpus=[0, 2])
    phy2log = np.array([[0, 1, 2, -1, -1, -1, 3, 0, -1]])
    phyrank = np.array([[0, 0, 0, -1, -1, -1, 0, 1, -1]])
    plan = Plan(phy2log, phyrank, topology, "by hand")
    assert plan.logcnt.tolist() == [[2, 1, 1, 1]]
    assert plan.log2phy.tolist() == [[[0, 7], [1, -1], [2, -1], [6, -1]]]
    assert plan.gpu_load([[4, 1, 1, 3]]).tolist() == [[4, 0, 5]]
    assert plan.balancedness([[4, 1, 1, 3]]) == 4.5 / 5
    assert plan.replica_balancedness([[4, 1, 1, 3]]) == 9 / 5 / 3
    filled = phy2log.copy()
    filled[0, 4] = 1
    with refused("phy2log[0, 4] = 1", "not active in the topology"):
        Plan(filled, np.where(filled == 1, [0, 1, 0, -1, 1, -1, 0, 1, -1], phyrank), topology, "x")


MEASURES = {
    "gpu_load": Plan.gpu_load,
    "gpu_load, best split": lambda plan, load: plan.gpu_load(load, split="best"),
    "gpu_time": Plan.gpu_time,
    "balancedness": Plan.balancedness,
    "crossing": Plan.crossing,
    "replica_balancedness": Plan.replica_balancedness,
    "lower_bound": Plan.lower_bound,
    "weighted_log2phy": Plan.weighted_log2phy,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_load_with_a_row_for_every_layer_is_measured_too(name):
    rows = np.random.default_rng(1).integers(1, 50, (2, 6))
    plan = make_plan(rows, num_replicas=8, num_gpus=2, moe_layer_ids=[1, 3])
    model = np.zeros((5, 6), rows.dtype)
    model[[1, 3]] = rows
    measure = MEASURES[name]
    np.testing.assert_array_equal(measure(plan, model), measure(plan, rows))
    model[4, 2] = 1
    with refused("layer 4 has load", "2 planned layers"):
        measure(plan, model)
    with refused("(3, 6)", "2 planned layers", "layer 3"):
        measure(plan, model[:3])
