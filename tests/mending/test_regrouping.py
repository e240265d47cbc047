"""Groups go home after GPUs were gone: within every limit, at each proposal, to the end."""

import numpy as np
import pytest
from plans import fetches_by_gpu, plan_of, random_plan
from support import fewer

import eplb_np
from eplb_np import MoveLimits, Plan, Rebalancer, Topology

EVERY_LIMITS = [
    MoveLimits(total=total, per_gpu=per_gpu)
    for total in (None, 0, 1, 2, 7)
    for per_gpu in (None, 0, 1, 3)
]


def lost_fetches_by_gpu(old: Plan, new: Plan) -> np.ndarray:
    """Fetches of experts that no active GPU held, which may exceed the limits."""
    topology = new.topology
    active = (topology.active_slots > 0)[topology.gpu_of_slot]
    fetched = np.zeros(topology.num_gpus, int)
    for before, after in zip(old.phy2log, new.phy2log, strict=True):
        lost = set(range(topology.num_experts)) - set(before[active].tolist())
        for gpu in topology.gpu_of_slot[np.isin(after, sorted(lost))]:
            fetched[gpu] += 1
    return fetched


def check_proposal(old: Plan, new: Plan, limits: MoveLimits) -> None:
    """Every expert has a slot, no slot has been emptied, and the limits hold."""
    new.check()
    assert (new.logcnt > 0).all()
    active = (new.topology.active_slots > 0)[new.topology.gpu_of_slot]
    assert not ((new.phy2log < 0) & active & (old.phy2log >= 0)).any()
    fetched = fetches_by_gpu(old, new)
    lost = lost_fetches_by_gpu(old, new)
    if limits.total is not None:
        assert fetched.sum() <= max(limits.total, lost.sum())
    if limits.per_gpu is not None:
        assert (fetched <= np.maximum(limits.per_gpu, lost)).all()


def groups_are_whole(plan: Plan) -> bool:
    """Whether each group has all its replicas on one node."""
    topology = plan.topology
    group_size = topology.num_experts // topology.num_groups
    node = topology.gpu_of_slot // topology.gpus_per_node
    for row in plan.phy2log:
        there = set(
            zip((row // group_size)[row >= 0].tolist(), node[row >= 0].tolist(), strict=True)
        )
        if len(there) > topology.num_groups:
            return False
    return True


def tight_topology(generator) -> Topology:
    """Several nodes and few redundant slots: without a GPU, a node cannot hold its groups."""
    num_nodes = int(generator.integers(2, 5))
    num_gpus = num_nodes * int(generator.integers(1, 4))
    num_groups = num_nodes * int(generator.integers(1, 4))
    num_experts = num_groups * int(generator.integers(1, 5))
    node_slots = num_experts // num_nodes
    slots = -(-node_slots * num_nodes // num_gpus) + int(generator.integers(0, 3))
    return Topology(num_experts, slots * num_gpus, num_gpus, num_nodes, num_groups)


def may_be_gone(topology: Topology, gone: list[int]) -> bool:
    slots = topology.slots_per_gpu * (topology.num_gpus - len(gone))
    return slots >= topology.num_experts


def drive(rebalancer: Rebalancer, limits: MoveLimits, generator, num_proposals: int) -> int:
    """Propose until nothing moves, with new loads; returns how many proposals that took."""
    shape = (rebalancer.current.num_layers, rebalancer.topology.num_experts)
    for i in range(num_proposals):
        old = rebalancer.current
        rebalancer.observe(generator.poisson(20 * generator.lognormal(0, 0.5, shape)))
        check_proposal(old, rebalancer.propose().plan, limits)
        if groups_are_whole(rebalancer.current):
            return i + 1
    return num_proposals


def test_limits_hold_at_every_proposal_when_gpus_are_lost_and_come_back() -> None:
    generator = np.random.default_rng(11)
    gradual = 0
    for i in range(fewer(120, 20)):
        limits = EVERY_LIMITS[i % len(EVERY_LIMITS)]
        topology = tight_topology(generator)
        rebalancer = Rebalancer(topology, 3, limits=limits)
        rebalancer.observe(generator.lognormal(0, 1, (3, topology.num_experts)))
        rebalancer.propose()
        gone: list[int] = []
        for _ in range(3):  # lost one by one, or several at once
            more = generator.choice(topology.num_gpus, generator.integers(1, 3), replace=False)
            if may_be_gone(topology, sorted({*gone, *more.tolist()})):
                gone = sorted({*gone, *more.tolist()})
                rebalancer.use_gpus([gpu for gpu in range(topology.num_gpus) if gpu not in gone])
                drive(rebalancer, limits, generator, 2)
        while gone:  # back one by one, or all at once
            gone = gone[1:] if generator.random() < 0.7 else []
            rebalancer.use_gpus([gpu for gpu in range(topology.num_gpus) if gpu not in gone])
            drive(rebalancer, limits, generator, 2)
        least = 2 if limits.total is None else limits.total
        if least >= 2 and limits.per_gpu != 0:
            enough = 3 * topology.num_replicas
            taken = drive(rebalancer, limits, generator, enough)
            gradual += taken > 1
            assert groups_are_whole(rebalancer.current)
    assert gradual > 0


@pytest.mark.parametrize("limits", EVERY_LIMITS, ids=str)
def test_any_plan_in_use_is_regrouped_within_the_limits(limits) -> None:
    generator = np.random.default_rng(12)
    for _ in range(fewer(60, 4)):
        topology = tight_topology(generator)
        current = random_plan(generator, 3, topology)
        load = generator.lognormal(0, 1, (3, topology.num_experts))
        for _ in range(3 * topology.num_replicas):
            plan = eplb_np.make_plan(load, current=current, policy="refined", limits=limits)
            check_proposal(current, plan, limits)
            still = plan == current
            current = plan
            if still:
                break
        enough = limits.total is None or limits.total >= 2
        assert groups_are_whole(current) or limits.per_gpu == 0 or not enough


def test_displaced_experts_without_a_free_slot_are_exchanged() -> None:
    topology = Topology(6, 6, 3, 3, 3)
    load = np.ones((1, 6))
    ring = plan_of([[0, 2, 1, 4, 3, 5]], topology)  # 2, 4 and 3 each sit on the next one's node
    for limits, fetches in [
        (MoveLimits(total=1), [0]),
        (MoveLimits(total=2), [2, 2]),
        (MoveLimits(total=2, per_gpu=1), [2, 2]),
        (MoveLimits(per_gpu=1), [3]),
    ]:
        current = ring
        for expected in fetches:
            plan = eplb_np.make_plan(load, current=current, policy="refined", limits=limits)
            check_proposal(current, plan, limits)
            assert fetches_by_gpu(current, plan).sum() == expected
            current = plan
        assert groups_are_whole(current) == (limits.total != 1)


@pytest.mark.parametrize(
    ("limits", "proposals"),
    [
        (MoveLimits(total=100), 10),
        (MoveLimits(per_gpu=10), 53),  # 9 slots of GPU 5 in each of 58 layers, 10 at a time
        (MoveLimits(total=100, per_gpu=10), 53),
        (MoveLimits(total=1000), 2),
        (MoveLimits(), 1),
    ],
    ids=str,
)
@pytest.mark.same_without_jit
def test_a_deployment_gets_its_groups_back_within_the_limits(limits, proposals) -> None:
    load = eplb_np.workloads.skewed_load(58, 256)
    rebalancer = Rebalancer(Topology(256, 288, 32, 4, 8), 58, limits=limits)
    rebalancer.observe(load)
    rebalancer.propose()
    least = rebalancer.current.balancedness(load)
    rebalancer.use_gpus([gpu for gpu in range(32) if gpu != 5])
    for _ in range(3):
        old = rebalancer.current
        check_proposal(old, rebalancer.propose().plan, limits)
    assert rebalancer.current.placement == "global"
    least = min(least, rebalancer.current.balancedness(load)) - 0.08
    rebalancer.use_gpus(None)
    for i in range(proposals):
        assert i == 0 or not groups_are_whole(rebalancer.current)
        old = rebalancer.current
        proposal = rebalancer.propose()
        plan = proposal.plan
        check_proposal(old, plan, limits)
        assert plan.balancedness(load) > least
        assert set(plan.topology.gpu_of_slot[np.nonzero(plan.phy2log < 0)[1]]) <= {5}
        assert ("back to their nodes" in proposal.reason) == (i < proposals - 1)
    assert groups_are_whole(plan)
    assert (plan.phy2log >= 0).all()
