"""Expert parallelism load balancing for mixture-of-experts models, with NumPy and Numba.

Loads go in, a plan comes out, and the plan goes where it is used. Modules whose names begin with
an underscore are private.
"""

from eplb_np import _interrupts as _interrupts  # first, so that it is in time
from eplb_np import comparison, cuda, io, pictures, replay, sweeps, workloads
from eplb_np.bounds import lower_bound
from eplb_np.dispatch import Splitter, assign, make_quotas, split_load
from eplb_np.mending.limits import MoveLimits
from eplb_np.metrics import (
    balancedness,
    gpu_load,
    layer_balancedness,
    moved_replicas,
    replica_load,
)
from eplb_np.moves.moves import Move, Moves
from eplb_np.plan import Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.proposal import Proposal
from eplb_np.published import (
    balanced_packing,
    rebalance_experts,
    rebalance_experts_hierarchical,
    replicate_experts,
)
from eplb_np.rebalancer import Rebalancer
from eplb_np.summaries import PlanSummary
from eplb_np.topology import Topology
from eplb_np.warming import warmup

__version__ = "0.1.0"

__all__ = [
    "Move",
    "MoveLimits",
    "Moves",
    "Plan",
    "PlanSummary",
    "Proposal",
    "Rebalancer",
    "Splitter",
    "Topology",
    "assign",
    "balanced_packing",
    "balancedness",
    "comparison",
    "cuda",
    "gpu_load",
    "in_order_plan",
    "io",
    "layer_balancedness",
    "lower_bound",
    "make_plan",
    "make_quotas",
    "moved_replicas",
    "pictures",
    "rebalance_experts",
    "rebalance_experts_hierarchical",
    "replay",
    "replica_load",
    "replicate_experts",
    "split_load",
    "sweeps",
    "warmup",
    "workloads",
]
