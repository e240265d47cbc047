"""Layers of a plan made for the best split, one after another.

Letters: W windows, L layers, E logical experts, P slots, D GPUs, S samples.
"""

from __future__ import annotations

from eplb_np._numba.arrays import double_table, doubles, int_table, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.cuts import make_cuts
from eplb_np.dispatch.placement.flows import make_flows
from eplb_np.dispatch.placement.generator import next_number, seed_generator
from eplb_np.dispatch.placement.layer import MOST, MOVE_SIZE, Layer, fill_layer, longest_even_time
from eplb_np.dispatch.placement.parts import make_parts, separate_node
from eplb_np.dispatch.placement.samples import draw_samples
from eplb_np.dispatch.placement.search import Search, climb, start_search
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.topology import Gpus

EVEN_SLACK = 1.02
"""With an even split of the forecast, the slowest GPU may take longer by this factor than it does
with the plan to start from. Without that limit, balancedness at 288 replicas on 32 GPUs fell from
0.923 to 0.865 with an even split, and from 0.9994 to 0.9977 with the best one, as moves are wasted
that are bad for both."""

SLACK_OF_PARTS = 1.04
"""The same for plans of two parts, against the first plan in two parts."""

WIDENING = 1.4
"""Samples are drawn with this many times the standard deviation. A plan fits those it is made for
better than others, and this makes up for it."""

LADDER = 1.25
STEPS = 2
"""Samples are drawn anew as often as this, each time wider by the factor: where all of the first
ones are split evenly, there is still something to gain."""

WIDENING_OF_PARTS = 1.2
"""The same for plans of two parts, for which there is no ladder: with GPUs on their own, no sample
is ever split evenly."""

SEEDS = STEPS + 2
"""Seeds of a layer."""

MORE_REPLICAS = 8
"""An expert may get so many replicas more than the one that has most."""

NODES, SAMPLES, WORK, CERTAIN, MOST_REPLICAS, BRIDGES, FIRST_LAYER = range(7)


@entry
def place_layers(
    load: Doubles, gpus: Gpus, noise: float, sizes: Ints, home: Ints, maps: Maps
) -> None:
    """Improve the plans of L layers.

    Parameters
    ----------
    load : [L, W, E] float64
        Windows that may come.
    gpus : Gpus
        The GPUs.
    noise : float
        Variance of a share over the share.
    sizes : [7] int64
        Nodes that groups are whole on; samples; work; whether all batches are certain to be split;
        replicas of the expert that has most; bridges; the number of the first layer, which seeds
        it.
    home : [L, E] int64
        Lowest GPU of the node of each expert's group; counts only if there may be bridges.
    maps : Maps
        In and out.
    """
    phy2log, phyrank, logcnt = maps
    num_layers, num_windows, num_experts = load.shape
    num_gpus = gpus.size.shape[0]
    most = sizes[MOST_REPLICAS] + MORE_REPLICAS
    share = double_table(num_windows, num_experts)
    slot_of = ints(phy2log.shape[1])
    for i in range(num_layers):
        num_slots = list_slots(phy2log[i], gpus, slot_of)
        search = make_search(num_slots, num_gpus, num_experts, most, sizes[SAMPLES])
        take_plan(search.layer, phy2log[i], slot_of, gpus, sizes[NODES])
        allow_bridges(search.layer, home[i], sizes[BRIDGES])
        speed = take_load(search.layer, load[i], share)
        if speed > 0.0:
            _place_layer(search, share, noise, speed, sizes, sizes[FIRST_LAYER] + i)
        for j in range(num_slots):
            phy2log[i, slot_of[j]] = search.layer.expert[j]
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def _place_layer(
    search: Search, share: Doubles, noise: float, speed: float, sizes: Ints, seed: Int
) -> None:
    """Improve the plan; and where that is allowed and better, make one of two parts.

    Nodes that bridges connect are not planned in parts.
    """
    layer, saved = search.layer, search.saved
    work = sizes[WORK]
    fill_layer(layer)
    if sizes[CERTAIN] == 0 or sizes[BRIDGES] > 0:
        _improve(search, share, noise * WIDENING**2, LADDER**2, speed, work, seed, EVEN_SLACK)
        return
    _copy(layer.expert, saved)
    if not _separate(search, share, noise, speed, sizes[NODES], seed):
        _improve(search, share, noise * WIDENING**2, LADDER**2, speed, work, seed, EVEN_SLACK)
        return
    _improve(
        search, share, noise * WIDENING_OF_PARTS**2, 1.0, speed, work // 2, seed, SLACK_OF_PARTS
    )
    time = _judge(search, share, noise, speed, seed)
    for slot in range(saved.shape[0]):
        layer.expert[slot], saved[slot] = saved[slot], layer.expert[slot]
    _number_nodes(layer, sizes[NODES])
    fill_layer(layer)
    _improve(search, share, noise * WIDENING**2, LADDER**2, speed, work // 2, seed, EVEN_SLACK)
    if _judge(search, share, noise, speed, seed) > time:
        _copy(saved, layer.expert)


@kernel
def _improve(
    search: Search,
    share: Doubles,
    noise: float,
    ladder: float,
    speed: float,
    work: Int,
    seed: Int,
    slack: float,
) -> None:
    """Move replicas, for samples that are drawn anew in each step."""
    layer = search.layer
    layer.longest[0] = longest_even_time(layer) * slack
    for step in range(STEPS):
        drawn = SEEDS * seed + step
        draw_samples(share, noise, speed, drawn, search.state, search.sample)
        climb(search, start_search(search), work)
        noise *= ladder


@kernel
def _separate(
    search: Search, share: Doubles, noise: float, speed: float, num_nodes: Int, seed: Int
) -> bool:
    """Plan in two parts the nodes where that can be done; returns whether there are any."""
    layer = search.layer
    draw_samples(share, noise, speed, SEEDS * seed + STEPS, search.state, search.sample)
    node_gpus = layer.node.shape[0] // num_nodes
    separated = False
    for n in range(num_nodes):
        start, end = n * node_gpus, (n + 1) * node_gpus
        if separate_node(layer, search.sample, start, end, search.parts):
            separated = True
    return separated


@kernel
def _judge(search: Search, share: Doubles, noise: float, speed: float, seed: Int) -> float:
    """Sum of the times of samples that the plan was not made for."""
    draw_samples(share, noise, speed, SEEDS * seed + STEPS + 1, search.state, search.sample)
    return start_search(search)


@kernel
def _copy(source: Ints, target: Ints) -> None:
    for slot in range(source.shape[0]):
        target[slot] = source[slot]


@kernel
def list_slots(phy2log: Ints, gpus: Gpus, slot_of: Ints) -> Int:
    """List the slots that are not empty; returns their number."""
    number: Int = 0
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if phy2log[slot] != EMPTY:
                slot_of[number] = slot
                number += 1
    return number


@kernel
def take_plan(layer: Layer, phy2log: Ints, slot_of: Ints, gpus: Gpus, num_nodes: Int) -> None:
    """Take over a plan and the GPUs."""
    num_gpus = gpus.size.shape[0]
    num_slots = layer.gpu.shape[0]
    j: Int = 0
    for g in range(num_gpus):
        layer.first[g] = j
        while j < num_slots and slot_of[j] < gpus.first_slot[g + 1]:
            layer.gpu[j] = g
            layer.expert[j] = phy2log[slot_of[j]]
            j += 1
        layer.slowness[g] = gpus.slowness[g]
    layer.first[num_gpus] = j
    _number_nodes(layer, num_nodes)


@kernel
def allow_bridges(layer: Layer, home: Ints, most: Int) -> None:
    """Set how many slots may hold experts of other nodes' groups, and where these are at home."""
    layer.bridges[MOST] = most
    for e in range(home.shape[0]):
        layer.home[e] = home[e]


@kernel
def _number_nodes(layer: Layer, num_nodes: Int) -> None:
    num_gpus = layer.node.shape[0]
    for g in range(num_gpus):
        layer.node[g] = g - g % (num_gpus // num_nodes)


@kernel
def take_load(layer: Layer, load: Doubles, share: Doubles) -> float:
    """Scale windows to shares, and their mean to the GPUs' speed, which is returned, or 0.

    A window without load counts as one in which all experts are alike. Without any load, there is
    nothing to plan for.
    """
    num_windows, num_experts = load.shape
    speed = 0.0
    for g in range(layer.slowness.shape[0]):
        if layer.first[g] < layer.first[g + 1]:
            speed += 1.0 / layer.slowness[g]
    for e in range(num_experts):
        layer.weight[e] = 0.0
    used = False
    for w in range(num_windows):
        total = 0.0
        for e in range(num_experts):
            total += load[w, e]
        used = used or total > 0.0
        for e in range(num_experts):
            share[w, e] = load[w, e] / total if total > 0.0 else 1.0 / num_experts
            layer.weight[e] += share[w, e] * speed / num_windows
    return speed if used else 0.0


@allocator
def make_search(
    num_slots: Int, num_gpus: Int, num_experts: Int, most: Int, num_samples: Int
) -> Search:
    """Allocate the working memory of a layer's search."""
    layer = Layer(
        ints(num_slots), ints(num_gpus + 1), ints(num_gpus), doubles(num_gpus),
        ints(num_experts), ints(2), ints(num_slots), ints(num_experts),
        int_table(num_experts, most), doubles(num_experts), doubles(num_gpus), doubles(1),
    )  # fmt: skip
    search = Search(
        layer, double_table(num_experts, num_samples),
        make_flows(num_slots, num_gpus, num_experts, num_samples),
        make_cuts(num_gpus, num_experts, num_samples),
        make_parts(num_gpus, num_experts),
        doubles(num_samples), ints(num_samples), ints(num_gpus), ints(1), ints(MOVE_SIZE),
        ints(1), ints(num_slots),
    )  # fmt: skip
    layer.bridges[MOST] = 0
    seed_generator(search.state, 1)
    for g in range(num_gpus):
        search.cuts.gpu_key[g] = (next_number(search.state) << 20) ^ next_number(search.state)
    return search
