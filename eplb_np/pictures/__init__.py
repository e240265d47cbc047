"""Pictures of loads, plans, replays, sweeps and splits, drawn by Matplotlib.

Each function returns a ``matplotlib.figure.Figure``, which a notebook shows by itself. Matplotlib
is imported only when a picture is drawn, pyplot and its global state never: pictures can be drawn
in any thread.
"""

from eplb_np.pictures.batches import split_batch
from eplb_np.pictures.expert_loads import expert_loads
from eplb_np.pictures.files import description, save
from eplb_np.pictures.gpu_loads import gpu_loads
from eplb_np.pictures.replayed import replays
from eplb_np.pictures.replica_counts import replicas
from eplb_np.pictures.swept import sweep_curves
from eplb_np.pictures.themes import ThemeName

__all__ = [
    "ThemeName",
    "description",
    "expert_loads",
    "gpu_loads",
    "replays",
    "replicas",
    "save",
    "split_batch",
    "sweep_curves",
]
