"""An engine that does what a `Rebalancer` says loses no expert and never exceeds its limits."""

import pytest
from arena import HARMFUL, each, held, outcomes
from support import needs_jit
from weight_store import COMES_BACK, DEPLOYMENTS, SPLITS

pytestmark = needs_jit


@pytest.mark.parametrize("split", SPLITS)
@each(DEPLOYMENTS)
def test_moves_can_be_made_and_limits_hold(name, split) -> None:
    held(outcomes("weight_store")[f"{name}, {split}, events"], *HARMFUL)


@pytest.mark.parametrize("split", SPLITS)
@each(COMES_BACK)
def test_gpus_that_come_back_are_filled_within_the_limits(name, split) -> None:
    held(outcomes("weight_store")[f"{name}, {split}, back"], *HARMFUL)


@each(COMES_BACK)
def test_a_gpu_that_restarts_between_proposals_is_filled(name) -> None:
    held(outcomes("weight_store")[f"{name}, restarts"], *HARMFUL)


def test_a_total_holds_beside_a_limit_of_each_gpu() -> None:
    held(outcomes("weight_store")["both limits"], *HARMFUL)


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@each(DEPLOYMENTS)
def test_moves_can_be_made_and_limits_hold_over_thousands_of_events(name, split) -> None:
    held(outcomes("weight_store", long=True)[f"{name}, {split}, events"], *HARMFUL)


@pytest.mark.slow
def test_a_total_holds_beside_a_limit_of_each_gpu_in_thousands_of_runs() -> None:
    held(outcomes("weight_store", long=True)["both limits"], *HARMFUL)
