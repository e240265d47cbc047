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

    Raises
    ------
    ValueError
        If ``topology`` is not a `Topology`, ``policy`` is unknown or cannot plan for it, or
        ``num_windows`` is not a positive integer.

    Notes
    -----
    The planner takes the time of `make_plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology
    >>> from eplb_np.replay import replanning, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> replay(load, replanning(topology, "deepseek", num_windows=2)).balancedness
    1.0
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

    Raises
    ------
    ValueError
        If ``topology`` is not a `Topology`, or ``limits`` are not `MoveLimits`.

    Notes
    -----
    The planner takes the time of `Rebalancer.observe` and `Rebalancer.propose`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology
    >>> from eplb_np.replay import mending, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> replay(load, mending(topology)).moved.tolist()  # replicas, before each window but the first
    [0, 0, 0]
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

    Raises
    ------
    ValueError
        If ``topology`` is not a `Topology`, or ``policy`` is unknown or cannot plan for it.

    Notes
    -----
    The planner takes the time of `make_plan` before the first window, and none afterwards.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology
    >>> from eplb_np.replay import once, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> replay(load, once(topology)).moved.tolist()
    [0, 0, 0]
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

    Raises
    ------
    ValueError
        If ``topology`` is not a `Topology`, or ``mean`` is not a valid load. The planner raises
        one if the trace has more windows than ``mean``.

    Notes
    -----
    The planner takes the time of `make_plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology
    >>> from eplb_np.replay import knowing_the_future, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> replay(load, knowing_the_future(topology, load / 140)).balancedness
    1.0
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

    Notes
    -----
    As the planner that is named.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology
    >>> from eplb_np.replay import planner_named, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> replay(load, planner_named("in-order", topology)).moved.tolist()
    [0, 0, 0]
    >>> planner_named("best", topology)
    Traceback (most recent call last):
        ...
    ValueError: planner 'best' is unknown: give one of in-order, once, replan-hybrid, replan-d...
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
