"""Giving a redundant slot to another expert: one fetch, where a swap takes two."""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.slot_table import SlotTable, add_up, replica_load
from eplb_np.maps.maps import EMPTY


@kernel
def reassign_slot(grid: SlotTable, row: Int, g: Int, b: Int) -> None:
    """Put expert ``b`` into a slot, in the place of what it held (or of nothing)."""
    a = grid.expert[row, g]
    grid.expert[row, g] = b
    grid.logcnt[b] += 1
    grid.held[g, b] += 1
    if a != EMPTY:
        grid.logcnt[a] -= 1
        grid.held[g, a] -= 1
        _reload(grid, a)
    _reload(grid, b)
    add_up(grid, g)


@kernel
def _reload(grid: SlotTable, e: Int) -> None:
    """Bring the replicas of an expert whose count has changed up to date."""
    if grid.logcnt[e] == 0:
        return
    load = replica_load(grid.weight[e], grid.logcnt[e], grid.margin[0])
    for g in range(grid.size.shape[0]):
        if grid.held[g, e] > 0:
            for row in range(grid.size[g]):
                if grid.expert[row, g] == e:
                    grid.load[row, g] = load
            add_up(grid, g)


@kernel
def best_reassignment(grid: SlotTable, h: Int, budget: Ints) -> tuple[float, tuple[Int, Int, Int]]:
    """Redundant slot to give to another expert so that GPU h is done soonest.

    Either a slot of another GPU takes one more replica of an expert of h, or a slot of h gives up
    a redundant replica for something light. The time is the longest of all GPUs that get slower
    and h, so a gift below h's time never makes the longest longer. Returns time, row, GPU, expert;
    the GPU is -1 where nothing helps. (Holders of both experts are taken as if only the rise
    reached them: never optimistic.)
    """
    _note_holders(grid, h)
    margin = grid.margin[0]
    best = grid.gpu_load[h] * grid.slowness[h]
    found = (-1, -1, -1)
    slowest = 0.0  # slowness of the slowest GPU scales a rise of load: never optimistic
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            slowest = max(slowest, grid.slowness[g])
    for g in range(grid.size.shape[0]):
        if budget[g] <= 0:
            continue
        for row in range(grid.size[g]):
            a = grid.expert[row, g]
            if a == EMPTY or grid.logcnt[a] < 2:
                continue
            gone = grid.load[row, g]
            rise = replica_load(grid.weight[a], grid.logcnt[a] - 1, margin) - gone
            others = grid.second_time[a] if grid.slowest_holder[a] == g else grid.slowest_time[a]
            others += rise * slowest
            if others >= best:
                continue
            if g == h:
                for b in range(grid.weight.shape[0]):
                    if grid.held[h, b] > 0 or grid.logcnt[b] == 0:
                        continue
                    came = replica_load(grid.weight[b], grid.logcnt[b] + 1, margin)
                    time = max(others, (grid.gpu_load[h] - gone + came) * grid.slowness[h])
                    if time < best:
                        best = time
                        found = (row, g, b)
                continue
            here = grid.gpu_load[h] + (rise if grid.held[h, a] > 0 else 0.0)
            for own in range(grid.size[h]):
                b = grid.expert[own, h]
                if b in (EMPTY, a) or grid.held[g, b] > 0:
                    continue
                came = replica_load(grid.weight[b], grid.logcnt[b] + 1, margin)
                time = max(others, (here - grid.load[own, h] + came) * grid.slowness[h])
                time = max(time, (grid.gpu_load[g] - gone + came) * grid.slowness[g])
                if time < best:
                    best = time
                    found = (row, g, b)
    return best, found


@kernel
def _note_holders(grid: SlotTable, h: Int) -> None:
    """Note the two slowest GPUs, other than h, of each expert with more than one replica."""
    grid.slowest_time[:] = -1.0
    grid.second_time[:] = -1.0
    grid.slowest_holder[:] = -1
    for g in range(grid.size.shape[0]):
        if g == h:
            continue
        time = grid.gpu_load[g] * grid.slowness[g]
        for row in range(grid.size[g]):
            e = grid.expert[row, g]
            if e != EMPTY and grid.logcnt[e] > 1:
                if time > grid.slowest_time[e]:
                    grid.second_time[e] = grid.slowest_time[e]
                    grid.slowest_time[e] = time
                    grid.slowest_holder[e] = g
                elif time > grid.second_time[e]:
                    grid.second_time[e] = time
