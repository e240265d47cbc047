"""Plans made for the best split: sound, deterministic, and better than those they start from."""

import numba
import numpy as np
import pytest
from recorded import needs_loads, recorded_loads
from support import assert_same, compiled, fewer, needs_jit

import eplb_np
from eplb_np import Topology, make_plan, workloads
from eplb_np.dispatch.graph import build_graph
from eplb_np.dispatch.placement import layers as layers_module
from eplb_np.dispatch.placement.cuts import add_set, bound_move, follow_move
from eplb_np.dispatch.placement.flows import solve, start_trial
from eplb_np.dispatch.placement.generator import below, next_number, normal, seed_generator
from eplb_np.dispatch.placement.layer import MOVE_SIZE, fill_layer, make_move
from eplb_np.dispatch.placement.moves import propose
from eplb_np.dispatch.placement.planner import (
    Effort,
    place_for_split,
    samples_for,
)
from eplb_np.dispatch.placement.samples import draw_samples
from eplb_np.dispatch.placement.search import climb, start_search
from eplb_np.dispatch.split_cpu import make_split_scratch, split_layers
from eplb_np.local_search.planner import make_separate_maps
from eplb_np.maps.maps import Maps
from eplb_np.metrics import replica_load

NOISE = 2e-3
LITTLE = Effort(8, 4_000)

TOPOLOGIES = {
    "global": Topology(24, 32, 8),
    "few spare slots": Topology(24, 28, 7),
    "many replicas": Topology(6, 24, 6),
    "duplicates cannot be avoided": Topology(3, 16, 4),
    "hierarchical": Topology(24, 32, 8, 2, 4),
    "hierarchical, few spare slots": Topology(32, 36, 12, 2, 4),
    "unequal slots": Topology(24, 33, 8, gpu_slots=(5, 5, 5, 4, 4, 4, 3, 3)),
    "unequal speeds": Topology(24, 32, 8, gpu_speeds=(1, 2, 1, 1, 0.5, 1, 1, 3)),
    "gone": Topology(24, 40, 8, active_gpus=(0, 1, 2, 4, 5, 7)),
    "gone, hierarchical": Topology(24, 40, 8, 2, 4, active_gpus=(0, 1, 2, 4, 5, 7)),
    "one GPU": Topology(6, 8, 1),
}

names = pytest.mark.parametrize("name", TOPOLOGIES)


def start_of(topology: Topology, num_layers: int = 3, seed: int = 0) -> tuple[Maps, np.ndarray]:
    load = workloads.skewed_load(num_layers, topology.num_experts, seed=seed).astype(float)
    return make_separate_maps(load.astype(np.float32), topology), load


def best_times(phy2log: np.ndarray, topology: Topology, loads: np.ndarray) -> np.ndarray:
    """Longest GPU time of the best split: plans [L, P], loads [B, L, E] to [B, L]."""
    logcnt = np.array([np.bincount(row[row >= 0], minlength=loads.shape[2]) for row in phy2log])
    graph = build_graph(phy2log, logcnt, topology.gpus, replica_load(phy2log, logcnt, loads[0]))
    scratch = make_split_scratch(graph, np.float64)
    slot_load = np.zeros(phy2log.shape)
    times = []
    for load in loads:
        split_layers(graph, 0, load, scratch, slot_load)
        times.append((gpu_sums(slot_load, topology) * topology.slowness).max(axis=1))
    return np.array(times)


def gpu_sums(slot_load: np.ndarray, topology: Topology) -> np.ndarray:
    sums = np.zeros((len(slot_load), topology.num_gpus))
    for slot, g in enumerate(topology.gpu_of_slot):
        sums[:, g] += slot_load[:, slot]
    return sums


def num_duplicates(phy2log: np.ndarray, topology: Topology) -> int:
    held = [
        row[(topology.gpu_of_slot == g) & (row >= 0)]
        for row in phy2log
        for g in range(topology.num_gpus)
    ]
    return sum(len(experts) - len(set(experts.tolist())) for experts in held)


def batches(load: np.ndarray, number: int, seed: int = 1) -> np.ndarray:
    """Draw loads around one, with the noise of the tests."""
    share = load / load.sum(axis=1, keepdims=True)
    return np.random.default_rng(seed).gamma(share / NOISE, NOISE, (number, *share.shape))


@names
@pytest.mark.parametrize("certain", [False, True])
def test_plans_are_sound(name: str, certain: bool) -> None:
    topology = TOPOLOGIES[name]
    for seed in range(fewer(12, 1)):
        maps, load = start_of(topology, seed=seed)
        load[1] = 0.0 if seed % 2 else load[1]
        windows = np.stack([load, load[:, ::-1]])[: 1 + seed % 2]
        effort = Effort(8, fewer(40_000, 1_000))
        result = place_for_split(maps, windows, topology, NOISE, certain=certain, effort=effort)
        # Checks ranks, counts, ranges, and that GPUs that are gone are empty.
        eplb_np.Plan(result.phy2log, result.phyrank, topology, "refined")
        count = [np.bincount(row[row >= 0], minlength=topology.num_experts) for row in result[0]]
        assert_same([result.logcnt], [np.array(count)], name)
        assert ((result.phy2log < 0) == (maps.phy2log < 0)).all()
        assert num_duplicates(result.phy2log, topology) <= num_duplicates(maps.phy2log, topology)
        if topology.placement == "hierarchical":
            node = topology.gpu_of_slot // topology.gpus_per_node
            size = topology.num_experts // topology.num_groups
            for row in result.phy2log:
                for group in range(topology.num_groups):
                    assert len(set(node[(row >= 0) & (row // size == group)])) == 1


@names
def test_the_start_is_left_alone_and_threads_change_nothing(name: str) -> None:
    topology = TOPOLOGIES[name]
    maps, load = start_of(topology, num_layers=5)
    before = [array.copy() for array in maps]
    plans = [
        place_for_split(maps, load[None], topology, NOISE, threads, certain=True, effort=LITTLE)
        for threads in (1, 1, 2, 5)
    ]
    assert_same(maps, before, name)
    for plan in plans[1:]:
        assert_same(plan, plans[0], name)


def test_layers_do_not_depend_on_each_other_but_for_their_number() -> None:
    topology = TOPOLOGIES["global"]
    maps, load = start_of(topology, num_layers=4)
    every = place_for_split(maps, load[None], topology, NOISE, 1, effort=LITTLE)
    first = place_for_split(
        Maps(*(array[:2] for array in maps)), load[None, :2], topology, NOISE, 1, effort=LITTLE
    )
    assert_same(first, [array[:2] for array in every], "the first two layers")


@names
def test_an_even_split_gets_at_most_two_per_cent_worse(name: str) -> None:
    topology = TOPOLOGIES[name]
    for seed in range(fewer(20, 2)):
        maps, load = start_of(topology, seed=seed)
        result = place_for_split(maps, load[None], topology, NOISE, effort=LITTLE)
        longest = [
            gpu_sums(replica_load(plan.phy2log, plan.logcnt, load), topology) * topology.slowness
            for plan in (maps, result)
        ]
        before, after = (times.max(axis=1) for times in longest)
        assert (after <= before * 1.02 * (1 + 1e-12)).all()


@needs_jit
@pytest.mark.parametrize("name", ["global", "many replicas", "unequal speeds", "gone"])
def test_the_best_split_of_new_loads_gets_better(name: str) -> None:
    topology = TOPOLOGIES[name]
    maps, load = start_of(topology, num_layers=12)
    result = place_for_split(maps, load[None], topology, NOISE)
    new = batches(load, 64)
    before, after = (best_times(plan.phy2log, topology, new).mean() for plan in (maps, result))
    ideal = 1.0 / topology.active_speed  # rows of ``new`` add up to about 1
    assert after - ideal < 0.6 * (before - ideal)


@needs_jit
def test_a_plan_for_several_workloads_serves_each_of_them() -> None:
    topology = Topology(48, 64, 16)
    profiles = workloads.related_profiles(workloads.skewed_load(6, 48), 4, seed=3)
    plan = make_plan(profiles.mean(axis=0), topology, policy="refined")
    maps = Maps(plan.phy2log, plan.phyrank, plan.logcnt)
    for_mean = place_for_split(maps, profiles.mean(axis=0)[None], topology, 2e-4)
    for_all = place_for_split(maps, profiles, topology, 2e-4)
    start, mean, every = (
        best_times(p.phy2log, topology, profiles).mean() for p in (maps, for_mean, for_all)
    )
    assert every < mean < start
    assert 1 / (every * 16) > 0.99


def components(row: np.ndarray, topology: Topology) -> list[int]:
    """Sizes of the sets of GPUs that replicas connect."""
    root = list(range(topology.num_gpus))
    for e in range(topology.num_experts):
        gpus = [root[g] for g in topology.gpu_of_slot[row == e]]
        root = [gpus[0] if r in gpus else r for r in root]
    return sorted(np.unique(root, return_counts=True)[1].tolist())


@needs_jit
def test_where_spare_slots_are_few_one_part_is_connected_and_the_rest_alone() -> None:
    topology = Topology(72, 80, 20)
    maps, load = start_of(topology, num_layers=8, seed=5)
    guarded = place_for_split(maps, load[None], topology, NOISE)
    certain = place_for_split(maps, load[None], topology, NOISE, certain=True)
    new = batches(load, 64)
    times = [best_times(p.phy2log, topology, new) for p in (maps, guarded, certain)]
    start, usual, parted = (time.mean() for time in times)
    assert parted < usual < start
    sizes = [components(row, topology) for row in certain.phy2log]
    assert sum(size == [1] * 11 + [9] for size in sizes) >= 2  # not in every layer does it pay


# -- the parts of the search ----------------------------------------------------------------------


# Compiled once: every call of `compiled` makes a new function.
make_search = compiled(layers_module.make_search)
take_plan = compiled(layers_module.take_plan)
take_load = compiled(layers_module.take_load)
draw = compiled(draw_samples)
fill = compiled(fill_layer)


def new_search(topology: Topology, seed: int, num_samples: int):
    """A search of one layer with random loads, and those loads [S, E]."""
    maps, load = start_of(topology, 1, seed)
    slot_of = np.flatnonzero(maps.phy2log[0] >= 0)
    most = int(maps.logcnt.max()) + 8
    search = make_search(len(slot_of), topology.num_gpus, topology.num_experts, most, num_samples)
    nodes = topology.num_nodes if topology.placement == "hierarchical" else 1
    take_plan(search.layer, maps.phy2log[0], slot_of, topology.gpus, nodes)
    share = np.zeros((1, topology.num_experts))
    speed = take_load(search.layer, load, share)
    draw(share, 10 * NOISE, speed, seed, search.state, search.sample)
    fill(search.layer)
    search.layer.longest[0] = 1e30
    return search, slot_of


@numba.njit
def walk(search, num_moves, bounds, times, experts):
    """Make moves whether they help or not; write down all bounds, times and plans."""
    start_search(search)
    layer, flows = search.layer, search.flows
    made = 0
    for _ in range(8 * num_moves):
        if made == num_moves:
            break
        if not propose(layer, search.cuts, search.excess, search.state, search.move):
            continue
        bound_move(search.cuts, layer, search.sample, search.move, bounds[made])
        follow_move(search.cuts, layer, search.sample, search.move)
        make_move(layer, search.move)
        for s in range(flows.side.shape[0]):
            start_trial(flows, layer, search.sample, s, search.move)
            side = 1 - flows.side[s]
            times[made, s] = solve(flows, layer, s, side, bounds[made, s], 1e300)
            flows.side[s] = side
            flows.time[s] = times[made, s]
            if flows.num_stuck[s] > 0:
                add_set(search.cuts, layer, search.sample, flows.stuck[s], flows.num_stuck[s])
        experts[made] = layer.expert
        made += 1
    return made


@names
def test_repaired_splits_are_the_best_ones_and_bounds_are_below_them(name: str) -> None:
    topology = TOPOLOGIES[name]
    num_samples, num_moves = 5, fewer(60, 4)
    tight = cases = 0
    for seed in range(fewer(20, 1)):
        search, slot_of = new_search(topology, seed, num_samples)
        bounds, times = np.zeros((2, num_moves, num_samples))
        experts = np.zeros((num_moves, len(slot_of)), np.int64)
        made = walk(search, num_moves, bounds, times, experts)
        if made == 0:
            assert name in ("one GPU", "duplicates cannot be avoided")
            continue
        phy2log = np.full((made, topology.num_replicas), -1)
        phy2log[:, slot_of] = experts[:made]
        loads = np.repeat(search.sample.T[:, None], made, axis=1)
        best = best_times(phy2log, topology, np.ascontiguousarray(loads)).T
        np.testing.assert_allclose(times[:made], best, rtol=1e-7)
        assert (bounds[:made] <= best * (1 + 1e-9)).all()
        tight += np.isclose(bounds[:made], best, rtol=1e-7).sum()
        cases += best.size
        # The flows are a split: they add up to the loads, and to the GPUs' loads.
        for s in range(num_samples):
            flow = search.flows.flow[search.flows.side[s], s]
            single = search.layer.logcnt[search.layer.expert] == 1
            flow = np.where(single, search.sample[search.layer.expert, s], flow)
            assert (flow >= 0).all()
            whole = np.bincount(search.layer.expert, flow, topology.num_experts)
            np.testing.assert_allclose(whole, search.sample[:, s], rtol=1e-9, atol=1e-12)
            on_gpus = np.bincount(search.layer.gpu, flow, topology.num_gpus)
            side = search.flows.side[s]
            np.testing.assert_allclose(on_gpus, search.flows.load[side, s], rtol=1e-9, atol=1e-9)
    assert tight >= 0.5 * cases  # or they would refuse little


@numba.njit
def run(search, work):
    """Sum of times before, after, and once more with nothing kept from the search."""
    before = start_search(search)
    after = climb(search, before, work)
    return before, after, start_search(search)


@names
def test_the_search_only_goes_down_and_knows_where_it_is(name: str) -> None:
    for seed in range(fewer(10, 1)):
        search, _ = new_search(TOPOLOGIES[name], seed, 8)
        before, after, again = run(search, fewer(100_000, 1_000))
        assert after <= before
        np.testing.assert_allclose(after, again, rtol=1e-7)


def test_the_even_split_is_followed() -> None:
    for seed in range(fewer(10, 1)):
        search, _ = new_search(TOPOLOGIES["hierarchical"], seed, 4)
        num_moves = fewer(200, 4)
        walk(search, num_moves, *np.zeros((2, num_moves, 4)), np.zeros((num_moves, 32), np.int64))
        even = search.layer.even.copy()
        fill(search.layer)
        np.testing.assert_allclose(even, search.layer.even, rtol=1e-9)


def test_samples_are_around_their_windows() -> None:
    share = np.array([[0.5, 0.3, 0.1, 0.1, 0.0], [0.05, 0.05, 0.4, 0.4, 0.1]])
    number = fewer(20_000, 400)
    sample = np.zeros((5, number))
    draw(share, 0.02, 3.0, 7, np.zeros(1, np.int64), sample)
    assert (sample >= 0).all()
    np.testing.assert_allclose(sample.sum(axis=0), 3.0, rtol=1e-12)
    for w in range(2):
        drawn = sample[:, w::2] / 3.0
        np.testing.assert_allclose(drawn.mean(axis=1), share[w], rtol=0.02, atol=1e-3)
        expected = 0.02 * share[w] * (1 - share[w])  # the rows add up, so (1 - p), as for shares
        np.testing.assert_allclose(
            drawn.var(axis=1), expected, rtol=0.1 if number > 400 else 0.6, atol=1e-9
        )


def test_without_noise_all_samples_are_the_window() -> None:
    share = np.array([[0.5, 0.25, 0.25]])
    sample = np.zeros((3, 4))
    draw(share, 0.0, 8.0, 1, np.zeros(1, np.int64), sample)
    np.testing.assert_allclose(sample, np.repeat(share.T * 8, 4, axis=1), rtol=1e-12)


def test_the_generator_is_marsaglias() -> None:
    state = np.zeros(1, np.int64)
    compiled(seed_generator)(state, 5)
    x = int(state[0])
    step, uniform = compiled(next_number), []
    for _ in range(1000):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        assert step(state) == x
        uniform.append(x)
    number_below = compiled(below)
    drawn = [number_below(state, 10) for _ in range(1000)]
    assert set(drawn) == set(range(10))
    deviate = compiled(normal)
    normals = np.array([deviate(state) for _ in range(fewer(20_000, 2_000))])
    assert abs(normals.mean()) < 0.05
    assert abs(normals.std() - 1.0) < 0.05
    assert MOVE_SIZE == 4


def test_many_windows_get_fewer_samples_each() -> None:
    for windows in range(1, 300):
        number = samples_for(windows, 48)
        assert number % windows == 0
        assert number >= 48
        assert number <= max(128, windows)


@needs_jit
@needs_loads
@pytest.mark.parametrize(
    ("replicas", "gpus", "to_reach"), [(288, 32, 0.985), (360, 72, 0.997), (320, 64, 0.965)]
)
def test_real_loads_are_split_nearly_perfectly(replicas: int, gpus: int, to_reach: float) -> None:
    topology = Topology(256, replicas, gpus)
    _, load = next(recorded_loads())
    load = load[::12].astype(float)
    plan = make_plan(load, topology, policy="refined")
    noise = 1 / 9_500 + 1 / 32_000  # of small decode batches
    result = place_for_split(
        Maps(plan.phy2log, plan.phyrank, plan.logcnt), load[None], topology, noise
    )
    share = load / load.sum(axis=1, keepdims=True)
    new = np.random.default_rng(2).gamma(share / noise, noise, (32, *share.shape))
    times = best_times(result.phy2log, topology, new)
    assert new.sum() / gpus / times.sum() > to_reach
