"""A sorted queue of keys in shared memory: built by a sort, kept sorted by all threads at once.

There are two queues in one array: each step reads one and writes the other. (With two arrays that
swap roles, the compiler could no longer tell that both are in shared memory.)

Twin of the winner tree in `cpu.py` and of the scan in `simd.py`.
"""

from __future__ import annotations

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.team import Team, larger, smaller
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Int, Ints
from eplb_np.stages.decisions import NEVER


@device
def end_queue(queues: Ints, now: Int, after: Int, length: Int, team: Team) -> None:
    """Write NEVER twice behind the last of ``length`` keys, in both queues."""
    if team.thread < 2:
        queues[at(now + length + team.thread)] = NEVER
        queues[at(after + length + team.thread)] = NEVER
    sync()


@device
def replace_two(
    queues: Ints, now: Int, after: Int, length: Int, own: Int, key: Int, then: Int, team: Team
) -> Int:
    """Replace a sorted queue's first key by ``key``, and the new first key by ``then``.

    Neither is smaller than the key that it replaces. The queue begins at ``queues[now]``,
    ascending; the result begins at ``queues[after]``. NEVER follows twice on the last key of both.
    ``own`` is the key at the thread's place; returns the key that is there afterwards.

    Only the first ``length`` threads call this. The others go straight to the barrier that
    follows, and do not keep the GPU busy.

    A systolic priority queue: each key looks at its neighbours and at the new keys, which tell
    what its place holds afterwards. So a step takes one barrier, however long the queue is. A
    minimum by halving would take a barrier per half, and a winner tree a load per level.
    """
    i = team.thread
    own = after_two(own, queues[at(now + i + 1)], queues[at(now + i + 2)], key, then)
    queues[at(after + i)] = own
    i += team.size
    while i < length:
        queues[at(after + i)] = after_two(
            queues[at(now + i)], queues[at(now + i + 1)], queues[at(now + i + 2)], key, then
        )
        i += team.size
    return own


@device
def after_two(own: Int, behind: Int, further: Int, key: Int, then: Int) -> Int:
    """Key in the place of ``own``, with two keys behind it, after both replacements."""
    own = smaller(behind, larger(own, key))
    behind = smaller(further, larger(behind, key))
    return smaller(behind, larger(own, then))
