"""An engine that does what a `Rebalancer` says loses no expert and never exceeds its limits."""

import known_faults
import pytest
from arena import HARMFUL, each, held, outcomes
from support import needs_jit
from weight_store import COMES_BACK, DEPLOYMENTS

pytestmark = needs_jit

BECOMES_GLOBAL = [name for name in DEPLOYMENTS if name.startswith("becomes global")]
LIMITED = [name for name in BECOMES_GLOBAL if not name.endswith("no limits")]
BUDGETS = dict.fromkeys(BECOMES_GLOBAL, known_faults.BUDGETS)
LONG = BUDGETS | {
    "stays hierarchical": known_faults.BUDGETS,
    "may not move": known_faults.BUDGETS,
    "is global": known_faults.BOTH_LIMITS,
    "has one node": known_faults.BOTH_LIMITS,
}


@each(DEPLOYMENTS, BUDGETS)
def test_moves_can_be_made_and_limits_hold(name) -> None:
    held(outcomes("weight_store")[f"{name}, events"], *HARMFUL)


@each(COMES_BACK, dict.fromkeys(LIMITED, known_faults.BUDGETS))
def test_gpus_that_come_back_are_filled_within_the_limits(name) -> None:
    held(outcomes("weight_store")[f"{name}, back"], *HARMFUL)


@each(COMES_BACK, dict.fromkeys(COMES_BACK, known_faults.RESTARTS))
def test_a_gpu_that_restarts_between_proposals_is_filled(name) -> None:
    held(outcomes("weight_store")[f"{name}, restarts"], *HARMFUL)


@known_faults.BOTH_LIMITS
def test_a_total_holds_beside_a_limit_of_each_gpu() -> None:
    held(outcomes("weight_store")["both limits"], *HARMFUL)


@pytest.mark.slow
@each(DEPLOYMENTS, LONG)
def test_moves_can_be_made_and_limits_hold_over_thousands_of_events(name) -> None:
    held(outcomes("weight_store", long=True)[f"{name}, events"], *HARMFUL)


@pytest.mark.slow
@known_faults.BOTH_LIMITS
def test_a_total_holds_beside_a_limit_of_each_gpu_in_thousands_of_runs() -> None:
    held(outcomes("weight_store", long=True)["both limits"], *HARMFUL)
