"""What a `Rebalancer` proposes, and the reason in one line."""

from __future__ import annotations

from dataclasses import dataclass

from eplb_np.forecast import Expected
from eplb_np.maps.homes import groups_are_home
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan
from eplb_np.policies import PlannedSplit, Split


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
    """

    plan: Plan
    moves: Moves | None
    reason: str

    @property
    def stays(self) -> bool:
        """Whether to keep the plan in use: there is nothing to move."""
        return self.moves is not None and len(self.moves) == 0


def reason_of(
    before: Plan,
    after: Plan,
    moves: Moves,
    expected: Expected,
    switched: bool,
    limited: bool,
    planned_split: PlannedSplit,
) -> str:
    """Say in one line what was done, and what balancedness to expect from it."""
    load = expected.load
    why = "the workload has changed; " if switched else ""
    if before.topology.active_gpus != after.topology.active_gpus:
        why = "the active GPUs have changed; "
    if limited and not groups_are_home(after.phy2log, after.topology):
        why += "groups are still moving back to their nodes; "
    split: Split = "even" if planned_split == "even" else "best"
    then = after.balancedness(load, split=split)
    under = " under the best split" if split == "best" else ""
    if len(moves) == 0:
        return f"{why}no move pays off: expected balancedness {then:.4f}{under}"
    fetches = "1 fetch takes" if len(moves) == 1 else f"{len(moves)} fetches take"
    start = (
        ""
        if before.topology != after.topology
        else f"from {before.balancedness(load, split=split):.4f} "
    )
    return f"{why}{fetches} expected balancedness {start}to {then:.4f}{under}"
