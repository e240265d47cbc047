"""Fetch budgets: how many fetches each GPU, and all GPUs together, may still make.

`eplb_np.moves.fetches` says what counts as a fetch. Letter: D GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Int, Ints


class Budget(NamedTuple):
    """The fetches that are left, and a copy to go back to."""

    left: Ints  # [D + 1] int64, of each GPU, and in the last entry of all together
    saved: Ints  # [D + 1] int64, as it was at the last `save_budget`


@allocator
def make_budget(num_gpus: Int) -> Budget:
    """Allocate a `Budget`."""
    return Budget(ints(num_gpus + 1), ints(num_gpus + 1))


@kernel
def total_left(budget: Budget) -> Int:
    """Return the fetches that all GPUs together may still make."""
    total: Int = budget.left[budget.left.shape[0] - 1]
    return total


@kernel
def may_fetch(budget: Budget, g: Int) -> bool:
    """Whether GPU g may still make a fetch."""
    return bool(budget.left[g] > 0 and total_left(budget) > 0)


@kernel
def charge(budget: Budget, g: Int, fetches: Int) -> None:
    """Take fetches of GPU g off the budget."""
    budget.left[g] -= fetches
    budget.left[budget.left.shape[0] - 1] -= fetches


@kernel
def save_budget(budget: Budget) -> None:
    """Remember what is left now."""
    for i in range(budget.left.shape[0]):
        budget.saved[i] = budget.left[i]


@kernel
def restore_budget(budget: Budget) -> None:
    """Go back to what was left at the last `save_budget`."""
    for i in range(budget.left.shape[0]):
        budget.left[i] = budget.saved[i]
