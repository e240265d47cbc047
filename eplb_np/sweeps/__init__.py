"""What to buy: balance against memory, for many numbers of GPUs, nodes and redundant experts."""

from eplb_np.sweeps.cases import Case, Grid, grid
from eplb_np.sweeps.measure import SweptCase
from eplb_np.sweeps.sweeping import Curve, Sweep, sweep

__all__ = ["Case", "Curve", "Grid", "Sweep", "SweptCase", "grid", "sweep"]
