"""The kernels' sort is the stable sort, heaviest first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import compiled, fewer

from eplb_np.stages.sorting.cpu import HISTOGRAM_SIZE, sort_descending

SORT = compiled(sort_descending)


def assert_sorted(values):
    load = np.asarray(values, np.float32)
    order, keys, spare = np.empty((3, load.size), np.int64)
    SORT(load, order, keys, spare, np.empty(HISTOGRAM_SIZE, np.int64))
    np.testing.assert_array_equal(order, np.argsort(-load, kind="stable"))


RNG = np.random.default_rng(1)
SMALLEST, LARGEST = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
ROWS = {
    "one": lambda n: [3.5] * min(n, 1),
    "ascending": np.arange,
    "descending": lambda n: np.arange(n)[::-1],
    "ties": lambda n: np.full(n, 0.1),
    "zeros of both signs": lambda n: RNG.choice([0.0, -0.0], n),
    "few values": lambda n: RNG.integers(0, 3, n),
    "uniform": lambda n: RNG.random(n),
    "whole range": lambda n: RNG.choice([0.0, SMALLEST, 1.0, LARGEST], n),
    "every exponent": lambda n: 2.0 ** RNG.uniform(-149, 127, n),
    "neighbours": lambda n: (RNG.permutation(n) + 0x3F800000).astype(np.int32).view(np.float32),
    "one giant, descending rest": lambda n: np.r_[1e30, np.linspace(2, 1, n - 1)],
    "one giant, ascending rest": lambda n: np.r_[np.linspace(1, 1.001, n - 1), 1e30],
    "clumps": lambda n: RNG.choice([1.0, 1e10, 1e20], n) + RNG.permutation(n) * 1e-5,
}


@pytest.mark.parametrize("size", [2, 31, 128, 129, 512, 513, 3000])
@pytest.mark.parametrize("kind", ROWS)
def test_sort_is_the_stable_one(kind, size):
    assert_sorted(ROWS[kind](size))


def test_sort_of_random_rows():
    for _ in range(fewer(3000, 100)):
        size = RNG.integers(1, 600)
        assert_sorted(RNG.lognormal(0, RNG.choice([1e-7, 1e-3, 1, 10]), size))


@given(st.lists(st.floats(0, LARGEST.item(), width=32), min_size=1, max_size=40))
def test_sort_of_any_loads(values):
    assert_sorted(values)
