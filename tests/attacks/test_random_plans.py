"""Thousands of random calls give plans that an independent check in plain Python accepts."""

import numpy as np
import pytest
from arena import HARMFUL, each, held, outcomes
from plain_check import check_plan
from random_plans import ATTACKS, SPEEDS
from support import needs_jit

import eplb_np

NAMES = [act.__name__ for act in ATTACKS]
EXTREME = [str(speeds[:2]) for speeds in SPEEDS]


@needs_jit
@each(NAMES)
def test_a_random_call_gives_a_plan(name) -> None:
    held(outcomes("random_plans")[name], *HARMFUL)


@needs_jit
@each(EXTREME)
def test_extreme_speeds_are_planned_for_or_refused(name) -> None:
    held(outcomes("random_plans")[name], *HARMFUL)


@needs_jit
@pytest.mark.slow
@each(NAMES)
def test_thousands_of_random_calls_give_plans(name) -> None:
    held(outcomes("random_plans", long=True)[name], *HARMFUL)


@needs_jit
@pytest.mark.slow  # compiles everything once more
@each([*NAMES, *EXTREME])
def test_no_kernel_leaves_its_arrays(name) -> None:
    held(outcomes("random_plans", NUMBA_BOUNDSCHECK="1")[name], *HARMFUL)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("phy2log", (0, 0), 1),
        ("phy2log", (1, 3), -1),
        ("phy2log", (0, 5), 99),
        ("phyrank", (0, 2), 1),
        ("phyrank", (1, 0), -1),
        ("logcnt", (0, 0), 7),
        ("log2phy", (1, 2, 0), 0),
    ],
)
def test_the_independent_check_finds_a_wrong_plan(name, place, value) -> None:
    plan = eplb_np.make_plan([[9, 1, 5, 5], [1, 2, 3, 4]], num_replicas=6, num_gpus=2, num_groups=2)
    check_plan(plan, [[9, 1, 5, 5], [1, 2, 3, 4]], full=True)
    array = np.array(getattr(plan, name))
    array[place] = value
    array.flags.writeable = False
    plan.__dict__[name] = array
    with pytest.raises(AssertionError):
        check_plan(plan, full=True)
