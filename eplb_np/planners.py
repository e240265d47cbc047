"""Ways to plan for the next window, from the windows before it: what `eplb_np.replay` compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_is, is_one_of, one_line
from eplb_np._loads.host import as_history
from eplb_np.mending.limits import MoveLimits, check_limits
from eplb_np.plan import Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import POLICIES, PolicyName, check_policy
from eplb_np.rebalancer import Rebalancer
from eplb_np.topology import Topology

Planner: TypeAlias = Callable[[NDArray[np.float32], Plan | None], Plan]
"""Makes a plan from the windows so far, [w, L, E], and the plan in use, if any."""


def replanning(
    topology: Topology,
    policy: PolicyName = "hybrid",
    num_windows: int = 8,
    num_threads: int | None = None,
) -> Planner:
    """Plan from scratch before every window, from the sum of the last ones, as serving stacks do.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        As in `make_plan`.
    num_windows : int, default: 8
        Number of windows to sum.
    num_threads : int, optional
        As in `make_plan`.

    Returns
    -------
    callable
        For `replay`.
    """
    _check_topology(topology)
    check_policy(policy, topology)
    last = as_size("num_windows", num_windows)

    def plan(history: NDArray[np.float32], current: Plan | None) -> Plan:
        load = history[-last:].sum(axis=0)
        return make_plan(load, topology, policy=policy, num_threads=num_threads)

    return plan


def mending(topology: Topology, limits: MoveLimits | None = None) -> Planner:
    """Mend the plan in use before every window, as a `Rebalancer` does.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves.

    Returns
    -------
    callable
        For a single `replay`, because it remembers the windows that it has seen.
    """
    _check_topology(topology)
    check_limits(limits)
    rebalancer: Rebalancer | None = None
    seen = 0

    def plan(history: NDArray[np.float32], current: Plan | None) -> Plan:
        nonlocal rebalancer, seen
        if rebalancer is None:
            rebalancer = Rebalancer(topology, history.shape[1], limits=limits)
        for window in history[seen:]:
            rebalancer.observe(window)
        seen = len(history)
        return rebalancer.propose().plan

    return plan


def once(topology: Topology, policy: PolicyName = "refined") -> Planner:
    """Plan once, before the first window, and never again.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    policy : {"hybrid", "deepseek", "refined"}, default: "refined"
        As in `make_plan`.

    Returns
    -------
    callable
        For `replay`.
    """
    _check_topology(topology)
    check_policy(policy, topology)

    def plan(history: NDArray[np.float32], current: Plan | None) -> Plan:
        return current or make_plan(history, topology, policy=policy)

    return plan


def knowing_the_future(topology: Topology, mean: ArrayLike) -> Planner:
    """Plan from scratch from the true mean of the coming window: the ceiling for any planner.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    mean : array_like, shape [W, L, E]
        True share of each expert in each window, such as `LoadTrace.mean`.

    Returns
    -------
    callable
        For `replay`.
    """
    _check_topology(topology)
    shares = as_history(mean, "mean")

    def plan(history: NDArray[np.float32], current: Plan | None) -> Plan:
        if len(shares) <= len(history):
            raise ValueError(
                f"mean has {len(shares)} windows, but the trace has more: give those of the trace"
            )
        return make_plan(shares[len(history)], topology, policy="refined")

    return plan


def planner_names() -> tuple[str, ...]:
    """Names that `planner_named` knows: `POLICIES` may have grown."""
    return ("in-order", "once", *(f"replan-{policy}" for policy in POLICIES), "mend")


def planner_named(name: str, topology: Topology, num_windows: int = 8) -> Planner:
    """Make one of the planners that are known by name, as the command ``eplb-np replay`` does.

    Parameters
    ----------
    name : str
        ``"in-order"``, the plan that serving stacks start with, never changed; ``"once"``; one of
        ``"replan-hybrid"``, ``"replan-deepseek"`` and ``"replan-refined"``; or ``"mend"``.
    topology : Topology
        Sizes of the deployment.
    num_windows : int, default: 8
        Number of windows to sum, for `replanning`.

    Returns
    -------
    callable
        For a single `replay`.

    Raises
    ------
    ValueError
        If there is no such planner, or its policy cannot plan for the topology.

    See Also
    --------
    once : Plan once, and never again.
    replanning : Plan from scratch before every window.
    mending : Mend the plan in use before every window.
    """
    _check_topology(topology)
    if not is_one_of(name, planner_names()):
        known = ", ".join(planner_names())
        raise ValueError(f"planner {one_line(name)} is unknown: give one of {known}")
    if name == "in-order":
        return lambda history, current: current or in_order_plan(history.shape[1], topology)
    if name == "once":
        return once(topology)
    if name == "mend":
        return mending(topology)
    policy = cast(PolicyName, name.removeprefix("replan-"))
    return replanning(topology, policy, num_windows)


def _check_topology(topology: Topology) -> None:
    check_is("topology", topology, Topology, "build one from the sizes")
