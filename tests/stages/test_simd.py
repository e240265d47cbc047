"""Rows in SIMD batches give what rows one by one give, and what the slow twin gives."""

import naive
import numpy as np
import pytest
from cases import LOADS, random_cases
from support import JIT, assert_same, compiled, fewer

from eplb_np import make_plan
from eplb_np.stages.hierarchy.cpu import plan_layers
from eplb_np.stages.hierarchy.simd import pays, plan_layers_in_lockstep
from eplb_np.stages.packing.cpu import longest_processing_time, make_pack_scratch
from eplb_np.stages.packing.simd import pack_batch
from eplb_np.stages.priority_queue.cpu import num_leaves
from eplb_np.stages.refinement.cpu import Packing, refine_packs
from eplb_np.stages.refinement.simd import refine_batch
from eplb_np.stages.replication.cpu import allocate_replicas
from eplb_np.stages.replication.simd import allocate_batch
from eplb_np.stages.simd_batch import WIDTH, make_batch
from eplb_np.stages.sorting.cpu import sort_descending
from eplb_np.stages.sorting.simd import sort_batch

ALLOCATE = compiled(allocate_batch)
SORT = compiled(sort_batch)
PACK = compiled(pack_batch)
REFINE = compiled(refine_batch)
ALLOCATE_ONE = compiled(allocate_replicas)
SORT_ONE = compiled(sort_descending)
PACK_ONE = compiled(longest_processing_time)
REFINE_ONE = compiled(refine_packs)


def draw_rows(number, seed):
    """Yield a generator, its loads [X, n] float32 and number of packs, of every kind of load."""
    for k in range(number):
        rng = np.random.default_rng([seed, k])
        capacity, num_packs = rng.integers(1, [12, 11])
        shape = rng.integers(1, WIDTH, endpoint=True), capacity * num_packs
        kind = list(LOADS)[k % len(LOADS)]
        yield rng, LOADS[kind](rng, shape).astype(np.float32), num_packs


def used_batch(rng, num_items):
    """Working memory that other rows have left behind."""
    used = make_batch(num_items)
    for array in used:
        array[:] = rng.integers(0, 1000, array.shape)
    return used


NUM_CASES = fewer(1500, 13)


def test_allocation_in_batches():
    for rng, weight, _ in draw_rows(NUM_CASES, 1):
        num_rows, num_experts = weight.shape
        num_extra = rng.integers(0, 30)
        num_tail = rng.integers(0, num_extra + 1)
        count = np.empty((num_rows, num_experts), np.int64)
        granted = np.empty((num_rows, num_extra), np.int64)
        tree = np.empty(2 * num_leaves(num_experts), np.int64)
        expected = np.empty_like(count), np.empty_like(granted)
        used = used_batch(rng, num_experts + num_extra)
        ALLOCATE(num_rows, weight, num_extra, num_tail, count, granted, used)
        for row in range(num_rows):
            out = expected[0][row], expected[1][row]
            ALLOCATE_ONE(weight[row], num_extra, num_tail, *out, tree)
        assert_same((count, granted), expected, f"{weight.shape} and {num_extra}")


def test_sort_in_batches():
    for rng, load, _ in draw_rows(NUM_CASES, 2):
        order = np.empty(load.shape, np.int64)
        SORT(len(load), load, order, used_batch(rng, load.shape[1]))
        np.testing.assert_array_equal(order, np.argsort(-load, axis=1, kind="stable"))


@pytest.mark.parametrize("refine_steps", [0, 1, 2, 5])
def test_packing_in_batches(refine_steps):
    for rng, weight, num_packs in draw_rows(NUM_CASES, 3):
        order = np.argsort(-weight, axis=1, kind="stable")
        num_rows, used = len(weight), used_batch(rng, weight.shape[1])
        actual = tuple(np.empty((3, *weight.shape), np.int64))
        expected = tuple(np.empty((3, *weight.shape), np.int64))
        PACK(num_rows, weight, order, num_packs, Packing(*actual), used)
        REFINE(num_rows, weight, num_packs, refine_steps, Packing(*actual), used)
        scratch = make_pack_scratch(weight.shape[1], num_packs)
        for row, scratch.order[:] in enumerate(order):
            out = Packing(*(array[row] for array in expected))
            PACK_ONE(weight[row], num_packs, out, scratch)
            REFINE_ONE(weight[row], num_packs, refine_steps, out, scratch.load)
        assert_same(actual, expected, f"{weight.shape} into {num_packs}")


@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
def test_plans_of_many_small_nodes_equal_naive(policy):
    for case in random_cases(fewer(300, 15), 50, max_layers=40):
        num_replicas, num_groups, num_nodes, num_gpus = case.args[1:]
        expected = naive.rebalance_experts(*case.args, policy=policy)
        plan = make_plan(
            case.weight,
            num_replicas=num_replicas,
            num_groups=num_groups,
            num_nodes=num_nodes,
            num_gpus=num_gpus,
            policy=policy,
        )
        assert_same((plan.phy2log, plan.log2phy, plan.logcnt), expected, case.id)


SIZES = [  # experts, replicas, groups, nodes and GPUs
    (256, 288, 8, 4, 32),
    (128, 144, 1, 1, 16),
    (128, 128, 2, 1, 2),
    (64, 192, 4, 4, 4),
    (48, 60, 6, 3, 6),
    (7, 21, 1, 1, 3),
]


@pytest.mark.parametrize("hybrid", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("num_layers", [1, 8, 33, 70] if JIT else [9])
def test_layers_in_batches_are_planned_as_alone(num_layers, sizes, hybrid):
    num_experts, num_replicas, *topology = sizes
    rng = np.random.default_rng(0)
    weight = rng.lognormal(5, 1, (num_layers, num_experts)).astype(np.float32)
    weight[::3] = np.round(weight[::3], -2)  # ties, and experts without load
    plans = []
    for plan in (plan_layers, plan_layers_in_lockstep):
        shapes = (num_layers, num_replicas), (num_layers, num_replicas), weight.shape
        plans.append([np.empty(shape, np.int64) for shape in shapes])
        plan(weight, *topology, hybrid, *plans[-1])
    assert_same(plans[1], plans[0], str(sizes))


def test_batches_are_for_many_short_rows():
    assert pays(58 * 4, 64, 9)  # 288/8/4/32
    assert not pays(4, 64, 9)
    assert not pays(58, 256, 4)  # 288 global 72
    assert not pays(58, 64, 1)
