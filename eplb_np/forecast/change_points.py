"""Change points: windows at which another workload begins, and the store of earlier workloads.

A change point is *believed* if the filter goes on with the new workload, or *doubted* if it waits
for the next window to confirm it. An *odd window* is a change that the next window takes back.

Letters: L layers, E logical experts.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.forecast.rows import add_distance, add_up_energies, copy_row, unexplained
from eplb_np.forecast.state import (
    BELIEVED,
    CHANGE,
    CHANGE_NOISE,
    DOUBTED,
    ERROR,
    LEVEL_2,
    LEVEL_4,
    NUM_STORED,
    PENDING,
    RECALLED,
    RETURNED,
    STAYED,
    STORED,
    SURE,
    SWITCHED,
    ForecastScratch,
    ForecastState,
)


@kernel
def is_change_point(error: float, expected: float, noise: float) -> bool:
    """Whether the energy of an estimate's error is too large for drift: another workload."""
    return bool(error > CHANGE * expected + CHANGE_NOISE * noise)


@kernel
def change_workload(
    state: ForecastState, scratch: ForecastScratch, compared: Int, noise: float, error: float
) -> float:
    """Store the estimate, and go on with a stored one if the window fits that better.

    If the window is no change point from the stored estimate, it is that workload, and the
    estimate in use takes its place in the store. Otherwise the stored one stays, or a new
    workload would push out the earlier one that it resembles most.

    Returns the energy of the error to go on with, or -1 if the change is doubted.
    """
    value, counts = state.value, state.counts
    found, error = find_stored(state, scratch, compared, noise, error)
    source = state.stored_order[max(found, 0)]
    returns = False
    if found >= 0:
        returns = not is_change_point(error, state.stored_error[source], noise)
    newest = returns and bool(found == STORED - 1)
    confirms = newest and counts[PENDING] == DOUBTED
    settled = settle(counts, newest) and newest  # takes the change before back, or confirms it
    num_layers = state.level.shape[0]
    if not settled and counts[RETURNED] > counts[STAYED]:
        counts[PENDING] = DOUBTED
        if returns:
            make_newest(state, found)
        else:
            place = store(state, noise)
            for i in range(num_layers):
                if scratch.total[i] > 0.0:
                    copy_row(state.last[i], state.stored[place, i])
                else:
                    copy_row(state.level[i], state.stored[place, i])
        return -1.0
    counts[SWITCHED] = 1
    if not settled:
        counts[PENDING] = BELIEVED
    if returns:
        # A window that confirms the one before returns to no earlier workload.
        counts[RECALLED] = 0 if confirms else 1
        place = make_newest(state, found)
        state.stored_error[place] = value[ERROR]
    else:
        place = store(state, value[ERROR])
    for i in range(num_layers):
        copy_row(state.level[i], scratch.share)
        if found >= 0:
            copy_row(state.stored[source, i], state.level[i])
        copy_row(scratch.share, state.stored[place, i])
    return error


@kernel
def find_stored(
    state: ForecastState, scratch: ForecastScratch, compared: Int, noise: float, error: float
) -> tuple[Int, float]:
    """Find the stored estimate that fits best: its position in the order, and its error's energy.

    The position is -1 if none fits better than the estimate in use, whose error has energy
    ``error``. A tie goes to the older one.
    """
    sums, energy = scratch.sums, scratch.energy
    found = -1
    for position in range(STORED - state.counts[NUM_STORED], STORED):
        place = state.stored_order[position]
        sums[:] = 0.0
        for i in range(scratch.total.shape[0]):
            if scratch.total[i] > 0.0:
                add_distance(state.last[i], state.stored[place, i], sums[LEVEL_2], sums[LEVEL_4])
        add_up_energies(scratch)
        theirs = state.stored_error[place]
        surprise = unexplained(energy[LEVEL_2], energy[LEVEL_4], compared, noise, theirs)
        theirs = max(theirs, surprise)
        if theirs < error:
            error = theirs
            found = position
    return found, error


@kernel
def settle(counts: Ints, newest_fits: bool) -> bool:
    """Learn from the window after a change point whether changes last.

    A believed change stored the estimate before it, a doubted one stored its own window. So if
    this window fits the newest stored estimate, it takes a believed change back, or confirms a
    doubted one. Returns whether there was a change to learn from.
    """
    pending = counts[PENDING]
    if pending == SURE:
        return False
    stayed = newest_fits == (pending == DOUBTED)
    counts[STAYED if stayed else RETURNED] += 1
    counts[PENDING] = SURE
    return True


@kernel
def store(state: ForecastState, error: float) -> np.int64:
    """Free the oldest estimate's place for a new one; returns the place."""
    place = make_newest(state, 0)
    state.counts[NUM_STORED] = min(state.counts[NUM_STORED] + 1, STORED)
    state.stored_error[place] = error
    return place


@kernel
def make_newest(state: ForecastState, position: Int) -> np.int64:
    """Move the estimate at ``position`` to the end of the order; returns its place in the store."""
    order = state.stored_order
    place: np.int64 = order[position]
    for j in range(position, STORED - 1):
        order[j] = order[j + 1]
    order[STORED - 1] = place
    return place
