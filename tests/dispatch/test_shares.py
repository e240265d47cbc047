"""Shares that come late: from the batches so far, for the batch after them."""

import pickle
import sys

import numpy as np
from split_cases import expert_sums, gpu_sums, random_counts, random_plan
from support import fewer, refused

from eplb_np import make_plan
from eplb_np.dispatch import Splitter, split_load

LAYERS, EXPERTS = 6, 64


def drawn(rng, profile, tokens, batches):
    """Batches of a workload."""
    return np.stack([[rng.multinomial(tokens, row) for row in profile] for _ in range(batches)])


def profile_of(rng):
    weight = rng.gamma(1.5, size=(LAYERS, EXPERTS)) + 0.05
    return weight / weight.sum(axis=1, keepdims=True)


def balancedness(plan, shares, batches):
    """Mean over largest GPU load where every slot takes its share of each batch."""
    mean = largest = 0.0
    for counts in batches:
        load = gpu_sums(plan, shares * np.take_along_axis(counts, plan.phy2log, axis=1))
        mean, largest = mean + load.mean(axis=1).sum(), largest + load.max(axis=1).sum()
    return mean / largest


def test_shares_add_up_to_one():
    rng = np.random.default_rng(1)
    for _ in range(fewer(100, 10)):
        plan = random_plan(rng, num_layers=2)
        splitter = Splitter(plan)
        for _ in range(3):
            shares = splitter.shares
            assert (shares >= 0).all()
            assert not shares[plan.phy2log < 0].any()
            np.testing.assert_allclose(expert_sums(plan, shares), 1.0, rtol=1e-12)
            splitter.observe(random_counts(rng, plan.logcnt.shape))


def test_first_shares():
    """Even without any knowledge, else those of the expected load."""
    load = [[90, 30, 10, 10]]
    plan = make_plan(load, num_replicas=6, num_gpus=2)
    count = np.take_along_axis(plan.logcnt, plan.phy2log, axis=1)
    np.testing.assert_array_equal(Splitter(plan).shares, 1 / count)
    skewed = [[60, 50, 5, 15]]
    expected = split_load(plan, skewed) / np.take_along_axis(np.array(skewed), plan.phy2log, 1)
    np.testing.assert_allclose(Splitter(plan, skewed).shares, expected)
    copy = pickle.loads(pickle.dumps(Splitter(plan, skewed)))
    np.testing.assert_allclose(copy.shares, expected)
    copy = pickle.loads(pickle.dumps(Splitter(plan)))
    np.testing.assert_array_equal(copy.shares, 1 / count)


def test_late_shares_are_better_than_even_ones_and_follow_a_change():
    rng = np.random.default_rng(2)
    old, new = profile_of(rng), profile_of(rng)
    plan = make_plan(profile_of(rng), num_replicas=80, num_gpus=8, policy="refined")
    splitter = Splitter(plan)
    even = splitter.shares
    for profile in (old, new):
        batches = drawn(rng, profile, 200_000, 6)
        for counts in batches[:2]:
            splitter.observe(counts)
        gain = balancedness(plan, splitter.shares, batches[2:])
        assert balancedness(plan, even, batches[2:]) + 0.005 < gain


def test_memory_does_not_grow():
    rng = np.random.default_rng(3)
    plan = random_plan(rng)
    splitter = Splitter(plan)

    def size():
        arrays = splitter._forecast.state_dict().values()
        return sum(array.nbytes for array in arrays) + sys.getsizeof(splitter.__dict__)

    splitter.observe(random_counts(rng, plan.logcnt.shape))
    before = size()
    for _ in range(fewer(500, 20)):
        splitter.observe(random_counts(rng, plan.logcnt.shape))
    assert size() == before


def test_a_bad_batch_is_not_taken_in():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    splitter = Splitter(plan)
    splitter.observe([[60, 50, 5, 15]])
    before = splitter.shares
    with refused("counts[0, 2] = -1"):
        splitter.observe([[1, 2, -1, 4]])
    with refused("2**127"):
        splitter.observe([[1e38, 2e38, 1, 4]])
    np.testing.assert_array_equal(splitter.shares, before)
