"""Exponential and logarithm that are the same on every machine."""

import hashlib
import math

import numpy as np
import pytest
from support import compiled, fewer, output_of

from eplb_np.mending.elementary import LEAST, MOST, ROOTS, exp, log


def ulps(found, expected):
    return abs(found - expected) / math.ulp(expected)


def test_exp_is_within_two_units_in_the_last_place():
    call = compiled(exp)
    values = np.random.default_rng(1).uniform(-740, MOST, fewer(20_000, 2_000))
    assert max(ulps(call(x), math.exp(x)) for x in values.tolist()) <= 2
    small = np.random.default_rng(2).uniform(-1, 1, fewer(20_000, 2_000))
    assert max(ulps(call(x), math.exp(x)) for x in small.tolist()) <= 2


def test_log_is_within_two_units_in_the_last_place():
    call = compiled(log)
    generator = np.random.default_rng(1)
    values = [*np.exp(generator.uniform(-700, 700, fewer(20_000, 2_000))), 5e-324, 1e-310]
    assert max(ulps(call(x), math.log(x)) for x in map(float, values)) <= 2
    near = generator.uniform(0.5, 2, fewer(20_000, 2_000))
    assert max(abs(call(x) - math.log(x)) for x in near.tolist()) <= 2 * math.ulp(0.7)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(0.0, 1.0), (-0.0, 1.0), (-math.inf, 0.0), (math.inf, math.inf), (LEAST - 1, 0.0),
     (MOST + 1, math.inf)],
)  # fmt: skip
def test_ends_of_exp(x, expected):
    assert compiled(exp)(x) == expected


@pytest.mark.parametrize(
    ("x", "expected"), [(1.0, 0.0), (0.0, -math.inf), (math.inf, math.inf), (2.0, math.log(2))]
)
def test_ends_of_log(x, expected):
    assert compiled(log)(x) == expected


def test_what_is_no_number_stays_none():
    assert math.isnan(compiled(exp)(math.nan))
    assert math.isnan(compiled(log)(math.nan))


def test_the_bits_are_those_of_every_machine():
    """As they were found once: from CPUs, systems and versions they must not depend."""
    xs = [(k * 0.7390851332151607) % 80 - 75 for k in range(1000)]
    digest = hashlib.sha256()
    for x in xs:
        digest.update(np.float64(compiled_exp(x)).tobytes())
        digest.update(np.float64(compiled_log(compiled_exp(x))).tobytes())
    assert digest.hexdigest()[:16] == "19cf98a5c5499273"


compiled_exp, compiled_log = compiled(exp), compiled(log)


def test_constants_are_the_same_whatever_the_precision_of_the_threads_decimals():
    code = """
import decimal
decimal.getcontext().prec = 3
from eplb_np.mending.elementary import ROOTS
print(ROOTS.tobytes().hex())
"""
    assert output_of(code) == ROOTS.tobytes().hex()
