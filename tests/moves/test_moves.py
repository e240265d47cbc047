"""From one plan to another: every fetch has a source, and no expert loses its last copy."""

from collections import Counter

import numpy as np
import pytest
from plans import make_moves, plan_of, random_plan
from support import fewer, refused

import eplb_np
from eplb_np import Plan, Topology
from eplb_np.moves import Move
from eplb_np.moves.fetches import count_fetches


def random_topology(generator) -> Topology:
    num_nodes = int(generator.integers(1, 4))
    num_gpus = num_nodes * int(generator.integers(1, 4))
    num_experts = int(generator.integers(1, 10))
    slots = generator.multinomial(
        num_experts + int(generator.integers(0, 6)), [1 / num_gpus] * num_gpus
    )
    return Topology(num_experts, int(slots.sum()), num_gpus, num_nodes, gpu_slots=slots)


def test_moves_lead_from_any_plan_to_any_other() -> None:
    generator = np.random.default_rng(1)
    for _ in range(fewer(400, 60)):
        topology = random_topology(generator)
        old, new = (random_plan(generator, 3, topology) for _ in range(2))
        held = make_moves(old, new)
        filled = new.phy2log >= 0
        assert np.array_equal(held[filled], new.phy2log[filled])


def test_lost_gpus_are_no_source() -> None:
    generator = np.random.default_rng(2)
    from_storage = 0
    for _ in range(fewer(200, 40)):
        whole = Topology(6, 12, 4, 2)
        gpus = generator.permutation(4)[: generator.integers(2, 4)]
        fewer_gpus = Topology(6, 12, 4, 2, active_gpus=gpus)
        old, new = random_plan(generator, 2, whole), random_plan(generator, 2, fewer_gpus)
        make_moves(old, new)
        moves = new.moves_from(old)
        from_storage += int((moves.source_gpu < 0).sum())
        assert np.isin(moves.source_gpu, [-1, *gpus.tolist()]).all()
        make_moves(new, old)  # and back, to GPUs that hold nothing
    assert from_storage > 0


def test_a_swap_is_one_step() -> None:
    topology = Topology(2, 2, 2)
    moves = plan_of([[1, 0]], topology).moves_from(plan_of([[0, 1]], topology))
    assert sorted(moves) == [
        Move(layer=0, expert=0, gpu=1, slot=1, source_gpu=0, source_slot=0, step=0),
        Move(layer=0, expert=1, gpu=0, slot=0, source_gpu=1, source_slot=1, step=0),
    ]


def test_a_chain_is_made_from_its_end() -> None:
    topology = Topology(2, 3, 3)
    moves = plan_of([[1, 1, 0]], topology).moves_from(plan_of([[0, 1, 1]], topology))
    assert [(move.expert, move.slot, move.step) for move in moves] == [(0, 2, 0), (1, 0, 1)]


def test_no_moves_from_a_plan_to_itself() -> None:
    topology = Topology(8, 12, 4)
    plan = eplb_np.in_order_plan(2, topology)
    moves = plan.moves_from(plan)
    assert (len(moves), moves.num_fetched, list(moves)) == (0, 0, [])


def test_moves_within_a_gpu_are_not_fetched() -> None:
    topology = Topology(2, 4, 2)
    moves = plan_of([[1, 0, 0, 1]], topology).moves_from(plan_of([[0, 1, 0, 1]], topology))
    assert (len(moves), moves.num_fetched) == (2, 0)
    assert repr(moves) == "Moves(2, 0 of them from another GPU or storage)"


def test_a_second_replica_on_a_gpu_is_copied_there() -> None:
    topology = Topology(2, 4, 2)
    old, new = plan_of([[0, 1, 0, 1]], topology), plan_of([[0, 0, 0, 1]], topology)
    moves = new.moves_from(old)
    assert (len(moves), moves.num_fetched) == (1, 0)
    assert eplb_np.moved_replicas(old.phy2log, new.phy2log, 2) == 1


def held_by_gpus(plan: Plan) -> Counter:
    """How often each GPU holds an expert, by layer, GPU and expert."""
    slots = zip(*np.nonzero(plan.phy2log >= 0), strict=True)
    gpu = plan.topology.gpu_of_slot
    return Counter((layer, gpu[slot], plan.phy2log[layer, slot]) for layer, slot in slots)


def test_fetches_are_counted_by_expert_and_moved_replicas_one_by_one() -> None:
    generator = np.random.default_rng(3)
    differ = 0
    for _ in range(fewer(200, 40)):
        topology = random_topology(generator)
        old, new = (random_plan(generator, 2, topology) for _ in range(2))
        before, after = held_by_gpus(old), held_by_gpus(new)
        fetched = new.moves_from(old).num_fetched
        moved = count_fetches(old.phy2log, new.phy2log, topology.gpu_of_slot)
        assert fetched == len(after.keys() - before.keys())
        assert moved == (after - before).total()
        differ += moved - fetched
        if max(after.values()) == 1:
            assert moved == fetched
    assert differ > 0


@pytest.mark.parametrize(
    "other", [Topology(8, 12, 6), Topology(6, 12, 4), Topology(8, 12, 4, gpu_slots=[2, 4, 3, 3])]
)
def test_plans_of_other_slots_are_refused(other) -> None:
    with refused("other=Plan(", "does not fit Plan(", "same layers, experts and slots"):
        eplb_np.in_order_plan(2, Topology(8, 12, 4)).moves_from(eplb_np.in_order_plan(2, other))
