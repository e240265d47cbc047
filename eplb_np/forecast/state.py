"""What a forecast remembers, and the constants of its rules.

Letters: L layers, E logical experts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import double_table, doubles
from eplb_np._numba.jit import allocator
from eplb_np._numba.types import Doubles, Int, Ints

RECENT = 16
"""Windows that noise and typical totals are estimated from: enough for an error of 10 %, and few
enough to follow changes."""

STORED = 3
"""Earlier workloads remembered."""

CHANGE = 2.0
CHANGE_NOISE = 0.25
"""A window is a change point if the energy of the error exceeds ``CHANGE`` times the expected one
plus ``CHANGE_NOISE`` times the noise. Only the store depends on that; the gain does not."""

CAUTION = 2.0
"""Standard errors by which a surprise must stand out: matters for models with few experts."""

TREND_GAIN = 0.1
"""Share of each correction that goes into the trend: at a gain of 0.3 it remembers some 30
windows."""

TREND_FLOOR = 0.2
"""A trend may take away at most the rest of a share in one window, so that no share is negative."""

TREND_OVER = 0.6
"""If the filter with a trend has a gain above this, the trend is over."""

TREND_LEAD = 0.01
"""The trend is used only if it predicts better by this share of the noise."""

FRESHNESS = 0.15
"""Weight of the newest window in comparing the two filters: a memory of some 7 windows."""

SCORE_LIMIT = 4.0
"""Largest surprise, in noise energies, that counts there: one change must not decide for long."""

LEAST_NOISE = 1e-30
"""Identical windows have no noise; this avoids a division by zero."""

# Places in `ForecastState.value`.
ERROR, AHEAD_ERROR, LEVEL_SCORE, AHEAD_SCORE, NOISE, GAIN = range(6)
NUM_VALUES = 6

# Places in `ForecastState.counts`.
WINDOWS, COMPARED, UPDATES, NUM_STORED, RETURNED, STAYED = range(6)
PENDING, SWITCHED, RECALLED, USE_TREND = range(6, 10)
NUM_COUNTS = 10

SURE, BELIEVED, DOUBTED = range(3)
"""Values of ``counts[PENDING]``: the window before was no change point, a believed one or a doubted
one (see ``change_points.py``)."""

# Rows of `ForecastScratch.sums`: squares and fourth powers of the distances to both estimates,
# squares of the steps, and their products with the steps before.
LEVEL_2, LEVEL_4, AHEAD_2, AHEAD_4, STEP_2, BACK = range(6)
NUM_SUMS = 6


class ForecastState(NamedTuple):
    """All that is remembered: plain arrays, as many after a million windows as after one.

    An *energy* is a squared distance of shares, summed over the experts and averaged over the
    layers.
    """

    level: Doubles  # [L, E] float64, expected shares if the load stays as it is
    ahead: Doubles  # [L, E] float64, expected shares if the trend goes on
    trend: Doubles  # [L, E] float64, change of the shares per window
    last: Doubles  # [L, E] float64, shares of the layer's last window with load
    step: Doubles  # [L, E] float64, their change since the window before
    layer_total: Doubles  # [L] float64, typical load of the layer
    layer_windows: Ints  # [L] int64, windows in which the layer had load
    stored: Doubles  # [STORED, L, E] float64, levels of earlier workloads
    stored_error: Doubles  # [STORED] float64, energies of their errors
    stored_order: Ints  # [STORED] int64, places from the oldest to the newest, empty ones first
    change: Doubles  # [RECENT] float64, half the energies of the latest steps, a ring
    covariance: (
        Doubles  # [RECENT] float64, energies of the latest steps that the next ones took back
    )
    gain: Doubles  # [RECENT] float64, latest gains, a ring
    value: Doubles  # [NUM_VALUES] float64
    counts: Ints  # [NUM_COUNTS] int64


def make_forecast_state(num_layers: int, num_experts: int) -> ForecastState:
    """Allocate the state of a forecast that has seen nothing."""
    shape = (num_layers, num_experts)
    return ForecastState(
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(num_layers),
        np.zeros(num_layers, np.int64),
        np.zeros((STORED, *shape)),
        np.zeros(STORED),
        np.arange(STORED),
        np.zeros(RECENT),
        np.zeros(RECENT),
        np.zeros(RECENT),
        np.zeros(NUM_VALUES),
        np.zeros(NUM_COUNTS, np.int64),
    )


class ForecastScratch(NamedTuple):
    """Working memory of a call, for one window after another."""

    share: Doubles  # [E] float64, shares of one layer in the window
    sums: Doubles  # [NUM_SUMS, E] float64, running sums over the layers
    energy: Doubles  # [NUM_SUMS] float64, the same over the experts too
    total: Doubles  # [L] float64, load of each layer in the window
    ordered: Doubles  # [RECENT] float64


@allocator
def make_forecast_scratch(num_layers: Int, num_experts: Int) -> ForecastScratch:
    """Allocate a `ForecastScratch`."""
    return ForecastScratch(
        doubles(num_experts),
        double_table(NUM_SUMS, num_experts),
        doubles(NUM_SUMS),
        doubles(num_layers),
        doubles(RECENT),
    )
