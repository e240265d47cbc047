"""What a `Rebalancer` proposes, and the reason in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eplb_np._notebook import rows_html
from eplb_np.maps.homes import groups_are_home
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan
from eplb_np.policies import PlannedSplit, Split

Cause: TypeAlias = Literal["first", "gpus", "workload", "groups", "load"]
"""Why a proposal is not the one before: see `Proposal`."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a `Rebalancer` proposes.

    Parameters
    ----------
    plan : Plan
        The plan to use next; the plan in use if no move pays off.
    moves : Moves or None
        Moves from the plan in use to ``plan``; None for the first plan, which has to be loaded in
        full.
    reason : str
        Why, in one line.
    cause : {"first", "gpus", "workload", "groups", "load"}
        The same as one word, to count. ``"first"``: no plan was in use. ``"gpus"``: GPUs were lost
        or are back. ``"workload"``: it has changed. ``"groups"``: limits still keep groups of
        experts from their nodes. ``"load"``: none of these. Of several, the first in this order.
    load : ndarray, shape [L, E], float64
        The load that is expected of each logical expert in the coming window: the forecast. Before
        the first window, 1 for every expert.
    expected_balancedness : float
        Balancedness of ``plan`` under ``load``, with the split that the plan is for.
    windows_used : float
        Number of windows behind the forecast, in effect: after n steady windows about n, after a
        change of workload about 1; 0 before the first.
    workload_changes : int
        Changes of workload in the windows since the proposal before.
    """

    plan: Plan
    moves: Moves | None
    reason: str
    cause: Cause
    load: NDArray[np.floating[Any]]
    expected_balancedness: float
    windows_used: float
    workload_changes: int

    @property
    def stays(self) -> bool:
        """Whether to keep the plan in use: there is nothing to move."""
        return self.moves is not None and len(self.moves) == 0

    def _repr_html_(self) -> str:
        moves = "all of the plan: none was in use" if self.moves is None else str(self.moves)
        rows = {
            "reason": self.reason,
            "cause": self.cause,
            "moves": moves,
            "expected balancedness": f"{self.expected_balancedness:.4f}",
            "windows used": f"{self.windows_used:.1f}",
            "workload changes": self.workload_changes,
            "plan": self.plan,
        }
        return rows_html("Proposal", rows)


class Known(NamedTuple):
    """What is known when a plan is proposed."""

    load: NDArray[np.floating[Any]]  # [L, E]
    windows_used: float
    workload_changes: int
    lost_gpus: bool  # since the plan in use was set; they may be back
    limited: bool
    split: PlannedSplit


def proposal_of(before: Plan | None, plan: Plan, moves: Moves | None, known: Known) -> Proposal:
    """Say what was done and why, and what balancedness to expect from it."""
    split: Split = "even" if known.split == "even" else "best"
    then = plan.balancedness(known.load, split=split)
    cause: Cause = "first"
    reason = "no plan was in use: planned from scratch"
    if before is not None and moves is not None:
        cause = "load"
        why = ""
        if known.workload_changes:
            cause, why = "workload", "the workload has changed; "
        if known.lost_gpus or before.topology.active_gpus != plan.topology.active_gpus:
            cause, why = "gpus", "the active GPUs have changed; "
        if known.limited and not groups_are_home(plan.phy2log, plan.topology):
            cause = "groups" if cause == "load" else cause
            why += "groups are still moving back to their nodes; "
        under = " under the best split" if split == "best" else ""
        reason = why + _gain(before, plan, moves, known.load, split, then) + under
    return Proposal(
        plan, moves, reason, cause, known.load, then, known.windows_used, known.workload_changes
    )


def _gain(
    before: Plan, plan: Plan, moves: Moves, load: NDArray[Any], split: Split, then: float
) -> str:
    if len(moves) == 0:
        return f"no move pays off: expected balancedness {then:.4f}"
    fetches = "1 fetch takes" if len(moves) == 1 else f"{len(moves)} fetches take"
    start = (
        ""
        if before.topology != plan.topology
        else f"from {before.balancedness(load, split=split):.4f} "
    )
    return f"{fetches} expected balancedness {start}to {then:.4f}"
