"""Exponential and logarithm by the four operations alone, so that all machines agree to the bit.

Those of the system's library differ from version to version in the last bit, which may decide
between two moves. Ranks that plan for themselves, each on its own machine, need the same plan.

Both are within 2 units in the last place. Method: argument reduction as in fdlibm (Sun
Microsystems, 1993), then plain Taylor series, whose rest is below 1e-17.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np

from eplb_np._numba.jit import kernel

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01
"""The first 33 bits of log(2), so that its products with exponents are exact."""
LN2_LOW = 1.90821492927058770002e-10
SQRT_HALF = 0.7071067811865476

SHIFT = 5
PARTS = 1 << SHIFT
EXACT = Context(prec=40)
"""That of the thread may be anybody's."""
ROOTS = np.array(
    [float(EXACT.power(Decimal(2), EXACT.divide(Decimal(i), Decimal(PARTS)))) for i in range(PARTS)]
)
LOG_ODD = tuple(1.0 / i for i in range(23, 1, -4))
LOG_EVEN = tuple(1.0 / i for i in range(25, 3, -4))
LEAST_POWER = -1075
POWERS = np.array([math.ldexp(1.0, k) for k in range(LEAST_POWER, 1024)])

LEAST, MOST = -745.2, 709.0
"""Below and above, the exponential is zero and infinite."""


@kernel
def exp(x: float) -> float:
    """Exponential function. NaN gives NaN."""
    if not x >= LEAST:
        return 0.0 if x < LEAST else x
    if x > MOST:
        return np.inf
    parts = math.floor(x * (PARTS * LOG2_E) + 0.5)  # of a power of two
    r = (x - parts * (LN2_HIGH / PARTS)) - parts * (LN2_LOW / PARTS)
    square = r * r
    odd = 1.0 + square * (1.0 / 6.0 + square * (1.0 / 120.0))
    even = square * (0.5 + square * (1.0 / 24.0 + square * (1.0 / 720.0)))
    root = ROOTS[int(parts) & (PARTS - 1)]
    return float((root + root * (odd * r + even)) * POWERS[(int(parts) >> SHIFT) - LEAST_POWER])


@kernel
def log(x: float) -> float:
    """Natural logarithm of a number that is not negative."""
    if not 0.0 < x < np.inf:
        return -np.inf if x == 0.0 else x
    mantissa, power = math.frexp(x)
    if mantissa < SQRT_HALF:
        mantissa *= 2.0
        power -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    fourth = square * square
    even = 0.0
    odd = 0.0
    for i in range(len(LOG_EVEN)):
        even = even * fourth + LOG_EVEN[i]
        odd = odd * fourth + LOG_ODD[i]
    rest = (odd + even * square) * square
    return power * LN2_HIGH + (2.0 * s + (2.0 * s * rest + power * LN2_LOW))
