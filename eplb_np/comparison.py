"""`compare`: every policy side by side, on the load it plans from and on windows to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_is
from eplb_np._loads.host import as_array, as_history
from eplb_np.bounds import lower_bound
from eplb_np.mending.limits import MoveLimits, check_limits
from eplb_np.moves.fetches import count_fetches
from eplb_np.plan import Plan
from eplb_np.planners import planner_named, planner_names
from eplb_np.planning import check_current, check_is_plan, in_order_plan, make_plan
from eplb_np.policies import POLICIES, PolicyName, check_policy
from eplb_np.replay import Replay, replay, replay_windows
from eplb_np.summaries import PlanSummary
from eplb_np.topology import Topology

__all__ = ["ComparedPlan", "ComparedReplay", "Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class ComparedPlan:
    """A plan beside others for the same load.

    Parameters
    ----------
    name : str
        The policy that made it; ``"in-order"``, the plan that serving stacks start with;
        ``"current"``, the plan in use; or ``"mended"``, what mending makes of that one.
    plan : Plan
        The plan.
    summary : PlanSummary
        The plan under the load: its balance, duplicates, nodes.
    moved : int or None
        Replicas that GPUs would fetch to change from the plan in use to this one, as
        `moved_replicas` counts them. None if no plan is in use.
    milliseconds : float or None
        Time of a second call with the same load, when all kernels are ready. None for a plan that
        no policy made.
    """

    name: str
    plan: Plan
    summary: PlanSummary
    moved: int | None
    milliseconds: float | None


@dataclass(frozen=True, eq=False)
class ComparedReplay:
    """What a way to plan would have given on a history, beside others.

    Parameters
    ----------
    name : str
        A name that `eplb_np.replay.planner_named` knows.
    replay : Replay
        Balance on windows that the plans were not made from, moves, and times.
    """

    name: str
    replay: Replay


@dataclass(frozen=True, eq=False)
class Comparison:
    """Policies side by side. Made by `compare`.

    Parameters
    ----------
    plans : tuple of ComparedPlan
        Plans made from the load, of a history from the sum of its windows, and judged on it.
    at_most : float
        No plan for these sizes has a higher GPU balancedness on that load.
    replays : tuple of ComparedReplay
        The ways to plan, judged on windows that they had not seen. Empty without a history.
    replays_at_most : float or None
        No plans for these sizes have a higher GPU balancedness over those windows, not even if
        they were known. None without a history.
    left_out : tuple of str
        What cannot plan for these sizes, and why.
    """

    plans: tuple[ComparedPlan, ...]
    at_most: float
    replays: tuple[ComparedReplay, ...]
    replays_at_most: float | None
    left_out: tuple[str, ...]

    @property
    def best(self) -> ComparedPlan:
        """The most balanced of the plans that policies made from scratch; the first of several."""
        made = [plan for plan in self.plans if plan.name in POLICIES]
        return max(made, key=lambda plan: plan.summary.balancedness)

    def __repr__(self) -> str:
        said = ", ".join(f"{plan.name} {plan.summary.balancedness:.4f}" for plan in self.plans)
        return f"Comparison({said}, at most {self.at_most:.4f})"


def compare(
    load: ArrayLike,
    topology: Topology | None = None,
    *,
    current: Plan | None = None,
    limits: MoveLimits | None = None,
    first_window: int = 1,
    num_windows: int = 8,
    on_window: Callable[[], object] | None = None,
) -> Comparison:
    """Compare all policies on one load, and all ways to plan on a history.

    Parameters
    ----------
    load : array_like, shape [L, E] or [W, L, E]
        Load of each expert, in one window or in W windows, oldest first.
    topology : Topology, optional
        Sizes of the deployment; by default those of ``current``.
    current : Plan, optional
        The plan in use: what each plan would move, and what mending it gives.
    limits : MoveLimits, optional
        Budget, price and tolerance of mending ``current``.
    first_window : int, default: 1
        First window of a history to plan for and to judge on.
    num_windows : int, default: 8
        Windows that planning from scratch sums, before each window of a history.
    on_window : callable, optional
        Called after each window that each way to plan has been judged on.

    Returns
    -------
    Comparison
        All of them, side by side.

    Raises
    ------
    ValueError
        If the load is not valid, a history has no more than ``first_window`` windows, neither
        ``topology`` nor ``current`` is given, or ``current`` does not fit.

    Notes
    -----
    Everything but the times is deterministic.

    Two calls of `make_plan` for each policy, and with a history up to one
    for each window and way to plan.

    Examples
    --------
    >>> from eplb_np import Topology
    >>> compared = compare([[90, 10, 30, 10]], Topology(4, 6, num_gpus=2))
    >>> for plan in compared.plans:
    ...     print(plan.name, round(plan.summary.balancedness, 3))
    in-order 0.875
    hybrid 1.0
    deepseek 1.0
    refined 1.0
    """
    given = as_array(load, "load")
    history = as_history(given, "load")
    total = given.sum(axis=0, dtype=np.float64) if given.ndim == 3 else given
    if current is not None:
        check_is_plan(current)
        topology = current.topology if topology is None else topology
    elif topology is None or limits is not None:
        raise ValueError(
            "no topology is given: give one, or the plan in use as current"
            if topology is None
            else "limits are given, but no plan to move from: give current, or leave out limits"
        )
    check_is("topology", topology, Topology, "build one from the sizes")
    check_limits(limits)
    if current is not None:
        check_current(current, history.shape[1], topology, "refined")
    first = as_size("first_window", first_window)
    last = as_size("num_windows", num_windows)
    if 1 < len(history) <= first:
        raise ValueError(
            f"load has {len(history)} windows, so first_window={first} leaves none to judge on: "
            f"give {first + 1} or more windows, or their sum"
        )
    lower_bound(total, topology)  # says it if the experts are not those of the load
    left_out: list[str] = []
    plans = _compare_plans(total, topology, current, limits, left_out)
    if len(history) == 1:
        return Comparison(plans, plans[0].summary.at_most, (), None, tuple(left_out))
    replays = []
    load_planners(compared_planners(topology), topology, history.shape[1])
    for name in compared_planners(topology):
        planner = planner_named(name, topology, last)
        windows = []
        for window in replay_windows(history, planner, first_window=first):
            windows.append(window)
            if on_window is not None:
                on_window()
        replays.append(ComparedReplay(name, Replay.of_windows(windows)))
    return Comparison(
        plans,
        plans[0].summary.at_most,
        tuple(replays),
        windows_at_most(history[first:], topology),
        tuple(left_out),
    )


def compared_planners(topology: Topology) -> list[str]:
    """Names of the planners that can plan for a topology."""
    return [name for name in planner_names() if _can_plan(name, topology)]


def _can_plan(name: str, topology: Topology) -> bool:
    if name == "in-order":
        return topology.active_gpus is None
    try:
        planner_named(name, topology)
    except ValueError:
        return False
    return True


def load_planners(names: Iterable[str], topology: Topology, num_layers: int) -> None:
    """Let planners plan once, so that loading their kernels is no part of any time."""
    for name in names:
        replay(
            np.ones((3, min(num_layers, 8), topology.num_experts)), planner_named(name, topology)
        )


def windows_at_most(windows: NDArray[Any], topology: Topology) -> float:
    """Balancedness over windows [W, L, E] that no plans exceed, not even if they knew them."""
    bound = sum(float(lower_bound(window, topology).sum()) for window in windows)
    at_once = float(windows.sum(dtype=np.float64)) / topology.active_speed
    return at_once / bound if bound > 0 else 1.0


def _compare_plans(
    load: NDArray[np.generic],
    topology: Topology,
    current: Plan | None,
    limits: MoveLimits | None,
    left_out: list[str],
) -> tuple[ComparedPlan, ...]:
    """Make all plans for a load [L, E], and say of the others why they were not made."""
    rows: list[ComparedPlan] = []

    def add(name: str, plan: Plan, milliseconds: float | None = None) -> None:
        moved = None
        if current is not None:
            moved = count_fetches(current.phy2log, plan.phy2log, topology.gpu_of_slot)
        rows.append(ComparedPlan(name, plan, plan.summary(load), moved, milliseconds))

    plan_with = partial(make_plan, load, topology)
    makers: dict[str, Callable[[], Plan]] = {}
    for policy in POLICIES:
        try:
            check_policy(policy, topology)
        except ValueError as error:
            left_out.append(f"{policy}: {error}")
        else:
            makers[policy] = partial(plan_with, policy=cast(PolicyName, policy))
    if current is not None:
        add("current", current)
        makers["mended"] = partial(plan_with, policy="refined", current=current, limits=limits)
    if topology.active_gpus is None:
        add("in-order", in_order_plan(len(load), topology))
    else:
        left_out.append("in-order: its slots are on all GPUs, but some are not active")
    for name, make in makers.items():
        make()
        start = time.perf_counter()
        plan = make()
        add(name, plan, 1e3 * (time.perf_counter() - start))
    return tuple(rows)
