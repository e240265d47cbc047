"""The filter: an estimate of the coming window's shares, from the windows seen so far.

The shares of a window are an unknown mean plus noise. The mean drifts, and changes suddenly now and
then. The estimate moves towards each new window by a *gain* K = P / (P + R), as Kalman's filter
does: R is the noise energy of a window, P the energy of the estimate's error before it. Neither is
a setting:

* R comes from the lag-one covariance of the steps from window to window. Noise makes a step that
  the next one takes back; drift and changes do not. A median over the latest windows removes
  outliers.
* P comes from the surprise: the distance of the new window to the estimate, less R, if that is more
  than the filter expected. With every window P falls to (1 - K) P.

So a steady load is averaged over all windows (K = 1 / n), drift shortens the memory to what is best
for its speed, and a change of workload makes the surprise large and K almost 1. History is cut off
where it should be, and by as much as it should be, without a threshold. Energies are sums over all
layers and experts, ten thousand numbers, so their own noise is small; where it is not, it is
allowed for.

At a change point (``change_points.py``) the old estimate is stored. After a later one, the filter
goes back to the stored estimate that fits the new window best, if it fits better than the estimate
in use. So workloads that return are known at once, and a single odd window does no lasting harm. If
odd windows are more frequent than changes of workload, a change is believed only after a second
window confirms it.

A second filter of the same kind carries a trend. The filter that has predicted better lately is
used.

A layer without load in a window says nothing about itself and counts in no energy.

Letters: W windows, L layers, E logical experts.
"""

from __future__ import annotations

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Floats, Int
from eplb_np.forecast.change_points import change_workload, is_change_point, settle
from eplb_np.forecast.rows import (
    add_distance,
    add_up_energies,
    copy_row,
    move_ahead,
    move_level,
    row_total,
    scale_row,
    take_step,
    unexplained,
)
from eplb_np.forecast.state import (
    AHEAD_2,
    AHEAD_4,
    AHEAD_ERROR,
    AHEAD_SCORE,
    BACK,
    COMPARED,
    ERROR,
    FRESHNESS,
    GAIN,
    LEAST_NOISE,
    LEVEL_2,
    LEVEL_4,
    LEVEL_SCORE,
    NOISE,
    RECALLED,
    RECENT,
    SCORE_LIMIT,
    STEP_2,
    STORED,
    SWITCHED,
    TREND_LEAD,
    TREND_OVER,
    UPDATES,
    USE_TREND,
    WINDOWS,
    ForecastScratch,
    ForecastState,
    make_forecast_scratch,
)


@entry
def observe_windows(state: ForecastState, load: Floats) -> None:
    """Take in the windows of ``load`` [W, L, E] float32, oldest first, and change ``state``.

    One call or many leave the same bytes. O(W L E); a window at a change point takes up to
    `STORED` + 1 times as long.
    """
    scratch = make_forecast_scratch(load.shape[1], load.shape[2])
    for window in range(load.shape[0]):
        observe_window(state, load[window], scratch)


@kernel
def observe_window(state: ForecastState, load: Floats, scratch: ForecastScratch) -> None:
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
    ahead_distance = energy[AHEAD_2] * unit
    error = value[ERROR]
    surprise = unexplained(energy[LEVEL_2], energy[LEVEL_4], compared, here, error)
    error = max(error, surprise)
    ahead_error = value[AHEAD_ERROR]
    surprise = unexplained(energy[AHEAD_2], energy[AHEAD_4], compared, here, ahead_error)
    ahead_error = max(ahead_error, surprise)
    if counts[COMPARED] > 2 and is_change_point(error, value[ERROR], noise):
        error = change_workload(state, scratch, compared, here, error)
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
    ahead_gain = ahead_error / (ahead_error + here)
    if counts[SWITCHED] == 1 or ahead_gain > TREND_OVER:
        value[AHEAD_ERROR] = value[ERROR]
        value[AHEAD_SCORE] = value[LEVEL_SCORE]
        counts[USE_TREND] = 0
        move_without_trend(state, scratch.total, gain)
    else:
        value[AHEAD_ERROR] = (1.0 - ahead_gain) * ahead_error
        better = value[AHEAD_SCORE] < value[LEVEL_SCORE] - TREND_LEAD
        counts[USE_TREND] = 1 if better else 0
        for i in range(load.shape[0]):
            if scratch.total[i] > 0.0:
                move_level(state.level[i], state.last[i], gain)
                move_ahead(state.ahead[i], state.trend[i], state.last[i], ahead_gain)


@kernel
def read_window(state: ForecastState, load: Floats, scratch: ForecastScratch) -> tuple[Int, float]:
    """Compare a window with both estimates and with the window before.

    Afterwards ``state.last`` holds its shares and ``scratch.energy`` the sums. Returns how many
    layers could be compared, and how much noisier than usual the window is. Little traffic makes
    a window noisier; one with much traffic is trusted no more than a typical one.
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
    """Start a layer that had no load before, in the stored estimates too."""
    copy_row(share, state.level[i])
    copy_row(share, state.ahead[i])
    copy_row(share, state.last[i])
    for place in range(STORED):
        copy_row(share, state.stored[place, i])


@kernel
def estimate_noise(state: ForecastState, step_2: float, back: float, ordered: Doubles) -> float:
    """R: noise energy of a typical window, from the latest steps and this one.

    At least half of what it would be if the steps were nothing but noise: with few experts the
    covariance may be near zero or negative.
    """
    steps = state.counts[COMPARED]
    state.change[steps % RECENT] = 0.5 * step_2
    changes = median(state.change, min(steps + 1, RECENT), ordered)
    noise = changes  # with two windows only: assume that nothing but noise has changed
    if steps > 0:
        state.covariance[(steps - 1) % RECENT] = back
        covariance = median(state.covariance, min(steps, RECENT), ordered)
        noise = max(covariance, 0.5 * changes)
    state.counts[COMPARED] += 1
    return max(noise, LEAST_NOISE)


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
def move_without_trend(state: ForecastState, total: Doubles, gain: float) -> None:
    """Move the estimate towards the window, and forget the trend, which is over."""
    state.trend[:] = 0.0
    for i in range(total.shape[0]):
        if total[i] > 0.0:
            move_level(state.level[i], state.last[i], gain)
        copy_row(state.level[i], state.ahead[i])
