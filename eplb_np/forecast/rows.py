"""Loops of the forecast over the experts of a layer.

Letters: L layers, E logical experts.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int
from eplb_np.forecast.state import CAUTION, NUM_SUMS, TREND_FLOOR, TREND_GAIN, ForecastScratch

# Each loop touches so few arrays that the compiler can rule out overlaps and use vector
# instructions. In one loop that does everything, it would not. For the same reason sums over layers
# and experts are kept expert by expert until the end: a sum along a row could only be vectorised by
# adding in another order.


@kernel
def row_total(row: Doubles) -> float:
    """Sum a row of any float type, with eight running sums: a single one waits at every step."""
    n = row.shape[0]
    a = b = c = d = e = f = g = h = 0.0
    for i in range(0, n - 7, 8):
        a += np.float64(row[i])
        b += np.float64(row[i + 1])
        c += np.float64(row[i + 2])
        d += np.float64(row[i + 3])
        e += np.float64(row[i + 4])
        f += np.float64(row[i + 5])
        g += np.float64(row[i + 6])
        h += np.float64(row[i + 7])
    for i in range(n - n % 8, n):
        a += np.float64(row[i])
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel
def scale_row(row: Doubles, factor: float, scaled: Doubles) -> None:
    """Multiply a row; with the reciprocal of its total that gives shares, faster than division."""
    for e in range(row.shape[0]):
        scaled[e] = np.float64(row[e]) * factor


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
    """Note how the shares have changed, and how much of the change before that takes back."""
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


@kernel
def add_up_energies(scratch: ForecastScratch) -> None:
    """Sum over the experts what has been summed over the layers."""
    sums, energy = scratch.sums, scratch.energy
    energy[:] = 0.0
    for e in range(sums.shape[1]):
        for k in range(NUM_SUMS):
            energy[k] += sums[k, e]


@kernel
def unexplained(squares: float, fourths: float, compared: Int, noise: float, error: float) -> float:
    """Return the part of a distance that neither noise nor chance explains, per layer compared.

    Chance is some standard errors of the distance that is expected from the ``noise`` of the
    window and the ``error`` of the estimate. A sum of squares of normal numbers has a variance of
    2 s**4 per number, and E d**4 = 3 s**4, which gives its relative standard error. A distance
    larger than expected must not raise what is expected, so the error is scaled down for it.
    """
    distance = squares / compared
    doubt = CAUTION * np.sqrt(2.0 / 3.0 * fourths) / compared
    if distance > noise + error:
        doubt *= (noise + error) / distance
    return float(distance - doubt - noise)
