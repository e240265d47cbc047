"""The plan for SGLang's balancer, which asks for one after so many forward passes.

``install`` replaces ``sglang.srt.eplb.eplb_algorithms.rebalance_experts`` in the running process.
With ``EPLB_NP_SGLANG=even`` or ``=weighted`` in the environment, SGLang's plugins do so in every
process that it starts.

Letters: S steps, L layers, E logical experts, P slots.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from eplb_np.engines.patching import Planner, put_in, take_out, wanted_by
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.tables import WIDTH, Tables, tables_of
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.limits import NO_LIMITS, MoveLimits

__all__ = ["install", "plug_in", "rebalance_experts", "uninstall"]

MODULE = "sglang.srt.eplb.eplb_algorithms"
LOCATION = "sglang.srt.eplb.expert_location"
ELASTIC = "sglang.srt.elastic_ep.elastic_ep"
VARIABLE = "EPLB_NP_SGLANG"


def install(*, weighted: bool = False, limits: MoveLimits = NO_LIMITS) -> None:
    """Let SGLang's balancer in this process plan with `rebalance_experts`.

    Parameters
    ----------
    weighted : bool, default: False
        Write tables in which slots stand several times, so that tokens follow the best split of
        the load. Only ``--ep-dispatch-algorithm dynamic`` follows them; do not use them with
        ``lp``.
    limits : MoveLimits, optional
        Limits on the replicas fetched for each plan. The same on all ranks.

    Raises
    ------
    ImportError
        If SGLang is not installed.
    """
    planner = partial(rebalance_experts, weighted=weighted, limits=limits)

    def instead_of(_: Planner) -> Planner:
        return planner

    put_in(MODULE, instead_of)


def uninstall() -> None:
    """Give SGLang its own planner back; nothing happens if it has it."""
    take_out(MODULE)


def plug_in() -> None:
    """Install if ``EPLB_NP_SGLANG`` is ``even`` or ``weighted``: the entry point for plugins.

    Raises
    ------
    ValueError
        If the variable has another value.
    """
    wanted = wanted_by(VARIABLE)
    if wanted is not None:
        install(weighted=wanted == "weighted")


def rebalance_experts(
    tokens_per_expert: Any,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
    *,
    weighted: bool = False,
    limits: MoveLimits = NO_LIMITS,
) -> tuple[Any, Any, Any]:
    """Plan in place of SGLang's function of this name.

    Parameters
    ----------
    tokens_per_expert : torch.Tensor or ndarray, shape [S, L, E]
        Tokens of each logical expert in each step, for all decoder layers; dense ones have zeros.
        The steps are added up: SGLang records into a ring whose start it does not tell.
    num_physical_experts : int
        Number of slots, P.
    num_local_physical_experts : int
        Slots of each GPU.
    num_groups : int or None
        Groups of experts. They count only where ``algorithm`` is hierarchical.
    num_nodes : int
        Number of nodes, as ``num_groups``.
    algorithm : EplbAlgorithm
        ``..._hierarchical`` keeps groups on nodes if they divide. ``elasticity_aware...`` leaves
        out the ranks that SGLang takes for gone.
    weighted : bool, default: False
        As in `install`.
    limits : MoveLimits, optional
        As in `install`.

    Returns
    -------
    phy2log : shape [L, P]
        Logical expert in each slot. On ranks that are gone it is 0, as SGLang has it.
    log2phy : shape [L, E, X]
        Slots of each expert, padded with -1, X <= P; with ``weighted``, slots stand several times.
        Each replica on a rank that is not gone stands in it.
    count : shape [L, E]
        Entries of each expert in ``log2phy``.
        All three are int64 on the CPU, and tensors if ``tokens_per_expert`` is one.

    Raises
    ------
    ValueError
        If the loads or sizes fit no plan, for instance because too few ranks are left.

    Notes
    -----
    Each rank plans for itself. The plan depends on the arguments and on two things that all ranks
    share: the map in use, which SGLang holds, and the ranks that are gone. The map in use is
    changed only where that pays. At start there is none, and all is planned from scratch.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.engines.sglang import rebalance_experts
    >>> steps = np.array([[[50, 10, 5, 5]], [[40, 20, 5, 5]]])
    >>> phy2log, log2phy, count = rebalance_experts(steps, 6, 3, None, 1, "deepseek")
    >>> phy2log.tolist(), count.tolist()
    ([[0, 1, 2, 0, 1, 3]], [[2, 2, 1, 1]])
    """
    load = _added_up(tokens_per_expert)
    num_gpus = num_physical_experts // num_local_physical_experts
    name = str(getattr(algorithm, "name", algorithm))
    alive = _alive(num_gpus) if name.startswith("elasticity_aware") else np.full(num_gpus, True)
    served = np.flatnonzero(alive.repeat(num_local_physical_experts))
    if not name.endswith("hierarchical") or len(served) < num_physical_experts:
        num_groups, num_nodes = None, 1
    topology = topology_for(
        load.shape[1], len(served), int(alive.sum()), num_nodes, num_groups or 1
    )
    in_use = _map_in_use(num_physical_experts, num_local_physical_experts)
    plan = plan_for(load, topology, None if in_use is None else in_use[:, served], Wishes(limits))
    width = min(WIDTH, len(served))
    local = tables_of(plan, load, width) if weighted else tables_of(plan)
    phy2log = np.zeros((len(load), num_physical_experts), np.int64)
    phy2log[:, served] = local.phy2log
    log2phy = np.where(local.log2phy == EMPTY, EMPTY, served[local.log2phy])
    return _like(tokens_per_expert, Tables(phy2log, log2phy, local.entries))


def _added_up(tokens: Any) -> NDArray[np.float64]:
    """Add up the steps, as [L, E], on the device, so that little is copied to the host."""
    total = tokens.sum(0) if len(tokens.shape) == 3 else tokens
    if hasattr(total, "detach"):
        total = total.detach().cpu().double().numpy()
    return np.asarray(total, np.float64)


def _like(tokens: Any, tables: Tables) -> tuple[Any, Any, Any]:
    """Return the tables as tensors of the library that the tokens are of."""
    if isinstance(tokens, np.ndarray):
        return tables
    library = sys.modules[type(tokens).__module__.partition(".")[0]]
    phy2log, log2phy, count = (library.from_numpy(table) for table in tables)
    return phy2log, log2phy, count


def _map_in_use(num_slots: int, slots_of_gpu: int) -> NDArray[np.int64] | None:
    """Return the map in use, [L, P], which is the same on all ranks; None at start.

    Ranks that were gone stand in it with expert 0 in all their slots, which then are empty.
    """
    module = sys.modules.get(LOCATION)
    metadata = module.get_global_expert_location_metadata() if module is not None else None
    if metadata is None:
        return None
    slots = np.asarray(metadata.physical_to_logical_map_cpu).astype(np.int64)
    if slots.shape[1:] != (num_slots,):
        return None
    gpus = slots.reshape(len(slots), -1, slots_of_gpu)
    if slots_of_gpu > 1:
        gpus[(gpus == 0).all(axis=2)] = EMPTY
    return slots


def _alive(num_gpus: int) -> NDArray[np.bool_]:
    """Return which ranks SGLang takes for active; all, if it does not watch them."""
    module = sys.modules.get(ELASTIC)
    state = module.ElasticEPStateManager.instance() if module is not None else None
    if state is None:
        return np.full(num_gpus, True)
    return cast(NDArray[np.bool_], np.asarray(state.active_ranks.cpu())[:num_gpus] != 0)
