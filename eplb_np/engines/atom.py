"""ROCm ATOM: its planning function, and how it is plugged in and taken out.

ATOM's ranks plan each for themselves, from the same integers. A replica that stays on its GPU keeps
its slot, so ATOM copies nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from eplb_np._arguments import one_line
from eplb_np._loads.host import as_array
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.tensors import as_given, as_host
from eplb_np.maps.log2phy import make_log2phy, width_for_this_plan
from eplb_np.mending.limits import NO_LIMITS, MoveLimits, check_limits
from eplb_np.policies import PlannedSplit, check_planned_split

__all__ = ["install", "make_rebalance_experts", "rebalance_experts", "uninstall"]

_replaced: list[Any] = []
"""ATOM's own function, while ours is in its place."""


def make_rebalance_experts(
    limits: MoveLimits | None = None, split: PlannedSplit = "even"
) -> Callable[..., tuple[Any, Any, Any]]:
    """Make a `rebalance_experts` with limits on its moves.

    Parameters
    ----------
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves of one rearrangement. Give the same on all ranks.
    split : {"even", "best", "certain"}, default: "even"
        The split that placements are made for.

    Returns
    -------
    callable
        As `rebalance_experts`.

    Raises
    ------
    ValueError
        If ``limits`` are not `MoveLimits`, or ``split`` is unknown.

    Notes
    -----
    A plan takes the time of mending.

    Examples
    --------
    >>> from eplb_np import MoveLimits
    >>> from eplb_np.engines.atom import make_rebalance_experts
    >>> within_limits = make_rebalance_experts(MoveLimits(total=0))
    >>> p2l, l2p, count = within_limits(
    ...     [[10, 30, 90, 10]], num_physical=6, num_groups=1, num_nodes=1, num_gpus=2,
    ...     enable_hierarchical=False, old_p2l=[[0, 1, 2, 0, 1, 3]],
    ... )
    >>> p2l.tolist()
    [[0, 1, 2, 0, 1, 3]]
    """
    check_limits(limits)
    check_planned_split(split, "refined")
    wishes = Wishes(limits or NO_LIMITS, split)

    def rebalance_experts(
        weight: Any,
        *,
        num_physical: int,
        num_groups: int,
        num_nodes: int,
        num_gpus: int,
        enable_hierarchical: bool,
        policy: Any = None,
        old_p2l: Any = None,
    ) -> tuple[Any, Any, Any]:
        """Plan as ATOM asks for it.

        Parameters
        ----------
        weight : tensor or array_like, shape [L, E], any real dtype, on any device
            Load of each logical expert of each layer.
        num_physical : int
            Physical experts (slots) of a layer, P; a multiple of ``num_gpus``.
        num_groups : int
            Groups of logical experts. If they do not divide E, they are ignored.
        num_nodes : int
            Nodes. If they do not divide ``num_gpus``, they count as one.
        num_gpus : int
            GPUs.
        enable_hierarchical : bool
            Whether whole groups go to nodes.
        policy : callable, optional
            ATOM's own way to place the experts of a layer. It is not called.
        old_p2l : tensor or array_like, shape [L, P'], int, optional
            The map in use: logical expert in each slot, -1 in an empty one.

        Returns
        -------
        physical_to_logical : tensor or ndarray, shape [L, P], int32
            Logical expert in each slot: a new tensor on the device of ``weight``, or a new array
            if that is none. So are the others.
        logical_to_physical : tensor or ndarray, shape [L, E, X], int32
            Slots of each expert, -1 after the last; X is the largest number of replicas.
        count : tensor or ndarray, shape [L, E], int32
            Number of replicas of each expert.

        Raises
        ------
        ValueError
            If ``weight`` is not a valid load, or ``num_physical`` is less than E or not a multiple
            of ``num_gpus``.

        Notes
        -----
        Arguments are left as they are. Where loads tell nothing, as all zeros, a complete map in
        use stays as it is. Complexity and ties are those of mending.

        Examples
        --------
        >>> from eplb_np.engines.atom import rebalance_experts
        >>> p2l, l2p, count = rebalance_experts(
        ...     [[10, 30, 90, 10]], num_physical=6, num_groups=1, num_nodes=1, num_gpus=2,
        ...     enable_hierarchical=False, old_p2l=[[0, 1, 2, 0, 1, 3]],
        ... )
        >>> p2l.tolist(), count.tolist()
        ([[0, 1, 2, 2, 1, 3]], [[1, 2, 2, 1]])
        """
        load = as_array(as_host(weight), "the load")
        num_experts = load.shape[-1] if load.ndim else 1
        nodes, groups = (num_nodes, num_groups) if enable_hierarchical else (1, 1)
        topology = topology_for(num_experts, num_physical, num_gpus, nodes, groups)
        plan = plan_for(load, topology, as_host(old_p2l), wishes)
        log2phy = make_log2phy(
            plan.phy2log, plan.phyrank, num_experts, width_for_this_plan(topology, plan.logcnt)
        )
        p2l, l2p, count = (
            as_given(array, weight, np.int32) for array in (plan.phy2log, log2phy, plan.logcnt)
        )
        return p2l, l2p, count

    return rebalance_experts


rebalance_experts: Callable[..., tuple[Any, Any, Any]] = make_rebalance_experts()


def install(function: Callable[..., Any] = rebalance_experts) -> None:
    """Put a function in the place of ATOM's own, in this process.

    Parameters
    ----------
    function : callable, default: rebalance_experts
        `rebalance_experts`, or what `make_rebalance_experts` returned. It replaces one that was
        installed before.

    Raises
    ------
    ValueError
        If ``function`` cannot be called, or ATOM is not installed, or has no such function.

    Notes
    -----
    ATOM starts its workers as fresh processes, which run the main script's module level again: call
    this there. May be called again and again.
    """
    if not callable(function):
        raise ValueError(
            f"function={one_line(function)} cannot be called: give rebalance_experts, or what "
            "make_rebalance_experts returns"
        )
    module = _module()
    if not _replaced:
        _replaced.append(module.rebalance_experts)
    module.rebalance_experts = function


def uninstall() -> None:
    """Put ATOM's own function back, in this process.

    Raises
    ------
    ValueError
        If ATOM is not installed, or has no such function.

    Notes
    -----
    Without effect if none of ours is installed.
    """
    module = _module()
    if _replaced:
        module.rebalance_experts = _replaced.pop()


def _module() -> Any:
    try:
        module = import_module("atom.model_ops.eplb")
        module.rebalance_experts  # noqa: B018 - an AttributeError if there is none
    except (ImportError, AttributeError):
        raise ValueError(
            "ATOM has no rebalance_experts to replace here: install ATOM, in this environment"
        ) from None
    return module
