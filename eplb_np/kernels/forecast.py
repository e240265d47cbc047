"""What the coming window will be: a filter over the windows seen so far.

Every window's shares are an unknown mean, which drifts and now and then jumps, plus noise. The
estimate moves towards each new window by a *gain* K = P / (P + R), as Kalman's filter does: R is
the noise energy of a window, P the energy of the estimate's error before it. Neither is a setting:

* R from the lag-one covariance of the steps from window to window: noise makes a step that the
  next one takes back, drift and jumps do not. A median over the latest windows keeps out the rest.
* P from the surprise: the distance of the new window to the estimate, less R, where that is more
  than the filter expected. With every window P falls to (1 - K) P.

So a steady load averages over all windows (K = 1 / n), drift shortens the memory to what is best
for its speed, and a change of workload makes the surprise large and K almost 1: history is cut
where it ought to be, as much as it ought to be, without a threshold. Energies are sums over
all layers and experts, ten thousand numbers, so their own noise is small, and allowed for where
it is not.

A jump stores the old estimate. After a later jump the stored estimate that the new window fits best
is taken up again, where it fits better: workloads that return are known at once, and a single odd
window does no lasting harm. Where odd windows are more frequent than changes, a jump is believed
from its second window on.

A second filter of the same kind carries a trend. The filter whose predictions have been better
lately is used.

A layer without load in a window says nothing about itself, and counts in no energy.

Letters: W windows, L layers, E logical experts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._jit import allocator, entry, kernel
from eplb_np._types import Doubles, Floats, Int, Ints
from eplb_np.kernels.forecast_state import (
    AHEAD_ERROR,
    AHEAD_SCORE,
    BELIEVED,
    CAUTION,
    COMPARED,
    DOUBTED,
    ERROR,
    FRESHNESS,
    GAIN,
    JUMP,
    LEAST_NOISE,
    LEVEL_SCORE,
    NOISE,
    NUM_STORED,
    PENDING,
    RECALLED,
    RECENT,
    RETURNED,
    SCORE_LIMIT,
    STAYED,
    STORED,
    SURE,
    SWITCHED,
    TREND_FLOOR,
    TREND_GAIN,
    TREND_LEAD,
    TREND_OVER,
    UPDATES,
    USE_TREND,
    WINDOWS,
    ForecastState,
)

# Rows of `Scratch.sums`: squares and fourth powers of the distances to both estimates, squares of
# the steps, and their products with the steps before.
LEVEL_2, LEVEL_4, AHEAD_2, AHEAD_4, STEP_2, BACK = range(6)
NUM_SUMS = 6


class Scratch(NamedTuple):
    """Working memory of `observe_windows`."""

    share: Doubles  # [E] float64, shares of one layer in the window
    sums: Doubles  # [NUM_SUMS, E] float64, running sums over the layers
    energy: Doubles  # [NUM_SUMS] float64, the same over the experts too
    total: Doubles  # [L] float64, load of each layer in the window
    ordered: Doubles  # [RECENT] float64


@allocator
def make_scratch(num_layers: Int, num_experts: Int) -> Scratch:
    """Allocate a `Scratch`."""
    return Scratch(
        np.empty(num_experts),
        np.empty((NUM_SUMS, num_experts)),
        np.empty(NUM_SUMS),
        np.empty(num_layers),
        np.empty(RECENT),
    )


# Loops over a row. Each touches so few arrays that the compiler can rule out overlaps and use
# vector instructions: one loop that does everything takes longer than five in a row. Sums over
# layers and experts are kept expert by expert until the end for the same reason, as a sum over a
# row could only be vectorised by adding in another order.


@kernel
def row_total(row: Doubles) -> float:
    """Sum of a row of any float type, in eight running sums: one alone waits at every step."""
    n = row.shape[0]
    a = b = c = d = e = f = g = h = 0.0
    for i in range(0, n - 7, 8):
        a += row[i]
        b += row[i + 1]
        c += row[i + 2]
        d += row[i + 3]
        e += row[i + 4]
        f += row[i + 5]
        g += row[i + 6]
        h += row[i + 7]
    for i in range(n - n % 8, n):
        a += row[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel
def scale_row(row: Doubles, factor: float, scaled: Doubles) -> None:
    """Multiply a row; by the reciprocal of its total, shares come out, faster than by division."""
    for e in range(row.shape[0]):
        scaled[e] = row[e] * factor


@kernel
def copy_row(source: Doubles, target: Doubles) -> None:
    """Copy a row; assigning whole arrays would make Numba allocate."""
    for e in range(source.shape[0]):
        target[e] = source[e]


@kernel
def add_distance(share: Doubles, estimate: Doubles, squares: Doubles, fourths: Doubles) -> None:
    """Add squares and fourth powers of the differences."""
    for e in range(share.shape[0]):
        difference = share[e] - estimate[e]
        square = difference * difference
        squares[e] += square
        fourths[e] += square * square


@kernel
def take_step(
    share: Doubles, last: Doubles, step: Doubles, squares: Doubles, back: Doubles
) -> None:
    """Note how the shares have changed, and what that takes back of the change before."""
    for e in range(share.shape[0]):
        change = share[e] - last[e]
        squares[e] += change * change
        back[e] -= change * step[e]
        step[e] = change
        last[e] = share[e]


@kernel
def move_level(level: Doubles, share: Doubles, gain: float) -> None:
    """Move an estimate towards the window."""
    for e in range(level.shape[0]):
        level[e] += gain * (share[e] - level[e])


@kernel
def move_ahead(ahead: Doubles, trend: Doubles, share: Doubles, gain: float) -> None:
    """Move the estimate with a trend towards the window, and on to the next one."""
    trend_gain = TREND_GAIN * gain
    for e in range(ahead.shape[0]):
        surprise = share[e] - ahead[e]
        slope = trend[e] + trend_gain * surprise
        level = ahead[e] + gain * surprise
        trend[e] = slope
        ahead[e] = max(level + slope, TREND_FLOOR * level)
    total = row_total(ahead)
    if total > 0.0:
        scale_row(ahead, 1.0 / total, ahead)


# Steps of the filter, over all layers.


@kernel
def add_up_energies(scratch: Scratch) -> None:
    """Sum over the experts what was summed over the layers."""
    sums, energy = scratch.sums, scratch.energy
    energy[:] = 0.0
    for e in range(sums.shape[1]):
        for k in range(NUM_SUMS):
            energy[k] += sums[k, e]


@kernel
def standard_error(fourth: float) -> float:
    """Return the standard error of a sum of squares, from the sum of the fourth powers.

    Of normal numbers: each square has variance 2 s**4, and E d**4 = 3 s**4.
    """
    return float(np.sqrt(2.0 / 3.0 * fourth))


@kernel
def read_window(state: ForecastState, load: Floats, scratch: Scratch) -> tuple[Int, float]:
    """Compare a window with both estimates and with the window before.

    Afterwards ``state.last`` holds its shares and ``scratch.energy`` the sums. Returns how many
    layers could be compared, and how much noisier than usual they are: a window of little
    traffic is, but one of much traffic is not trusted beyond the typical.
    """
    share, sums = scratch.share, scratch.sums
    sums[:] = 0.0
    compared = 0
    traffic = 0.0
    typical = 0.0
    for i in range(load.shape[0]):
        total = row_total(load[i])
        scratch.total[i] = total
        if total <= 0.0:
            continue
        scale_row(load[i], 1.0 / total, share)
        if state.layer_windows[i] == 0:
            meet_layer(state, i, share)
        else:
            add_distance(share, state.level[i], sums[LEVEL_2], sums[LEVEL_4])
            add_distance(share, state.ahead[i], sums[AHEAD_2], sums[AHEAD_4])
            take_step(share, state.last[i], state.step[i], sums[STEP_2], sums[BACK])
            compared += 1
            traffic += total
            typical += state.layer_total[i]
        state.layer_windows[i] += 1
        weight = 1.0 / min(state.layer_windows[i], RECENT)
        state.layer_total[i] += weight * (total - state.layer_total[i])
    add_up_energies(scratch)
    scale = 1.0
    if traffic > 0.0:
        scale = max(1.0, typical / traffic)
    return compared, scale


@kernel
def meet_layer(state: ForecastState, i: Int, share: Doubles) -> None:
    """Start a layer that had no load before, in the earlier workloads too."""
    copy_row(share, state.level[i])
    copy_row(share, state.ahead[i])
    copy_row(share, state.last[i])
    for place in range(STORED):
        copy_row(share, state.stored[place, i])


@kernel
def median(ring: Doubles, known: Int, ordered: Doubles) -> float:
    """Median of the first ``known`` entries, at least one, by insertion into ``ordered``."""
    for i in range(known):
        j = i
        while j > 0 and ordered[j - 1] > ring[i]:
            ordered[j] = ordered[j - 1]
            j -= 1
        ordered[j] = ring[i]
    return float(0.5 * (ordered[(known - 1) // 2] + ordered[known // 2]))


@kernel
def estimate_noise(state: ForecastState, step_2: float, back: float, ordered: Doubles) -> float:
    """R: noise energy of a typical window, from the latest steps and this one.

    At least half of what the steps would say if nothing but noise moved: with few experts
    the covariance may come out near zero or below.
    """
    steps = state.counts[COMPARED]
    state.change[steps % RECENT] = 0.5 * step_2
    changes = median(state.change, min(steps + 1, RECENT), ordered)
    noise = changes  # of two windows: believe that they are alike
    if steps > 0:
        state.covariance[(steps - 1) % RECENT] = back
        covariance = median(state.covariance, min(steps, RECENT), ordered)
        noise = max(covariance, 0.5 * changes)
    state.counts[COMPARED] += 1
    return max(noise, LEAST_NOISE)


@kernel
def settle(counts: Ints, newest_fits: bool) -> bool:
    """Learn from the window after a jump whether jumps stay.

    A jump that was followed stored the estimate before it, a doubted one stored the odd window:
    in both cases the newest thing stored is what this window goes back to, or goes on with.
    Returns whether there was a jump to learn about.
    """
    pending = counts[PENDING]
    if pending == SURE:
        return False
    stayed = newest_fits == (pending == DOUBTED)
    counts[STAYED if stayed else RETURNED] += 1
    counts[PENDING] = SURE
    return True


@kernel
def find_stored(
    state: ForecastState, scratch: Scratch, compared: Int, noise: float, error: float
) -> tuple[Int, float]:
    """Position in the order of the stored estimate that fits best, and the energy of its error.

    Position -1 where none fits better than ``error``; the older one where two fit equally well.
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
        surprise = (energy[LEVEL_2] - CAUTION * standard_error(energy[LEVEL_4])) / compared - noise
        theirs = max(state.stored_error[place], surprise)
        if theirs < error:
            error = theirs
            found = position
    return found, error


@kernel
def make_newest(state: ForecastState, position: Int) -> np.int64:
    """Move a stored estimate to the end of the order; returns its place."""
    order = state.stored_order
    place: np.int64 = order[position]
    for j in range(position, STORED - 1):
        order[j] = order[j + 1]
    order[STORED - 1] = place
    return place


@kernel
def store(state: ForecastState, error: float) -> np.int64:
    """Make room for an estimate, over the oldest; returns its place."""
    place = make_newest(state, 0)
    state.counts[NUM_STORED] = min(state.counts[NUM_STORED] + 1, STORED)
    state.stored_error[place] = error
    return place


@kernel
def jump(
    state: ForecastState, scratch: Scratch, compared: Int, noise: float, error: float
) -> float:
    """Store the estimate, or exchange it for a stored one that the window fits better.

    Returns the energy of the error to go on with, or -1 where the jump is left to the next window
    to confirm. An odd window is a jump that the very next window takes back.
    """
    value, counts = state.value, state.counts
    found, error = find_stored(state, scratch, compared, noise, error)
    newest = found == STORED - 1
    confirms = newest and counts[PENDING] == DOUBTED
    settled = settle(counts, newest) and newest  # goes back, or confirms the window before
    num_layers = state.level.shape[0]
    if not settled and counts[RETURNED] > counts[STAYED]:
        counts[PENDING] = DOUBTED
        if found >= 0:
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
    if found >= 0:
        # The stored window that a second one confirms is no earlier workload.
        counts[RECALLED] = 0 if confirms else 1
        place = make_newest(state, found)
        state.stored_error[place] = value[ERROR]
        for i in range(num_layers):
            copy_row(state.level[i], scratch.share)
            copy_row(state.stored[place, i], state.level[i])
            copy_row(scratch.share, state.stored[place, i])
    else:
        place = store(state, value[ERROR])
        for i in range(num_layers):
            copy_row(state.level[i], state.stored[place, i])
    return error


@kernel
def observe_window(state: ForecastState, load: Floats, scratch: Scratch) -> None:
    """Take in one window: ``load`` [L, E] float32."""
    value, counts, energy = state.value, state.counts, scratch.energy
    counts[SWITCHED] = 0
    counts[RECALLED] = 0
    compared, scale = read_window(state, load, scratch)
    if row_total(scratch.total) <= 0.0:
        return
    first = counts[WINDOWS] == 0
    counts[WINDOWS] += 1
    if compared == 0:
        if first:
            value[GAIN] = 1.0
        return
    unit = 1.0 / compared
    noise = estimate_noise(
        state, energy[STEP_2] * unit / scale, energy[BACK] * unit / scale, scratch.ordered
    )
    here = noise * scale  # in this window
    if counts[COMPARED] == 1:
        value[ERROR] = noise
        value[AHEAD_ERROR] = noise
    distance = energy[LEVEL_2] * unit
    doubt = standard_error(energy[LEVEL_4]) * unit
    ahead_distance = energy[AHEAD_2] * unit
    ahead_doubt = standard_error(energy[AHEAD_4]) * unit
    error = max(value[ERROR], distance - here - CAUTION * doubt)
    if counts[COMPARED] > 2 and error > JUMP * value[ERROR] + 0.25 * noise:
        error = jump(state, scratch, compared, here, error)
        if error < 0.0:
            return
    else:
        settle(counts, False)
    gain = error / (error + here)
    value[NOISE] = noise
    value[GAIN] = gain
    value[ERROR] = (1.0 - gain) * error
    state.gain[counts[UPDATES] % RECENT] = gain
    counts[UPDATES] += 1

    limit = SCORE_LIMIT * here
    value[LEVEL_SCORE] += FRESHNESS * (min(distance, limit) / here - value[LEVEL_SCORE])
    value[AHEAD_SCORE] += FRESHNESS * (min(ahead_distance, limit) / here - value[AHEAD_SCORE])
    error = max(value[AHEAD_ERROR], ahead_distance - here - CAUTION * ahead_doubt)
    ahead_gain = error / (error + here)
    if counts[SWITCHED] == 1 or ahead_gain > TREND_OVER:
        value[AHEAD_ERROR] = value[ERROR]
        value[AHEAD_SCORE] = value[LEVEL_SCORE]
        counts[USE_TREND] = 0
        move_without_trend(state, scratch.total, gain)
    else:
        value[AHEAD_ERROR] = (1.0 - ahead_gain) * error
        better = value[AHEAD_SCORE] < value[LEVEL_SCORE] - TREND_LEAD
        counts[USE_TREND] = 1 if better else 0
        for i in range(load.shape[0]):
            if scratch.total[i] > 0.0:
                move_level(state.level[i], state.last[i], gain)
                move_ahead(state.ahead[i], state.trend[i], state.last[i], ahead_gain)


@kernel
def move_without_trend(state: ForecastState, total: Doubles, gain: float) -> None:
    """Move the estimate towards the window, and forget the trend: whatever it was, it is over."""
    state.trend[:] = 0.0
    for i in range(total.shape[0]):
        if total[i] > 0.0:
            move_level(state.level[i], state.last[i], gain)
        copy_row(state.level[i], state.ahead[i])


@entry
def observe_windows(state: ForecastState, load: Floats) -> None:
    """Take in the windows of ``load`` [W, L, E] float32, oldest first; ``state`` is changed.

    Windows in one call or in many leave the same bytes. O(W L E), and after a jump up to
    `STORED` + 1 times as much for its window.
    """
    scratch = make_scratch(load.shape[1], load.shape[2])
    for window in range(load.shape[0]):
        observe_window(state, load[window], scratch)
