"""Plans made by hand or at random, and their moves made step by step."""

from itertools import groupby

import numpy as np

from eplb_np import Plan, Topology
from eplb_np.local_search.planner import make_separate_maps


def plan_of(phy2log, topology) -> Plan:
    phy2log = np.array(phy2log)
    phyrank = np.full_like(phy2log, -1)
    for layer, row in enumerate(phy2log):
        for e in set(row[row >= 0].tolist()):
            slots = np.flatnonzero(row == e)
            phyrank[layer, slots] = range(len(slots))
    return Plan(phy2log, phyrank, topology, "by hand")


def separate_plan(load, topology: Topology, moe_layer_ids=None) -> Plan:
    """The refined plan with an expert twice on a GPU only where that cannot be avoided."""
    maps = make_separate_maps(np.asarray(load, np.float32), topology)
    return Plan(maps.phy2log, maps.phyrank, topology, "refined", moe_layer_ids)


def random_plan(generator, num_layers: int, topology: Topology) -> Plan:
    """Any plan: each expert once, the other slots as they come, some of them empty."""
    usable = np.flatnonzero((topology.active_slots > 0)[topology.gpu_of_slot])
    phy2log = np.full((num_layers, topology.num_replicas), -1)
    for row in phy2log:
        more = generator.integers(-1, topology.num_experts, len(usable) - topology.num_experts)
        experts = np.concatenate([np.arange(topology.num_experts), more])
        row[usable] = generator.permutation(experts)
    return plan_of(phy2log, topology)


def fetches_by_gpu(old: Plan, new: Plan) -> np.ndarray:
    """Replicas that each GPU must fetch, counted one by one."""
    fetched = np.zeros(new.topology.num_gpus, int)
    first = new.topology.first_slots
    for before, after in zip(old.phy2log, new.phy2log, strict=True):
        for gpu in range(new.topology.num_gpus):
            left = before[first[gpu] : first[gpu + 1]].tolist()
            for expert in after[first[gpu] : first[gpu + 1]].tolist():
                if expert in left:
                    left.remove(expert)
                elif expert >= 0:
                    fetched[gpu] += 1
    return fetched


def distance(topology: Topology, gpu: int, other: int) -> int:
    """0 on one GPU, 1 on one node, else 2."""
    if gpu == other:
        return 0
    return 1 if gpu // topology.gpus_per_node == other // topology.gpus_per_node else 2


def make_moves(old: Plan, new: Plan) -> np.ndarray:
    """Carry the moves out step by step, and check each of them; returns what the slots hold."""
    topology = new.topology
    gpu_of_slot = topology.gpu_of_slot
    held = old.phy2log.copy()
    held[:, (topology.active_slots == 0)[gpu_of_slot]] = -1
    had = [set(row[row >= 0].tolist()) for row in held]
    for (layer, _), step in groupby(new.moves_from(old), key=lambda move: (move.layer, move.step)):
        moves = list(step)
        row = held[layer]
        for move in moves:
            assert move.gpu == gpu_of_slot[move.slot]
            holders = np.flatnonzero(row == move.expert)
            if move.source_slot < 0:
                assert move.source_gpu == -1
                assert holders.size == 0
                continue
            assert move.source_gpu == gpu_of_slot[move.source_slot]
            assert move.source_slot in holders
            nearest = min(distance(topology, move.gpu, gpu_of_slot[s]) for s in holders)
            assert distance(topology, move.gpu, move.source_gpu) == nearest
        for move in moves:
            row[move.slot] = move.expert
        assert had[layer] <= set(row.tolist())
    return held
