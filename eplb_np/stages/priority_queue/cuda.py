"""A sorted queue of keys in shared memory: made by a sort, and kept sorted by all threads at once.

Queues are at two places of one array, now at one and after a step at the other. (Two arrays that
change roles would hide from the compiler that both are in shared memory.)
"""

from __future__ import annotations

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.team import Team, larger, smaller
from eplb_np._numba.types import Int, Ints
from eplb_np.stages.decisions import NEVER, at


@device
def end_queue(queues: Ints, now: Int, after: Int, length: Int, team: Team) -> None:
    """Let NEVER follow twice on the last of ``length`` keys, at both places."""
    if team.thread < 2:
        queues[at(now + length + team.thread)] = NEVER
        queues[at(after + length + team.thread)] = NEVER
    sync()


@device
def replace_two(
    queues: Ints, now: Int, after: Int, length: Int, own: Int, key: Int, then: Int, team: Team
) -> Int:
    """Put another key, not smaller, in the place of a sorted queue's first, and do so once more.

    What the first ``length`` threads do; others have nothing to do but to wait at the barrier
    behind it, and must not keep the GPU busy.

    The queue begins at ``queues[now]``, ascending, and will begin at ``queues[after]``; at both
    places NEVER follows twice on its last key. ``own`` is the key at the thread's place. Returns
    what is there then.

    A systolic priority queue: each key looks at its neighbours and at the new keys, and knows
    what stands in its place afterwards. So a step takes one barrier, however long the queue is; a
    minimum by halves would take one for each half, and a winner tree a load for each level.
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
    """Key that stands in the place of ``own``, with two behind it, once two keys were put in."""
    own = smaller(behind, larger(own, key))
    behind = smaller(further, larger(behind, key))
    return smaller(behind, larger(own, then))
