"""Replica allocation for many short rows, in SIMD batches.

Twin of `cpu.py`, which allocates one row, and of `cuda.py`. Letters: X rows, E logical experts.
"""

from __future__ import annotations

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import heaviest_first, key_index
from eplb_np.stages.priority_queue.simd import pad_keys, smallest_keys
from eplb_np.stages.replication.decisions import grant_quotient
from eplb_np.stages.simd_batch import WIDTH, Batch


@kernel
def allocate_batch(
    num_rows: Int,
    weight: Floats,
    num_extra: Int,
    num_tail: Int,
    count: Ints,
    granted: Ints,
    batch: Batch,
) -> None:
    """`allocate_replicas` for every row of ``weight`` [X, E].

    Out: ``count`` [X, E], ``granted`` [X, num_extra]. O(X E num_extra).
    """
    num_experts = weight.shape[1]
    num_keys = pad_keys(num_experts, batch.key)
    for r in range(num_rows):
        for e in range(num_experts):
            batch.weight[at(e * WIDTH + r)] = weight[at(r), at(e)]
    for i in range(num_experts * WIDTH):
        batch.tally[at(i)] = 1
    num_adams = num_extra - num_tail
    for step in range(num_extra):
        adams = bool(step < num_adams)
        if step == 0 or step == num_adams:
            for e in range(num_experts):
                for r in range(WIDTH):
                    place = at(e * WIDTH + r)
                    quotient = grant_quotient(batch.weight[place], batch.tally[place], adams)
                    batch.key[place] = heaviest_first(quotient, e)
        smallest_keys(batch.key, num_keys, batch.best)
        for r in range(num_rows):
            winner = key_index(batch.best[at(r)])
            place = at(winner * WIDTH + r)
            granted[at(r), at(step)] = winner
            batch.tally[place] += 1
            quotient = grant_quotient(batch.weight[place], batch.tally[place], adams)
            batch.key[place] = heaviest_first(quotient, winner)
    for r in range(num_rows):
        for e in range(num_experts):
            count[at(r), at(e)] = batch.tally[at(e * WIDTH + r)]
