"""The plan for FastDeploy's expert manager, which asks for one whenever it is told to.

``install`` replaces ``fastdeploy.eplb.eplb.rebalance_experts`` in the running process. With
``EPLB_NP_FASTDEPLOY=even`` or ``=weighted`` in the environment, FastDeploy's plugins do so in every
process that loads models.

Letters: L layers, E logical experts, P slots.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np.engines.patching import Planner, put_in, take_out, wanted_by
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.tables import WIDTH, tables_of

__all__ = ["install", "plug_in", "rebalance_experts", "uninstall"]

MODULE = "fastdeploy.eplb.eplb"
VARIABLE = "EPLB_NP_FASTDEPLOY"


def install(*, weighted: bool = False) -> None:
    """Let FastDeploy plan with `rebalance_experts` in this process.

    Where attention and experts are on ranks of their own, FastDeploy's function stays in charge.

    Parameters
    ----------
    weighted : bool, default: False
        Write tables in which slots stand several times, so that tokens follow the best split of
        the load.

    Raises
    ------
    ImportError
        If FastDeploy is not installed.
    """
    planner = partial(rebalance_experts, weighted=weighted)

    def instead_of(original: Planner) -> Planner:
        @wraps(original)
        def plan(*args: Any, fd_config: Any = None, **others: Any) -> Any:
            apart = getattr(getattr(fd_config, "afd_config", None), "enable_afd", False)
            if apart:
                return original(*args, fd_config=fd_config, **others)
            return planner(*args, **others)

        return plan

    put_in(MODULE, instead_of)


def uninstall() -> None:
    """Give FastDeploy its own planner back; nothing happens if it has it."""
    take_out(MODULE)


def plug_in() -> None:
    """Install if ``EPLB_NP_FASTDEPLOY`` is ``even`` or ``weighted``: the entry point for plugins.

    Raises
    ------
    ValueError
        If the variable has another value.
    """
    wanted = wanted_by(VARIABLE)
    if wanted is not None:
        install(weighted=wanted == "weighted")


def rebalance_experts(
    weight: ArrayLike,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    eplb_strategy: str = "",
    *,
    weighted: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Plan in place of FastDeploy's function of this name.

    Parameters
    ----------
    weight : array_like, shape [L, E]
        Tokens of each logical expert, for all layers.
    num_replicas : int
        Number of slots, P.
    num_groups, num_nodes : int
        Not used: FastDeploy has a group for each expert, so groups keep no tokens on nodes.
    num_gpus : int
        Number of GPUs.
    eplb_strategy : str, optional
        Not used.
    weighted : bool, default: False
        As in `install`.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int32
        Logical expert in each slot.
    log2phy : ndarray, shape [L, E, X], int32
        Slots of each expert, padded with -1, X <= P - E + 1, the room that FastDeploy has; with
        ``weighted``, slots stand several times. Each replica stands in it.
    count : ndarray, shape [L, E], int32
        Entries of each expert in ``log2phy``.

    Raises
    ------
    ValueError
        If the loads or sizes fit no plan.

    Notes
    -----
    Each rank plans for itself, and the plan is a function of the arguments. FastDeploy does not
    hand over the map in use. Loads that are all the same, as at start, give slot s expert s % E
    whatever the number of GPUs: FastDeploy then makes the first map several times, with different
    numbers, and they must agree.

    Examples
    --------
    >>> from eplb_np.engines.fastdeploy import rebalance_experts
    >>> phy2log, log2phy, count = rebalance_experts([[90, 30, 10, 10]], 6, 1, 1, 2)
    >>> phy2log.tolist(), count.tolist(), phy2log.dtype.name
    ([[0, 1, 2, 0, 1, 3]], [[2, 2, 1, 1]], 'int32')
    """
    load = np.asarray(weight)
    num_layers, num_experts = load.shape
    same = bool((load == load[:, :1]).all())
    first = np.tile(np.arange(num_replicas) % num_experts, (num_layers, 1)) if same else None
    topology = topology_for(num_experts, num_replicas, 1 if same else num_gpus)
    plan = plan_for(load, topology, first, Wishes())
    width = min(WIDTH, num_replicas - num_experts + 1)
    tables = tables_of(plan, load, width) if weighted and not same else tables_of(plan)
    phy2log, log2phy, count = (table.astype(np.int32) for table in tables)
    return phy2log, log2phy, count
