"""What holds for every load and every deployment."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import assert_same

from eplb_np import (
    Plan,
    Topology,
    balanced_packing,
    lower_bound,
    make_plan,
    rebalance_experts,
    replicate_experts,
)

sizes = st.integers(1, 4)
policies = st.sampled_from(["hybrid", "deepseek"])
finite_loads = st.floats(0, 2.0**100, width=32)
token_counts = st.integers(0, 5000)


@st.composite
def topologies(draw):
    num_nodes = draw(sizes)
    num_gpus = num_nodes * draw(sizes)
    num_groups = draw(st.one_of(sizes, sizes.map(lambda k: k * num_nodes)))
    num_experts = num_groups * draw(sizes)
    num_slots = -(-num_experts // num_gpus) + draw(st.integers(0, 3))
    return Topology(num_experts, num_slots * num_gpus, num_gpus, num_nodes, num_groups)


@st.composite
def deployments(draw, elements=finite_loads | token_counts):
    """Loads and a topology for them."""
    topology = draw(topologies())
    shape = draw(st.integers(1, 5)), topology.num_experts
    return draw(arrays(np.float64, shape, elements=elements)), topology


def arguments(topology):
    return (
        topology.num_replicas, topology.num_groups, topology.num_nodes, topology.num_gpus,
    )  # fmt: skip


@given(deployments(), policies)
def test_every_expert_is_placed_and_every_slot_full(deployment, policy):
    load, topology = deployment
    phy2log, _log2phy, logcnt = rebalance_experts(load, *arguments(topology), policy=policy)
    assert phy2log.shape == (len(load), topology.num_replicas)
    assert (logcnt >= 1).all()
    assert (logcnt.sum(axis=1) == topology.num_replicas).all()
    for slots, count in zip(phy2log, logcnt, strict=True):
        np.testing.assert_array_equal(np.bincount(slots, minlength=topology.num_experts), count)


@given(deployments(), policies)
def test_log2phy_inverts_phy2log(deployment, policy):
    load, topology = deployment
    phy2log, log2phy, logcnt = rebalance_experts(load, *arguments(topology), policy=policy)
    rank = np.arange(log2phy.shape[2])
    np.testing.assert_array_equal(log2phy >= 0, rank < logcnt[:, :, None])
    layer, expert, _ = placed = np.nonzero(log2phy >= 0)
    np.testing.assert_array_equal(phy2log[layer, log2phy[placed]], expert)
    for layer in log2phy:
        assert sorted(layer[layer >= 0]) == list(range(topology.num_replicas))


@given(deployments(), policies)
def test_hierarchy_keeps_groups_on_one_node(deployment, policy):
    load, topology = deployment
    num_groups, num_nodes = topology.packed_groups_and_nodes
    plan = make_plan(load, topology, policy=policy)
    group = plan.phy2log // (topology.num_experts // num_groups)
    for layer in group.reshape(plan.num_layers, num_nodes, -1):
        nodes = [set(node.tolist()) for node in layer]
        assert sum(map(len, nodes)) == len(set.union(*nodes)) == num_groups
        assert {len(node) for node in nodes} == {num_groups // num_nodes}


@given(deployments(token_counts), policies, st.integers(1, 60))
def test_scaling_by_a_power_of_two_changes_nothing(deployment, policy, power):
    load, topology = deployment
    assert_same(
        rebalance_experts(load * 2.0**power, *arguments(topology), policy=policy),
        rebalance_experts(load, *arguments(topology), policy=policy),
        f"scaled by 2**{power}",
    )


@given(deployments(), policies, st.integers(2, 5))
def test_same_bytes_on_every_run_and_thread_count(deployment, policy, num_threads):
    load, topology = deployment
    runs = [
        rebalance_experts(load, *arguments(topology), policy=policy, num_threads=threads)
        for threads in (1, 1, num_threads)
    ]
    assert_same(runs[1], runs[0], "a second run")
    assert_same(runs[2], runs[0], f"{num_threads} threads")


@given(deployments(), policies)
def test_layers_do_not_depend_on_each_other(deployment, policy):
    load, topology = deployment
    together = make_plan(load, topology, policy=policy).phy2log
    backwards = make_plan(load[::-1], topology, policy=policy).phy2log
    assert_same([backwards[::-1]], [together], "layers in another order")


@given(deployments(), policies)
def test_no_plan_is_below_the_lower_bound(deployment, policy):
    load, topology = deployment
    largest = make_plan(load, topology, policy=policy).gpu_load(load).max(axis=1)
    assert (lower_bound(load, topology) <= largest * (1 + 1e-12)).all()


@given(deployments(token_counts), st.integers(0, 30))
def test_replication_gives_to_the_heaviest(deployment, num_extra):
    """An expert with more load has no fewer replicas; of equals the lower one has no fewer."""
    load, _ = deployment
    logcnt = replicate_experts(load, load.shape[1] + num_extra)[2]
    for weight, count in zip(load, logcnt, strict=True):
        order = np.argsort(-weight, kind="stable")
        assert (np.diff(count[order]) <= 0).all()


@given(st.data(), sizes, st.integers(1, 6))
def test_refinement_never_widens_the_gap(data, num_packs, capacity):
    shape = 1, num_packs * capacity
    weight = data.draw(arrays(np.int64, shape, elements=token_counts))
    gaps = []
    for refine_steps in range(5):
        pack, rank = balanced_packing(weight, num_packs, refine_steps)
        load = np.bincount(pack[0], weights=weight[0])
        gaps.append(load.max() - load.min())
        assert sorted(zip(pack[0], rank[0], strict=True)) == [
            (p, r) for p in range(num_packs) for r in range(capacity)
        ]
    assert gaps == sorted(gaps, reverse=True)


@given(deployments(), policies, st.sampled_from([np.int64, np.int32]), st.integers(0, 9))
def test_saved_plans_come_back(tmp_path_factory, deployment, policy, dtype, first_layer):
    load, topology = deployment
    ids = [first_layer + 2 * i for i in range(len(load))]
    plan = make_plan(load, topology, policy=policy, dtype=dtype, moe_layer_ids=ids)
    for suffix in (".json", ".npz"):
        path = tmp_path_factory.getbasetemp() / f"plan{suffix}"
        plan.save(path)
        loaded = Plan.load(path)
        assert loaded == plan
        assert_same([loaded.log2phy], [plan.log2phy], suffix)
