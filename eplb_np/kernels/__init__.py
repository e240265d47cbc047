"""The compiled stages, splits and quotas, for use from your own ``@njit`` code.

Kernels check nothing: they trust their callers to pass C-contiguous arrays of the stated shapes and
dtypes, with loads that are finite and not negative. docs/kernels.md shows how to call them.
"""

from eplb_np.dispatch.evened_cpu import split_layer_evenly
from eplb_np.dispatch.quotas_cpu import assign_slots, fill_quotas
from eplb_np.dispatch.split_cpu import make_split_scratch, split_layer
from eplb_np.maps.cpu import fill_log2phy
from eplb_np.stages.hierarchy.cpu import plan_layers
from eplb_np.stages.hierarchy.simd import plan_layers_in_lockstep
from eplb_np.stages.packing.cpu import pack_layers
from eplb_np.stages.replication.cpu import replicate_layers

__all__ = [
    "assign_slots",
    "fill_log2phy",
    "fill_quotas",
    "make_split_scratch",
    "pack_layers",
    "plan_layers",
    "plan_layers_in_lockstep",
    "replicate_layers",
    "split_layer",
    "split_layer_evenly",
]
