"""Replica allocation in SIMD batches."""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import (
    adams_quotient,
    at,
    heaviest_first,
    key_index,
    sainte_lague_quotient,
)
from eplb_np.stages.priority_queue.simd import pad_keys, smallest_keys
from eplb_np.stages.simd_batch import WIDTH, Batch


@kernel
def allocate_batch(
    num_rows: Int,
    weight: Floats,
    num_extra: Int,
    num_tail: Int,
    count: Ints,
    granted: Ints,
    lanes: Batch,
) -> None:
    """`allocate_replicas` for every row of ``weight`` [X, E].

    Out: ``count`` [X, E], ``granted`` [X, num_extra]. O(X E num_extra).
    """
    num_experts = weight.shape[1]
    num_keys = pad_keys(num_experts, lanes.key)
    for r in range(num_rows):
        for e in range(num_experts):
            lanes.weight[at(e * WIDTH + r)] = weight[at(r), at(e)]
    for e in range(num_experts):
        for r in range(WIDTH):
            place = at(e * WIDTH + r)
            lanes.tally[place] = 1
            lanes.key[place] = heaviest_first(lanes.weight[place], e)
    num_adams = num_extra - num_tail
    for step in range(num_extra):
        if step == num_adams:
            for e in range(num_experts):
                for r in range(WIDTH):
                    place = at(e * WIDTH + r)
                    quotient = sainte_lague_quotient(lanes.weight[place], lanes.tally[place])
                    lanes.key[place] = heaviest_first(quotient, e)
        smallest_keys(lanes.key, num_keys, lanes.best)
        for r in range(num_rows):
            winner = key_index(lanes.best[at(r)])
            place = at(winner * WIDTH + r)
            granted[at(r), at(step)] = winner
            lanes.tally[place] += 1
            if step < num_adams:
                quotient = adams_quotient(lanes.weight[place], lanes.tally[place])
            else:
                quotient = sainte_lague_quotient(lanes.weight[place], lanes.tally[place])
            lanes.key[place] = heaviest_first(quotient, winner)
    for r in range(num_rows):
        for e in range(num_experts):
            count[at(r), at(e)] = lanes.tally[at(e * WIDTH + r)]
