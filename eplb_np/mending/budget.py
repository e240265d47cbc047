"""Fetch budgets."""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints


@kernel
def charge(budget: Ints, g: Int) -> None:
    """Take one fetch of GPU g off the budget."""
    budget[g] -= 1
    budget[budget.shape[0] - 1] -= 1


@kernel
def may_fetch(budget: Ints, g: Int) -> bool:
    """Whether the budget leaves GPU g a fetch."""
    return bool(budget[g] > 0 and budget[budget.shape[0] - 1] > 0)
