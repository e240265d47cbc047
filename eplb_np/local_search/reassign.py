"""Reassignment: a redundant slot goes to another expert. One fetch, where a swap takes two.

`best_reassignment` finds the best one for a GPU, and `reassign_slot` makes it. Mending also uses
`reassign_slot` to place lost experts and to fill empty slots.

Letters: expert ``a`` loses a replica, expert ``b`` gets one.
"""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.slot_table import SlotTable, add_up, gpu_time, replica_load
from eplb_np.maps.maps import EMPTY


@kernel
def reassign_slot(table: SlotTable, row: Int, g: Int, b: Int) -> None:
    """Put expert ``b`` into a slot, whether it is empty or holds another expert."""
    a = table.expert[row, g]
    table.expert[row, g] = b
    table.logcnt[b] += 1
    table.held[g, b] += 1
    if a != EMPTY:
        table.logcnt[a] -= 1
        table.held[g, a] -= 1
        _reload(table, a)
    _reload(table, b)
    add_up(table, g)


@kernel
def _reload(table: SlotTable, e: Int) -> None:
    """Update the loads of an expert's replicas after their number has changed."""
    if table.logcnt[e] == 0:
        return
    load = replica_load(table, e, table.logcnt[e])
    for g in range(table.size.shape[0]):
        if table.held[g, e] > 0:
            for row in range(table.size[g]):
                if table.expert[row, g] == e:
                    table.load[row, g] = load
            add_up(table, g)


@kernel
def best_reassignment(
    table: SlotTable, h: Int, fetches_left: Ints
) -> tuple[float, tuple[Int, Int, Int]]:
    """Find the reassignment after which GPU h ends soonest.

    Either a slot of another GPU takes one more replica of an expert of h, or h replaces a
    redundant replica by something light. Only GPUs with ``fetches_left`` [D] (or more entries,
    int64) above 0 take part.

    Returns a time, and the slot's row, its GPU and the expert to put there; the GPU is -1 if
    nothing helps. The time is the longest of h and of all GPUs that get slower, so a move with a
    time below h's present one never makes the longest time longer. It is never optimistic: a GPU
    that holds both experts is taken to get the rise of one and not the relief of the other.
    """
    _note_holders(table, h)
    best = gpu_time(table, h)
    found = (-1, -1, -1)
    most_held = table.most_held[0]
    slowest = 0.0  # scales any rise of load with the slowest GPU: never optimistic
    for g in range(table.size.shape[0]):
        if table.size[g] > 0:
            slowest = max(slowest, table.slowness[g])
    for g in range(table.size.shape[0]):
        if fetches_left[g] <= 0:
            continue
        for row in range(table.size[g]):
            a = table.expert[row, g]
            if a == EMPTY or table.logcnt[a] < 2:
                continue
            gone = table.load[row, g]
            rise = replica_load(table, a, table.logcnt[a] - 1) - gone
            if most_held > 1:
                others = _slowest_holder_time(table, a, rise, h, g)
            else:
                others = table.slowest_time[a]
                if table.slowest_holder[a] == g:
                    others = table.second_time[a]
                others += rise * slowest
            if others >= best:
                continue
            left = table.gpu_load[g] - gone + rise * (table.held[g, a] - 1)
            if g == h:
                for b in range(table.weight.shape[0]):
                    if table.held[h, b] >= most_held or table.logcnt[b] == 0 or b == a:
                        continue
                    came = replica_load(table, b, table.logcnt[b] + 1)
                    load = left + came
                    if table.held[h, b] > 0:
                        load -= (replica_load(table, b, table.logcnt[b]) - came) * table.held[h, b]
                    time = max(others, load * table.slowness[h])
                    if time < best:
                        best = time
                        found = (row, g, b)
                continue
            here = table.gpu_load[h] + rise * table.held[h, a]
            for own in range(table.size[h]):
                b = table.expert[own, h]
                if b in (EMPTY, a) or table.held[g, b] >= most_held:
                    continue
                came = replica_load(table, b, table.logcnt[b] + 1)
                relief = table.load[own, h] - came
                load = here - table.load[own, h] + came - relief * (table.held[h, b] - 1)
                time = max(others, load * table.slowness[h])
                load = left + came - relief * table.held[g, b]
                time = max(time, load * table.slowness[g])
                if time < best:
                    best = time
                    found = (row, g, b)
    return best, found


@kernel
def _slowest_holder_time(table: SlotTable, a: Int, rise: float, h: Int, g: Int) -> float:
    """Longest time of GPUs other than h and g that hold ``a``, after its replicas have grown."""
    longest = 0.0
    for k in range(table.size.shape[0]):
        if k not in (h, g) and table.held[k, a] > 0:
            time = (table.gpu_load[k] + rise * table.held[k, a]) * table.slowness[k]
            longest = max(longest, time)
    return longest


@kernel
def _note_holders(table: SlotTable, h: Int) -> None:
    """Note the two slowest GPUs, other than h, of each expert with more than one replica."""
    table.slowest_time[:] = -1.0
    table.second_time[:] = -1.0
    table.slowest_holder[:] = -1
    for g in range(table.size.shape[0]):
        if g == h:
            continue
        time = gpu_time(table, g)
        for row in range(table.size[g]):
            e = table.expert[row, g]
            if e != EMPTY and table.logcnt[e] > 1:
                if time > table.slowest_time[e]:
                    table.second_time[e] = table.slowest_time[e]
                    table.slowest_time[e] = time
                    table.slowest_holder[e] = g
                elif time > table.second_time[e]:
                    table.second_time[e] = time
