"""The policies: named ways to make a plan, one row each.

A row names the policy's planner and says what it can do. Planners are given by name, not imported,
so that this module can come below them: plans, the command and the planners' callers need only
this table, and no kernel is loaded before it is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import is_one_of, one_line
from eplb_np.maps.log2phy import width_for_any_plan, width_for_this_plan
from eplb_np.topology import Topology

PolicyName = Literal["hybrid", "deepseek", "refined"]
Device = Literal["cpu", "cuda"]
Split = Literal["even", "best"]
"""How the load of an expert is split over its replicas: evenly, or as the exact split does it."""
PlannedSplit = Literal["even", "best", "certain"]
"""The split that a plan is made for; ``"certain"`` is the best split, and never an even one."""


class Policy(NamedTuple):
    """Everything there is to know about a policy. Functions are given as ``"module:function"``."""

    planners: Mapping[Device, str]
    """For each supported device, ``plan(weight, topology, policy, num_threads) -> Maps``."""

    mender: str | None = None
    """``mend(expected, in_use, topology, limits, num_threads) -> Maps`` mends a plan in use; None
    if the policy only plans from scratch."""

    split_planner: str | None = None
    """``plan(expected, current, topology, limits, certain, num_threads) -> Maps`` plans for the
    best split, from scratch or by mending; None if the policy plans for the even one only."""

    plans_unequal_gpus: bool = False
    """Whether GPUs may differ in slots and speed, or be gone."""

    log2phy_width: Callable[[Topology, NDArray[np.integer]], int] = width_for_this_plan
    """Length of the last axis of ``log2phy``, from the topology and the counts."""


POLICIES: dict[str, Policy] = {
    "hybrid": Policy(
        {"cpu": "eplb_np.stages.planner:make_maps", "cuda": "eplb_np.stages.gpu_planner:make_maps"},
        log2phy_width=width_for_any_plan,
    ),
    "deepseek": Policy(
        {"cpu": "eplb_np.stages.planner:make_maps", "cuda": "eplb_np.stages.gpu_planner:make_maps"},
    ),
    "refined": Policy(
        {"cpu": "eplb_np.local_search.planner:make_maps"},
        mender="eplb_np.mending.planner:mend_maps",
        split_planner="eplb_np.dispatch.planner:plan_maps",
        plans_unequal_gpus=True,
    ),
}


@functools.cache
def function_named(name: str) -> Callable[..., Any]:
    """Import the function that a row names as ``"module:function"``."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def check_policy(policy: str, topology: Topology | None = None) -> None:
    """Raise ``ValueError`` for an unknown policy, or one that cannot plan for the topology."""
    if not is_one_of(policy, POLICIES):
        known = ", ".join(repr(name) for name in POLICIES)
        raise ValueError(f"policy={one_line(policy)} is unknown: give one of {known}")
    if topology is not None and not POLICIES[policy].plans_unequal_gpus:
        topology.check_plain(policy)


def check_split(split: str) -> None:
    """Raise ``ValueError`` for an unknown way to split loads."""
    if not is_one_of(split, get_args(Split)):
        raise ValueError(f"split={one_line(split)} is unknown: give 'even' or 'best'")


def check_planned_split(split: str, policy: str, topology: Topology | None = None) -> None:
    """Raise ``ValueError`` for an unknown split, or one that cannot be planned for."""
    if not is_one_of(split, get_args(PlannedSplit)):
        raise ValueError(f"split={one_line(split)} is unknown: give 'even', 'best' or 'certain'")
    if split != "even" and POLICIES[policy].split_planner is None:
        raise ValueError(
            f"policy={policy!r} plans for the even split only: give policy='refined' with "
            f"split={split!r}, or split='even'"
        )
    if split == "even" and topology is not None and topology.bridges > 0:
        raise ValueError(
            f"bridges={topology.bridges}, but bridges are placed for the best split only: give "
            "policy='refined' with split='best', or bridges=0"
        )


def log2phy_width(topology: Topology, policy: str, logcnt: NDArray[np.integer]) -> int:
    """Length of ``log2phy``'s last axis; the shortest that fits if no policy made the plan."""
    row = POLICIES.get(policy)
    return (width_for_this_plan if row is None else row.log2phy_width)(topology, logcnt)
