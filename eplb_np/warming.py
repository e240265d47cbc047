"""Compile all kernels before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from eplb_np._arguments import as_list
from eplb_np.dispatch.quotas import assign, make_quotas
from eplb_np.dispatch.splitter import Splitter
from eplb_np.mending.limits import MoveLimits
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import (
    POLICIES,
    PlannedSplit,
    PolicyName,
    check_planned_split,
    check_policy,
)
from eplb_np.published import balanced_packing, rebalance_experts, replicate_experts
from eplb_np.topology import Topology

MOST_POLICIES = 99


def warmup(
    policies: Sequence[PolicyName] = get_args(PolicyName), *, split: PlannedSplit = "even"
) -> None:
    """Load the kernels from the disk cache, or compile them.

    Call this before a server takes requests, so that its first plan is as fast as all others.
    It is safe to call it again, or from several threads at once.

    Parameters
    ----------
    policies : sequence of {"hybrid", "deepseek", "refined"}, optional
        Policies that will be used; by default all. For ``"refined"`` this includes planning from
        several windows, and mending.
    split : {"even", "best", "certain"}, default: "even"
        With another than ``"even"``, also the kernels that split loads, give quotas and assign
        slots, and those that plan and mend for it, if ``policies`` include the refined one.

    Raises
    ------
    ValueError
        If a policy or the split is unknown.

    Notes
    -----
    Takes about a second if the cache holds this version's kernels. Compiling takes several
    seconds, and longer for the refined policy alone than for all the others.

    Examples
    --------
    >>> import eplb_np
    >>> eplb_np.warmup(["hybrid"])
    """
    policies = as_list("policies", policies, "give names of policies", most=MOST_POLICIES)
    for policy in policies:
        check_policy(policy)
    check_planned_split(split, "refined")
    load = np.ones((1, 2))
    for policy in policies:
        rebalance_experts(load, 4, 2, 1, 2, policy=policy)
        rebalance_experts(np.ones((8, 2)), 4, 2, 1, 2, policy=policy)  # for the SIMD form
        rebalance_experts(np.ones((1, 6)), 6, 6, 2, 2, policy=policy)  # three groups a node
    history = np.ones((2, 1, 2))  # the forecast
    for policy in policies:
        plan = make_plan(history, num_replicas=4, num_gpus=2, policy=policy)
        if POLICIES[policy].mender is not None:
            make_plan(history, current=plan, policy=policy).moves_from(plan)
            nodes = Topology(2, 4, 2, 2, 2)
            scattered = in_order_plan(1, nodes)  # groups go home, as when a lost GPU is back
            make_plan(history, current=scattered, policy=policy, limits=MoveLimits(total=0))
            if split != "even":
                planned = make_plan(history, num_replicas=4, num_gpus=2, policy=policy, split=split)
                make_plan(history, current=planned, policy=policy, split=split)
    if split != "even":
        splitter = Splitter(in_order_plan(1, Topology(2, 4, 2)))
        for counts in (np.ones((1, 2)), np.ones((1, 2), np.int64)):
            splitter.split(counts, evened=False)
            splitter.binding_gpus(counts)
            splitter.observe(counts)
            splitter.split_layer(0, counts[0])
        tokens = np.ones((2, 2), np.int64)
        slot_load = splitter.split_layer(0, tokens.sum(axis=0))
        quotas = make_quotas(splitter.plan, slot_load, tokens, layer=0)
        for dtype in (np.int32, np.int64):
            assign(np.array([[0, 1]], dtype), quotas[0], splitter.plan.log2phy[0])
    replicate_experts(load, 3)
    balanced_packing(load, 1)
