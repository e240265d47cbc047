"""Kernels equal their slow twin, bit for bit."""

import naive
import numpy as np
import pytest
from cases import PRECISION_CASES, packing_cases, random_cases, replication_cases
from support import TESTS, assert_same, fewer, needs_jit, run_python

from eplb_np import (
    balanced_packing,
    make_plan,
    rebalance_experts,
    rebalance_experts_hierarchical,
    replicate_experts,
)

SEEDS = range(4)
NUM_CASES = fewer(1000, 60)  # for each seed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
def test_rebalance_experts_equals_naive(policy, seed):
    for case in random_cases(NUM_CASES, seed):
        expected = naive.rebalance_experts(*case.args, policy=policy)
        assert_same(rebalance_experts(*case.args, policy=policy), expected, case.id)


@pytest.mark.parametrize("seed", SEEDS)
def test_rebalance_experts_hierarchical_equals_naive(seed):
    for case in random_cases(NUM_CASES, 10 + seed):
        if not case.is_global:
            expected = naive.rebalance_experts_hierarchical(*case.args)
            assert_same(rebalance_experts_hierarchical(*case.args), expected, case.id)


@pytest.mark.parametrize("seed", SEEDS)
def test_replicate_experts_equals_naive(seed):
    for case in replication_cases(NUM_CASES, seed):
        expected = naive.replicate_experts(*case.args)
        assert_same(replicate_experts(*case.args), expected, case.id)


@pytest.mark.parametrize("seed", SEEDS)
def test_balanced_packing_equals_naive(seed):
    for case in packing_cases(2 * NUM_CASES, seed):
        expected = naive.balanced_packing(*case.args)
        assert_same(balanced_packing(*case.args), expected, case.id)


@pytest.mark.parametrize("case", PRECISION_CASES, ids=lambda case: case.id)
def test_decisions_are_taken_in_the_stated_precision(case):
    assert_same(balanced_packing(*case.args), naive.balanced_packing(*case.args), case.id)


def test_two_steps_of_refinement_are_the_default():
    for case in packing_cases(fewer(300, 50), 20):
        expected = naive.balanced_packing(case.weight, case.num_packs, 2)
        assert_same(balanced_packing(case.weight, case.num_packs), expected, case.id)


RNG = np.random.default_rng(0)
LARGE_ROWS = {
    # One huge load stretches the range, so that a coarse sort puts all others in one bucket.
    "clumped": np.r_[1e9, 1 + RNG.permutation(511) * 1e-6],
    "clumped upwards": np.r_[1 + np.arange(511) * 1e-6, 1e9],
    "all ties": np.full(512, 7.7),
    "all zero": np.zeros(640),
    "signed zeros": np.where(RNG.random(640) < 0.5, -0.0, 0.0),
    "signed zeros and ones": RNG.choice([-0.0, 0.0, 1.0], 512),
    "beyond the small sort": RNG.random(2048),
    "beyond it, few values": RNG.integers(0, 5, 1536),
    "largest allowed": np.full(1024, 2.0**116),
}


@pytest.mark.parametrize("num_packs", [1, 2, 64])
@pytest.mark.parametrize("kind", LARGE_ROWS)
def test_large_packings_equal_naive(kind, num_packs):
    weight = LARGE_ROWS[kind][None]
    assert_same(
        balanced_packing(weight, num_packs), naive.balanced_packing(weight, num_packs), kind
    )


@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
@pytest.mark.parametrize("kind", LARGE_ROWS)
def test_large_plans_equal_naive(kind, policy):
    weight = LARGE_ROWS[kind][None]
    num_experts = weight.shape[1]
    sizes = num_experts + 64, 32, 4, 32
    expected = naive.rebalance_experts(weight, *sizes, policy=policy)
    assert_same(rebalance_experts(weight, *sizes, policy=policy), expected, kind)


@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_change_nothing(num_threads, policy):
    for case in random_cases(fewer(100, 7), 30, max_layers=24):
        expected = naive.rebalance_experts(*case.args, policy=policy)
        threaded = rebalance_experts(*case.args, policy=policy, num_threads=num_threads)
        assert_same(threaded, expected, case.id)
        plan = make_plan(
            case.weight,
            num_replicas=case.num_replicas,
            num_gpus=case.num_gpus,
            num_nodes=case.num_nodes,
            num_groups=case.num_groups,
            policy=policy,
            num_threads=num_threads,
        )
        assert_same((plan.phy2log, plan.log2phy, plan.logcnt), expected, case.id)
        if policy == "hybrid" and not case.is_global:
            expected = naive.rebalance_experts_hierarchical(*case.args)
            threaded = rebalance_experts_hierarchical(*case.args, num_threads=num_threads)
            assert_same(threaded, expected, case.id)


@needs_jit
@pytest.mark.slow
def test_kernels_stay_within_their_arrays(tmp_path):
    result = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__,
        str(TESTS / "stages" / "test_simd.py"), "-k", "naive or batches",
        NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
