"""The plan for sglang-jax, which places experts once, when it starts from recorded loads.

``install`` replaces ``sgl_jax.srt.eplb.eplb_algorithms.rebalance_experts`` in the running process.

Letters: L layers, E logical experts, P slots.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np.engines.patching import Planner, put_in, take_out
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.tables import WIDTH, tables_of

__all__ = ["install", "rebalance_experts", "uninstall"]

MODULE = "sgl_jax.srt.eplb.eplb_algorithms"


def install(*, weighted: bool = False) -> None:
    """Let sglang-jax plan with `rebalance_experts` in this process.

    Parameters
    ----------
    weighted : bool, default: False
        Write tables in which slots stand several times, so that tokens follow the best split of
        the load. Only ``--ep-dispatch-algorithm dynamic`` follows them.

    Raises
    ------
    ImportError
        If sglang-jax is not installed.
    """
    planner = partial(rebalance_experts, weighted=weighted)

    def instead_of(_: Planner) -> Planner:
        return planner

    put_in(MODULE, instead_of)


def uninstall() -> None:
    """Give sglang-jax its own planner back; nothing happens if it has it."""
    take_out(MODULE)


def rebalance_experts(
    tokens_per_expert: ArrayLike,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
    *,
    weighted: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Plan in place of sglang-jax's function of this name.

    Parameters
    ----------
    tokens_per_expert : array_like, shape [L, E]
        Tokens of each logical expert, for all decoder layers; dense ones have zeros.
    num_physical_experts : int
        Number of slots, P.
    num_local_physical_experts : int
        Slots of each device.
    num_groups : int or None
        Groups of experts. They count only where ``algorithm`` is hierarchical.
    num_nodes : int
        Number of nodes, as ``num_groups``.
    algorithm : EplbAlgorithm
        ``deepseek_hierarchical`` keeps groups on nodes if they divide.
    weighted : bool, default: False
        As in `install`.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot.
    log2phy : ndarray, shape [L, E, X], int64
        Slots of each expert, padded with -1, X <= P; with ``weighted``, slots stand several times.
    count : ndarray, shape [L, E], int64
        Entries of each expert in ``log2phy``.

    Raises
    ------
    ValueError
        If the loads or sizes fit no plan.

    Notes
    -----
    The plan is a function of the arguments: all hosts get the same. ``--ep-dispatch-algorithm
    static`` sends all tokens of an expert to the first entry of its row.

    Examples
    --------
    >>> from eplb_np.engines.sglang_jax import rebalance_experts
    >>> load = [[90, 30, 10, 10]]
    >>> phy2log, log2phy, count = rebalance_experts(load, 6, 3, None, 1, "deepseek")
    >>> phy2log.tolist(), count.tolist()
    ([[0, 1, 2, 0, 1, 3]], [[2, 2, 1, 1]])
    """
    load = np.asarray(tokens_per_expert)
    if not str(getattr(algorithm, "name", algorithm)).endswith("hierarchical"):
        num_groups, num_nodes = None, 1
    topology = topology_for(
        load.shape[-1], num_physical_experts, num_physical_experts // num_local_physical_experts,
        num_nodes, num_groups or 1,
    )  # fmt: skip
    plan = plan_for(load, topology, None, Wishes())
    if not weighted:
        return tables_of(plan)
    return tables_of(plan, load, min(WIDTH, num_physical_experts))
