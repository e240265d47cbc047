"""The same plans on a GPU, byte for byte, from loads there to maps there; and batches split there.

Importing this loads neither Numba nor CUDA; the first call does.
"""

from eplb_np._cuda.device import DeviceError, is_available
from eplb_np.cuda.planning import rebalance_experts, rebalance_experts_hierarchical
from eplb_np.cuda.splitting import GpuSplitter, assign
from eplb_np.cuda.stages import balanced_packing, replicate_experts

__all__ = [
    "DeviceError",
    "GpuSplitter",
    "assign",
    "balanced_packing",
    "is_available",
    "rebalance_experts",
    "rebalance_experts_hierarchical",
    "replicate_experts",
]
