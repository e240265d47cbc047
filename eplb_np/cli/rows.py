"""Rows of a table that say what a plan is, and how it balances a load."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eplb_np.plan import Plan
from eplb_np.summaries import PlanSummary
from eplb_np.topology import Topology

EVEN = 1.00005
"""Below this, the busiest node carries what the mean node does, in the digits that are printed."""


def filled(rows: Mapping[str, str]) -> dict[str, str]:
    """Return the rows that say something."""
    return {name: text for name, text in rows.items() if text}


def deployment(plan: Plan) -> str:
    """Say which experts are on which GPUs, in numbers."""
    return deployment_of(plan.topology)


def deployment_of(sizes: Topology) -> str:
    """Say how many experts, slots, GPUs and nodes there are."""
    slots = sizes.active_slots[sizes.active_slots > 0]
    least, most = int(slots.min()), int(slots.max())
    each = f"{most}" if least == most else f"{least} or {most}"
    if most - least > 1:
        each = f"{least} to {most}"
    gone = sizes.num_gpus - len(slots)
    nodes = f" of {sizes.num_nodes} nodes" if sizes.num_nodes > 1 else ""
    return (
        f"{sizes.num_experts} experts in {sizes.num_replicas} slots on {sizes.num_gpus} GPUs"
        f"{nodes}, {each} replicas per GPU{f'; GPUs that are gone: {gone}' if gone else ''}"
    )


def policy(plan: Plan) -> str:
    """Say who made the plan, and whether groups stay on nodes."""
    return f"{plan.policy}, {placement_of(plan.topology)}"


def placement_of(sizes: Topology) -> str:
    """Say whether groups stay on nodes, and if they cannot, why."""
    why = ""
    if sizes.num_groups % sizes.num_nodes:
        why = f" ({sizes.num_nodes} nodes do not divide {sizes.num_groups} groups)"
    return f"{sizes.placement} placement{why}"


def nodes(plan: Plan, found: PlanSummary) -> str:
    """Say how much more the busiest node carries than the mean one; nothing on a single node."""
    if plan.topology.num_nodes == 1:
        return ""
    if found.node_share < EVEN:
        return "all carry the same"
    return (
        f"the busiest carries {found.node_share:.4f} times the mean; it is node "
        f"{found.busiest_node} in {found.busiest_node_layers} of {plan.num_layers} layers"
    )


def duplicates(number: int) -> str:
    """Say how many slots are wasted, if any are."""
    return f"{number}: slots whose expert is on their GPU already" if number else ""


def balance_by_layer(plan: Plan, load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the balancedness [L] of each layer, as `Plan.balancedness` has that of all."""
    longest = plan.gpu_time(load).max(axis=1)
    at_once = plan.gpu_load(load).sum(axis=1) / plan.topology.active_speed
    return np.where(longest > 0, at_once / np.where(longest > 0, longest, 1.0), 1.0)


def worst(found: PlanSummary) -> str:
    """Say which layer is balanced worst."""
    return f"{found.worst_layer_id}, at {found.worst_layer_balancedness:.4f}"
