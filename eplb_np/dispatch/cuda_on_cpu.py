"""The split in rounds by one thread: what `cuda` computes, byte for byte, on the CPU.

For checking a GPU. On a CPU `split_cpu` is faster. Letters as in `cuda_graph`.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.cuda_graph import RoundGraph, RoundSizes, carve_graph
from eplb_np.dispatch.cuda_rounds import (
    give_up,
    list_unreached,
    needed_step,
    needed_time,
    pass_on,
    reach_experts,
    reach_gpus,
    start_round,
)
from eplb_np.dispatch.cuda_steps import (
    RoundScratch,
    add_outside,
    add_up_step,
    bound_times,
    carve_scratch,
    empty_forest,
    fill_level,
    largest_step,
    read_counts,
    scratch_words,
    set_caps,
    write_slots,
)


@entry
def split_in_rounds(
    counts: Ints,
    sizes: RoundSizes,
    words: Ints,
    doubles: Doubles,
    most_rounds: Int,
    slot_load: Ints,
    done: Ints,
) -> None:
    """Split every layer of ``counts`` [L, E] int64, in at most ``most_rounds`` rounds each.

    ``words`` and ``doubles``: of the `RoundGraphs`. Out: ``slot_load`` [L, P] int64, and ``done``
    [L, 3] int64: rounds, steps between two barriers, levels of the searches.
    """
    memory = ints(scratch_words(sizes))
    s = carve_scratch(memory, memory.view(np.float64), sizes)
    for layer in range(counts.shape[0]):
        graph = carve_graph(words[layer], doubles[layer], sizes)
        done[layer] = 0
        start_flows(counts[layer], sizes, graph, s, done[layer])
        while done[layer, 0] < most_rounds and start_round(graph, s, 0, 1):
            make_round(sizes, graph, s, done[layer])
            done[layer, 0] += 1
        write_slots(graph, s, slot_load[layer], 0, 1)


@kernel
def start_flows(
    counts: Ints, sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, done: Ints
) -> None:
    """Set a lower bound, and fill the forest. Twin of the function of this name in `cuda`."""
    room = sizes.room
    read_counts(counts, graph, s, 0, 1)
    add_outside(graph, s, 0, 1)
    now: Int = 0
    after: Int = room
    reach: Int = 1
    done[1] += 5
    while reach < sizes.num_gpus:
        add_up_step(now, after, reach, s, 0, 1)
        now, after = after, now
        reach *= 2
        done[1] += 1
    bound_times(now, sizes, graph, s, 0, 1)
    half: Int = room
    while half > 0:
        largest_step(2 * room, half, s, 0, 1)
        half //= 2
        done[1] += 1
    set_caps(s.time[2 * room], sizes, graph, s, 0, 1)
    fill_forest(graph, s, done)


@kernel
def fill_forest(graph: RoundGraph, s: RoundScratch, done: Ints) -> None:
    """Fill the forest up to the caps. Twin of the function of this name in `cuda`."""
    for level in range(graph.size[2]):
        fill_level(level, graph, s, 0, 1)
        done[1] += 1


@kernel
def make_round(sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, done: Ints) -> None:
    """Search, and push or raise the caps. Twin of the function of this name in `cuda`."""
    level: Int = 0
    done[1] += 1
    while reach_experts(level, graph, s, 0, 1):
        done[1] += 2
        done[2] += 1
        if not reach_gpus(level, graph, s, 0, 1):
            list_unreached(sizes, graph, s, 0, 1)
            half = sizes.room // 2
            while half > 0:
                needed_step(half, sizes, s, 0, 1)
                half //= 2
                done[1] += 1
            set_caps(needed_time(sizes, s), sizes, graph, s, 0, 1)
            empty_forest(graph, s, 0, 1)
            fill_forest(graph, s, done)
            done[1] += 2
            return
        level += 1
    done[1] += 1
    while level > 0:
        give_up(level, graph, s, 0, 1)
        pass_on(level - 1, graph, s, 0, 1)
        level -= 1
        done[1] += 2
