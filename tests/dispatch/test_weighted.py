"""Tables in which slots stand several times: as close to the shares as a table can be."""

from itertools import product

import numpy as np
import pytest
from split_cases import gpu_sums, random_counts, random_plan
from support import fewer, refused

from eplb_np import Plan, Topology, make_plan
from eplb_np.dispatch import Splitter, split_load
from eplb_np.dispatch.weighted import closest_counts, interleave


def counts_by_hand(share: list[float], width: int) -> list[int]:
    """Largest remainders for every number of entries, one after another."""
    best, least = [], np.inf
    for n in range(1, width + 1):
        count = [int(np.floor(s * n)) for s in share]
        by_remainder = sorted(range(len(share)), key=lambda i: count[i] - share[i] * n)
        for i in by_remainder[: n - sum(count)]:
            count[i] += 1
        excess = max(c / n - s for c, s in zip(count, share, strict=True))
        if excess < least:
            best, least = count, excess
    return best


def order_by_hand(count: list[int]) -> list[int]:
    """Sainte-Lague, seat by seat."""
    taken, order = [0] * len(count), []
    for _ in range(sum(count)):
        some = [i for i in range(len(count)) if count[i] > 0]
        order.append(min(some, key=lambda i: (2 * taken[i] + 1) / count[i]))
        taken[order[-1]] += 1
    return order


def row_by_hand(plan: Plan, layer: int, expert: int, shares: np.ndarray, width: int) -> list[int]:
    slots = plan.log2phy[layer, expert, : plan.logcnt[layer, expert]].tolist()
    count = counts_by_hand([float(shares[layer, s]) for s in slots], width)
    row = [slots[i] for i in order_by_hand(count)]
    return row + [-1] * (width - len(row))


def shares_of_table(plan: Plan, table: np.ndarray) -> np.ndarray:
    """Share of its expert's load that each slot gets, [L, P]."""
    share = np.zeros(plan.phy2log.shape)
    for layer, expert in np.ndindex(plan.logcnt.shape):
        row = table[layer, expert]
        slots, times = np.unique(row[row >= 0], return_counts=True)
        assert (plan.phy2log[layer, slots] == expert).all()
        share[layer, slots] = times / times.sum()
    return share


def random_shares(rng: np.random.Generator, num_rows: int, num_replicas: int) -> np.ndarray:
    """Shares of several experts; some replicas have none, some all have the same."""
    share = rng.choice([0.0, 1.0, 1.0, rng.random()], (num_rows, num_replicas))
    share *= rng.choice([1.0, rng.random()], (num_rows, 1)) + rng.random(share.shape) * 0.3
    share[:, 0] += 1e-3
    return share / share.sum(axis=1, keepdims=True)


def test_equals_its_plain_twin():
    rng = np.random.default_rng(1)
    for _ in range(fewer(200, 20)):
        plan = random_plan(rng, num_layers=2)
        load = random_counts(rng, plan.logcnt.shape)
        width = int(rng.integers(1, 20))
        table = plan.weighted_log2phy(load, width)
        shares = Splitter(plan, load.astype(float)).shares
        for layer, expert in np.ndindex(plan.logcnt.shape):
            row = table[layer, expert].tolist()
            assert row == row_by_hand(plan, layer, expert, shares, width)


@pytest.mark.parametrize(("num_replicas", "width"), [(2, 9), (3, 7), (4, 5)])
def test_no_table_of_that_width_exceeds_the_shares_less(num_replicas, width):
    every = [
        np.array(c) for c in product(range(width + 1), repeat=num_replicas) if 0 < sum(c) <= width
    ]
    share = random_shares(np.random.default_rng(2), 60, num_replicas)
    for row, count in zip(share, closest_counts(share, width), strict=True):
        least = min((c / c.sum() - row).max() for c in every)
        assert (count / count.sum() - row).max() <= least + 1e-15
        shorter = [c for c in every if c.sum() < count.sum()]
        assert all((c / c.sum() - row).max() > least for c in shorter)


def test_shares_that_fit_are_met_exactly():
    share = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.6, 0.4, 0.0]])
    np.testing.assert_array_equal(
        closest_counts(share, 8), [[1, 1, 1], [2, 1, 1], [1, 0, 0], [3, 2, 0]]
    )


@pytest.mark.parametrize(("num_replicas", "width"), [(2, 9), (3, 7), (4, 6)])
def test_each_replica_has_an_entry_and_no_such_table_exceeds_the_shares_less(num_replicas, width):
    share = random_shares(np.random.default_rng(5), 60, num_replicas)
    at_least = np.ones_like(share, dtype=np.int64)
    every = [
        np.array(c) for c in product(range(1, width + 1), repeat=num_replicas) if sum(c) <= width
    ]
    for row, count in zip(share, closest_counts(share, width, at_least), strict=True):
        assert (count >= 1).all()
        assert count.sum() <= width
        least = min((c / c.sum() - row).max() for c in every)
        assert (count / count.sum() - row).max() <= least + 1e-12


def test_every_replica_in_the_table():
    rng = np.random.default_rng(6)
    for _ in range(fewer(100, 10)):
        plan = random_plan(rng, num_layers=2)
        load = random_counts(rng, plan.logcnt.shape)
        width = int(plan.logcnt.max()) + int(rng.integers(0, 9))
        table = plan.weighted_log2phy(load, width, every_replica=True)
        counts = (table >= 0).sum(axis=-1)
        assert (counts[plan.logcnt == 1] == 1).all()
        for layer, expert in np.ndindex(plan.logcnt.shape):
            row = table[layer, expert]
            assert (row[: counts[layer, expert]] >= 0).all()
            slots = plan.log2phy[layer, expert]
            assert set(row[row >= 0]) == set(slots[slots >= 0])
        if plan.logcnt.max() > 1:
            with refused("width=1 has no room", "give width="):
                plan.weighted_log2phy(load, 1, every_replica=True)


def test_entries_taken_in_turn_keep_the_proportions():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 8, (300, 4))
    counts[:, 0] += 1
    order = interleave(counts, 32)
    for count, row in zip(counts, order, strict=True):
        total = count.sum()
        assert (row[:total] >= 0).all()
        assert (row[total:] == -1).all()
        turns = np.concatenate([row[:total], row[:total]])
        seen = np.cumsum(turns[:, None] == np.arange(4), axis=0)
        ideal = np.arange(1, 2 * total + 1)[:, None] * count / total
        np.testing.assert_array_equal(seen[total - 1], count)
        assert np.abs(seen - ideal).max() < 1.25
        assert row[0] == count.argmax()


def test_width_32_is_as_good_as_exact_shares_on_large_plans():
    rng = np.random.default_rng(4)
    load = rng.gamma(0.7, size=(6, 64)) + 0.01
    plan = make_plan(load, num_replicas=80, num_gpus=16, policy="refined")
    load = load * rng.lognormal(sigma=0.3, size=load.shape)  # what is expected by now
    exact = split_load(plan, load)
    total = np.take_along_axis(load, plan.phy2log, axis=1)
    longest = {
        width: gpu_sums(plan, shares_of_table(plan, plan.weighted_log2phy(load, width)) * total)
        for width in (16, 32)
    }
    best, even = gpu_sums(plan, exact).max(axis=1).sum(), plan.gpu_load(load).max(axis=1).sum()
    assert even > 1.05 * best
    assert longest[16].max(axis=1).sum() < 1.02 * best
    assert longest[32].max(axis=1).sum() < 1.01 * best


def test_an_expert_with_one_replica_has_one_entry():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2, policy="hybrid")
    table = plan.weighted_log2phy([[60, 50, 5, 15]])
    assert table.shape == (1, 4, 16)
    np.testing.assert_array_equal((table >= 0).sum(axis=-1)[0, 1:], 1)
    np.testing.assert_array_equal(table[0, 1:, 0], [4, 2, 5])


def test_without_load_every_replica_stands_once():
    plan = make_plan([[90, 30, 10, 10], [1, 2, 3, 4]], num_replicas=8, num_gpus=2, policy="hybrid")
    table = plan.weighted_log2phy([[0, 0, 0, 0], [5, 0, 5, 5]], 8)
    np.testing.assert_array_equal((table[0] >= 0).sum(axis=-1), plan.logcnt[0])
    np.testing.assert_array_equal(table[0, :, :5], plan.log2phy[0])


def test_a_fast_gpu_gets_more():
    topology = Topology(2, 4, 2, gpu_speeds=[3, 1])
    plan = Plan(np.array([[0, 1, 0, 1]]), np.array([[0, 0, 1, 1]]), topology, "by hand")
    share = shares_of_table(plan, plan.weighted_log2phy([[10, 10]]))
    np.testing.assert_allclose(gpu_sums(plan, 10 * share), [[15, 5]])


def test_the_dtype_is_the_plans_and_the_table_is_read_only():
    for dtype in (np.int32, np.int64):
        plan = make_plan([[90, 30]], num_replicas=4, num_gpus=2, dtype=dtype)
        table = plan.weighted_log2phy([[1.5, 2]])
        assert table.dtype == dtype
        assert not table.flags.writeable


def test_wrong_arguments_are_refused():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    with refused("load has shape (2,)", "(1, 4)", "give loads"):
        plan.weighted_log2phy([1, 2])
    with refused("load[0, 1] = -2.0", "not negative"):
        plan.weighted_log2phy([[1, -2, 3, 4]])
    with refused("width=0 is too small", "at least 1"):
        plan.weighted_log2phy([[1, 2, 3, 4]], 0)
    with refused("width=1025 is too large", "at most 1024"):
        plan.weighted_log2phy([[1, 2, 3, 4]], 1025)
    with refused("width=2.5 is not an integer"):
        plan.weighted_log2phy([[1, 2, 3, 4]], 2.5)
