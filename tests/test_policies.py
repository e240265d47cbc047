"""The table of policies: one row and a planner make a policy, wherever policies are chosen."""

from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner
from support import refused

import eplb_np
from eplb_np.cli import command
from eplb_np.maps.maps import Maps
from eplb_np.policies import POLICIES, Policy, PolicyName, function_named
from eplb_np.replay import replanning, replay

TOPOLOGY = eplb_np.Topology(num_experts=8, num_replicas=12, num_gpus=4)


def plan_in_reverse(weight, topology, policy, num_threads=None):
    """Put the experts into the slots backwards: experts 7 .. 0, then 7 .. 4 again."""
    slot = np.arange(topology.num_replicas)
    row = topology.num_experts - 1 - slot % topology.num_experts
    rank = slot // topology.num_experts
    count = np.bincount(row, minlength=topology.num_experts)
    return Maps(*(np.tile(array, (len(weight), 1)) for array in (row, rank, count)))


BACKWARDS = [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4]


@pytest.fixture
def toy(monkeypatch):
    """A policy that is a row and a planner, and nothing else."""
    monkeypatch.setitem(POLICIES, "toy", Policy({"cpu": f"{__name__}:plan_in_reverse"}))
    return "toy"


def test_a_new_policy_plans(toy):
    plan = eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy)
    plan.check()
    assert plan.phy2log.tolist() == [BACKWARDS] * 2
    assert (plan.policy, plan.device, plan.log2phy.shape) == (toy, "cpu", (2, 8, 2))
    phy2log, log2phy, _ = eplb_np.rebalance_experts(np.ones((2, 8)), 12, 1, 1, 4, policy=toy)
    assert phy2log.tolist() == plan.phy2log.tolist()
    assert log2phy.tolist() == plan.log2phy.tolist()
    eplb_np.warmup([toy])


def test_a_new_policy_is_saved(toy, tmp_path):
    plan = eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy)
    plan.save(tmp_path / "plan.json")
    assert eplb_np.Plan.load(tmp_path / "plan.json") == plan


def test_a_new_policy_is_replayed(toy):
    trace = np.ones((4, 2, 8))
    assert replay(trace, replanning(TOPOLOGY, toy)).balancedness == pytest.approx(0.8)


def test_a_new_policy_is_known_to_the_command(toy, tmp_path):
    np.save(tmp_path / "loads.npy", np.ones((2, 8)))
    output = tmp_path / "plan.json"
    arguments = ["plan", str(tmp_path / "loads.npy"), "--replicas", "12", "--gpus", "4"]
    result = CliRunner().invoke(command, [*arguments, "--policy", toy, "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert eplb_np.Plan.load(output).phy2log.tolist() == [BACKWARDS] * 2


def test_what_a_row_does_not_promise_is_refused(toy):
    with refused("policy='toy' needs", "policy='refined'"):
        eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy, active_gpus=[0, 1, 2])
    with refused("policy='toy' plans on the CPU only"):
        eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy, device="cuda")
    plan = eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy)
    with refused("policy='toy' only plans from scratch"):
        eplb_np.make_plan(np.ones((2, 8)), current=plan, policy=toy)
    assert eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy=toy, device="auto") == plan


def test_unknown_policies_are_refused_with_the_known_ones():
    with refused("policy='toy' is unknown", "'hybrid', 'deepseek', 'refined'"):
        eplb_np.make_plan(np.ones((2, 8)), TOPOLOGY, policy="toy")


def test_the_names_for_type_checkers_are_those_of_the_table():
    assert get_args(PolicyName) == tuple(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_every_row_names_functions_that_there_are(name):
    policy = POLICIES[name]
    for function in (*policy.planners.values(), policy.mender):
        assert function is None or callable(function_named(function))
