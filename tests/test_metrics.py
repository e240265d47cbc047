"""Measures equal their slow twins, which compute in exact fractions."""

import naive
import numpy as np
import pytest
from cases import random_cases
from support import fewer, refused

import eplb_np
from eplb_np import Topology, in_order_plan, make_plan, moved_replicas

RNG = np.random.default_rng(3)
EXACT = 1e-12
PHY2LOG = np.array([[0, 0, 1, 1]])
LOGCNT = np.array([[2, 2]])


def plans(num_cases, seed):
    for case in random_cases(num_cases, seed):
        sizes = case.num_replicas, case.num_gpus, case.num_nodes, case.num_groups
        topology = Topology(case.weight.shape[1], *sizes)
        yield make_plan(case.weight, topology), np.asarray(case.weight, np.float64)


def test_measures_equal_naive():
    for plan, planned_from in plans(fewer(300, 60), 60):
        for load in (planned_from, RNG.random(planned_from.shape), np.zeros(planned_from.shape)):
            maps = plan.phy2log, plan.logcnt, load
            replica_load = naive.replica_load(*maps)
            gpu_load = naive.gpu_load(*maps, plan.topology.num_gpus)
            np.testing.assert_allclose(eplb_np.replica_load(*maps), replica_load, rtol=EXACT)
            np.testing.assert_allclose(plan.gpu_load(load), gpu_load, rtol=EXACT)
            np.testing.assert_allclose(
                plan.balancedness(load), naive.balancedness(gpu_load), rtol=EXACT
            )
            np.testing.assert_allclose(
                plan.replica_balancedness(load), naive.balancedness(replica_load), rtol=EXACT
            )
            np.testing.assert_allclose(
                eplb_np.layer_balancedness(plan.gpu_load(load)),
                [naive.balancedness([row]) for row in gpu_load],
                rtol=EXACT,
            )


def test_moved_replicas_equal_naive():
    for plan, load in plans(fewer(300, 60), 61):
        num_gpus = plan.topology.num_gpus
        other = make_plan(RNG.permuted(load, axis=1), plan.topology)
        expected = naive.moved_replicas(plan.phy2log, other.phy2log, num_gpus)
        assert moved_replicas(plan.phy2log, other.phy2log, num_gpus) == expected


def test_where_on_its_gpu_a_replica_sits_does_not_matter():
    plan = in_order_plan(3, Topology(6, 12, 4))
    gpus = plan.phy2log.reshape(3, 4, 3)
    shuffled = RNG.permuted(gpus, axis=2).reshape(3, 12)
    assert moved_replicas(plan.phy2log, shuffled, 4) == 0
    assert moved_replicas(plan.phy2log, gpus[:, ::-1].reshape(3, 12), 4) == 3 * 4 * 3
    assert moved_replicas(PHY2LOG, PHY2LOG[:, ::-1], 4) == 4


def test_no_load_at_all_is_perfect_balance():
    assert eplb_np.balancedness(np.zeros((2, 4))) == 1.0
    assert eplb_np.layer_balancedness(np.array([[0.0, 0.0], [1.0, 3.0]])).tolist() == [1.0, 2 / 3]


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: eplb_np.replica_load(PHY2LOG, LOGCNT, [[1, 2, 3]]), ["(1, 3)", "(1, 2)"]),
        (lambda: eplb_np.gpu_load(PHY2LOG, LOGCNT, [1, 2], 2), ["(2,)", "[layers, experts]"]),
        (lambda: eplb_np.gpu_load(PHY2LOG, LOGCNT, [[1, 2]], 3), ["slots=4", "num_gpus=3"]),
        (lambda: eplb_np.gpu_load(PHY2LOG, LOGCNT, [[1, 2]], 0), ["num_gpus=0", "at least 1"]),
        (lambda: eplb_np.gpu_load(PHY2LOG, LOGCNT, [["a", "b"]], 2), ["dtype", "real number"]),
        (lambda: moved_replicas(PHY2LOG, PHY2LOG[:, :2], 2), ["(1, 4)", "(1, 2)", "same"]),
        (lambda: moved_replicas(PHY2LOG, PHY2LOG, 3), ["slots=4", "num_gpus=3"]),
        (lambda: moved_replicas(PHY2LOG, PHY2LOG, 2.0), ["num_gpus=2.0", "integer"]),
    ],
)
def test_what_cannot_be_measured_is_refused(call, parts):
    with refused(*parts):
        call()
