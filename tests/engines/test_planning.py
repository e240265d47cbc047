"""Plans for engines: a function of the arguments, whatever map is in use."""

import numpy as np
import pytest
from engine_stand_ins import check_map
from support import refused

from eplb_np import MoveLimits, make_plan
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.moves.fetches import fetched_slots

L, E, P, D = 3, 12, 16, 4
TOPOLOGY = topology_for(E, P, D)
LOAD = np.random.default_rng(8).integers(1, 500, (L, E)) ** 2
IN_ORDER = np.tile(np.arange(P) % E, (L, 1))


@pytest.mark.parametrize(
    ("sizes", "nodes", "groups"),
    [((4, 2, 4), 2, 4), ((4, 3, 4), 1, 4), ((4, 2, 5), 2, 1), ((6, 4, 7), 1, 1)],
)
def test_sizes_that_do_not_divide_are_left_out(sizes, nodes, groups):
    topology = topology_for(E, 24, *sizes)
    assert (topology.num_nodes, topology.num_groups) == (nodes, groups)
    assert topology.gpu_slots is None


def test_gpus_must_have_the_same_number_of_slots():
    with refused("num_replicas=18", "num_gpus=4", "16 or 20"):
        topology_for(E, 18, D)


def test_a_wider_map_counts_by_its_first_slots():
    wide = np.hstack([IN_ORDER, np.full((L, 8), 5)])
    same = plan_for(LOAD, TOPOLOGY, IN_ORDER, Wishes(MoveLimits(total=2)))
    assert plan_for(LOAD, TOPOLOGY, wide, Wishes(MoveLimits(total=2))) == same


def test_lost_experts_and_empty_slots_are_filled_whatever_the_limits():
    lost = np.where(IN_ORDER == 4, 5, IN_ORDER)
    for in_use in (lost, np.where(IN_ORDER == 4, -1, IN_ORDER), IN_ORDER[:, :8]):
        plan = plan_for(LOAD, TOPOLOGY, in_use, Wishes(MoveLimits(total=0)))
        check_map(plan.phy2log.copy(), L, E, P)


def test_limits_hold_for_a_full_map():
    plan = plan_for(LOAD, TOPOLOGY, IN_ORDER, Wishes(MoveLimits(total=3)))
    assert 0 < fetched_slots(IN_ORDER, plan.phy2log).sum() <= 3


@pytest.mark.parametrize("load", [np.zeros((L, E)), np.ones((L, E)), np.full((2, L, E), 7)])
def test_loads_that_tell_nothing_leave_a_complete_map_alone(load):
    plan = plan_for(load, TOPOLOGY, IN_ORDER, Wishes())
    np.testing.assert_array_equal(plan.phy2log, IN_ORDER)
    plan.check()
    lost = np.where(IN_ORDER == 4, 5, IN_ORDER)
    check_map(plan_for(load, TOPOLOGY, lost, Wishes()).phy2log.copy(), L, E, P)
    check_map(plan_for(load, TOPOLOGY, None, Wishes()).phy2log.copy(), L, E, P)


def test_layers_without_load_stay_as_they_are():
    load = LOAD * (np.arange(L) == 1)[:, None]
    plan = plan_for(load, TOPOLOGY, IN_ORDER, Wishes())
    assert (plan.phy2log != IN_ORDER).any(axis=1).tolist() == [False, True, False]


def test_windows_without_load_say_nothing():
    history = np.stack([LOAD, np.zeros_like(LOAD), LOAD[:, ::-1]])
    served = history[[0, 2]]
    for in_use in (None, IN_ORDER):
        plan = plan_for(history, TOPOLOGY, in_use, Wishes())
        assert plan == plan_for(served, TOPOLOGY, in_use, Wishes())
        assert plan != plan_for(history[:1], TOPOLOGY, in_use, Wishes())


def test_without_a_map_it_is_the_refined_plan():
    plan = plan_for(LOAD, TOPOLOGY, None, Wishes())
    assert plan == make_plan(LOAD, TOPOLOGY, policy="refined")
    for no_help in (IN_ORDER[:2], IN_ORDER[0], IN_ORDER + 0.5):
        assert plan_for(LOAD, TOPOLOGY, no_help, Wishes()) == plan


def test_counts_of_many_tokens_are_followed_closely():
    """They tell their noise: less than what is assumed of numbers that are no counts, or of few."""
    rng = np.random.default_rng(6)
    for _ in range(8):
        before, counts = np.floor(1e6 * rng.dirichlet(np.ones(E), (2, L)))
        in_use = plan_for(before, TOPOLOGY, None, Wishes()).phy2log
        few, no_counts = np.floor(counts / 200), counts + 0.5
        of_counts, of_few, of_no_counts = (
            plan_for(load, TOPOLOGY, in_use, Wishes()) for load in (counts, few, no_counts)
        )
        for plan, load in ((of_few, few), (of_no_counts, no_counts)):
            assert plan == plan_for(load / 2**21, TOPOLOGY, in_use, Wishes())  # of unknown noise
            assert plan.balancedness(counts) < of_counts.balancedness(counts)


def test_what_was_planned_before_does_not_matter():
    first = plan_for(LOAD, TOPOLOGY, IN_ORDER, Wishes())
    for seed in range(3):
        load = np.random.default_rng(seed).integers(0, 9, (2, E))
        plan_for(load, TOPOLOGY, first.phy2log[:2], Wishes(MoveLimits(per_gpu=1)))
    assert plan_for(LOAD, TOPOLOGY, IN_ORDER, Wishes()) == first
