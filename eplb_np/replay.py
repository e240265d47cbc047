"""Replay a trace: how well each way to plan would have balanced it, and what it would have moved.

Before every window a plan is made from the windows before it. It is judged on the window itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_is, one_line
from eplb_np._loads.host import as_history
from eplb_np._notebook import rows_html
from eplb_np.mending.limits import MoveLimits, check_limits
from eplb_np.moves.fetches import count_fetches
from eplb_np.plan import Plan
from eplb_np.planning import make_plan
from eplb_np.policies import PolicyName, Split, check_policy, check_split
from eplb_np.rebalancer import Rebalancer
from eplb_np.topology import Topology

__all__ = [
    "Planner",
    "Replay",
    "knowing_the_future",
    "mending",
    "once",
    "replanning",
    "replay",
]

Planner: TypeAlias = Callable[[NDArray[np.float32], Plan | None], Plan]
"""Makes a plan from the windows so far, [w, L, E], and the plan in use, if any."""


@dataclass(frozen=True, eq=False)
class Replay:
    """Results of a planner on a trace, for each window that it planned for.

    Parameters
    ----------
    mean_time, longest_time : ndarray, shape [n], float64
        Time of perfectly balanced GPUs, and time of the slowest GPU, both summed over the layers,
        in units of load.
    moved : ndarray, shape [n], int64
        Replicas that GPUs fetched before each window; 0 for the first plan.
    seconds : ndarray, shape [n], float64
        Time that planning took, in seconds.
    num_replicas : int
        Slots of all layers together; the base of `moved_share`.
    """

    mean_time: NDArray[np.float64]
    longest_time: NDArray[np.float64]
    moved: NDArray[np.int64]
    seconds: NDArray[np.float64]
    num_replicas: int

    @property
    def window_balancedness(self) -> NDArray[np.float64]:
        """GPU balancedness of each window, shape [n]: 1 is perfect."""
        ratio: NDArray[np.float64] = np.ones_like(self.mean_time)
        np.divide(self.mean_time, self.longest_time, out=ratio, where=self.longest_time > 0)
        return ratio

    @property
    def balancedness(self) -> float:
        """GPU balancedness over all windows, each of which waits for its slowest GPUs."""
        longest = float(self.longest_time.sum())
        return float(self.mean_time.sum()) / longest if longest > 0 else 1.0

    @property
    def moved_share(self) -> float:
        """Mean share of all slots that GPUs had to fetch at a replan."""
        replans = max(len(self.moved) - 1, 1)
        return float(self.moved.sum()) / (replans * self.num_replicas)

    @property
    def milliseconds(self) -> float:
        """Median time of a replan, in milliseconds."""
        return float(np.median(self.seconds)) * 1e3

    def __repr__(self) -> str:
        return (
            f"Replay(balancedness {self.balancedness:.4f}, {self.moved_share:.2%} moved and "
            f"{self.milliseconds:.1f} ms per replan)"
        )

    def _repr_html_(self) -> str:
        rows = {
            "windows": len(self.moved),
            "GPU balancedness": f"{self.balancedness:.4f}",
            "moved per replan": f"{self.moved_share:.2%} of all slots",
            "time of a replan": f"{self.milliseconds:.1f} ms",
        }
        return rows_html("Replay", rows)


def replay(
    load: ArrayLike, planner: Planner, *, first_window: int = 1, split: Split = "even"
) -> Replay:
    """Replay a trace with one planner.

    Parameters
    ----------
    load : array_like, shape [W, L, E]
        Load of each expert in consecutive windows, recorded or synthetic (`eplb_np.workloads`).
    planner : callable
        ``planner(history, current)`` returns the plan for the coming window, from the windows
        before it and the plan in use: one of those in this module, or your own.
    first_window : int, default: 1
        First window to plan for, at least 1.
    split : {"even", "best"}, default: "even"
        How the load of each window is split over the replicas, as in `Plan.gpu_load`.

    Returns
    -------
    Replay
        Balance, moves and time of each window from ``first_window`` on.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load, or has no more than ``first_window`` windows.

    Notes
    -----
    Moves are counted as in `moved_replicas`: a change of slot within a GPU does not count.

    Examples
    --------
    >>> import eplb_np
    >>> from eplb_np.replay import mending, replanning, replay
    >>> trace = eplb_np.workloads.draw_trace(np.full((12, 2, 16), 1 / 16), seed=1)
    >>> topology = eplb_np.Topology(num_experts=16, num_replicas=20, num_gpus=4)
    >>> replanned = replay(trace.load, replanning(topology, "deepseek"))
    >>> mended = replay(trace.load, mending(topology))
    >>> mended.moved_share < 0.1 * replanned.moved_share
    True
    """
    if not callable(planner):
        raise ValueError(f"planner={one_line(planner)} cannot be called: give one of this module")
    history = as_history(load, "load")
    first = as_size("first_window", first_window)
    check_split(split)
    if len(history) <= first:
        raise ValueError(
            f"load has {len(history)} window(s), so first_window={first} leaves none to plan for: "
            f"give {first + 1} or more windows"
        )
    rows: list[tuple[float, float, int, float]] = []
    current: Plan | None = None
    for window in range(first, len(history)):
        start = time.perf_counter()
        plan = planner(history[:window], current)
        seconds = time.perf_counter() - start
        check_is("what planner returned", plan, Plan, "return the plan for the coming window")
        moved = 0
        if current is not None:
            moved = count_fetches(current.phy2log, plan.phy2log, plan.topology.gpu_of_slot)
        at_once = float(history[window].sum(dtype=np.float64)) / plan.topology.active_speed
        longest = float(plan.gpu_time(history[window], split=split).max(axis=1).sum())
        rows.append((at_once, longest, moved, seconds))
        current = plan
    mean_time, longest_time, moves, times = (np.array(column) for column in zip(*rows, strict=True))
    return Replay(mean_time, longest_time, moves, times, plan.phy2log.size)


def replanning(topology: Topology, policy: PolicyName = "hybrid", num_windows: int = 8) -> Planner:
    """Plan from scratch before every window, from the sum of the last ones, as serving stacks do.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        As in `make_plan`.
    num_windows : int, default: 8
        Number of windows to sum.

    Returns
    -------
    callable
        For `replay`.
    """
    _check_topology(topology)
    check_policy(policy, topology)
    last = as_size("num_windows", num_windows)

    def plan(history: NDArray[np.float32], current: Plan | None) -> Plan:
        return make_plan(history[-last:].sum(axis=0), topology, policy=policy)

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


def _check_topology(topology: Topology) -> None:
    check_is("topology", topology, Topology, "build one from the sizes")
