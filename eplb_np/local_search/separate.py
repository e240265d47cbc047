"""Separate duplicates: swap away an expert's second replica on a GPU. Two fetches, like any swap.

Duplicates are replicas of one expert that share a GPU: two do the work of one. Local search calls
`separate_duplicates` on a first plan; mending calls `best_separating_swap` and decides whether to
make the swap.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable
from eplb_np.local_search.swap import pair_time, swap
from eplb_np.maps.maps import EMPTY

LAST_RESORT = 1e9
"""Added to the time of a swap that brings in a duplicate of another expert: it only counts if there
is nothing else."""


@kernel
def separate_duplicates(table: SlotTable) -> None:
    """Swap until no GPU holds two replicas of one expert, if that is possible.

    Suppose GPU g holds expert a twice. While a has no more replicas than there are GPUs, some GPU
    k does not hold a. Either g holds fewer than all of k's distinct experts, or k itself has
    duplicates; in both cases one swap reduces the number of duplicates, so this ends. With equal
    slots per GPU there is always such a k. With unequal slots a plan without duplicates may not
    exist, and the search for k may find none.
    """
    for g in range(table.size.shape[0]):
        for row in range(table.size[g]):
            if table.held[g, table.expert[row, g]] > 1:
                _, k, other = best_separating_swap(table, row, g)
                if k >= 0:
                    swap(table, row, g, other, k)


@kernel
def best_separating_swap(table: SlotTable, row: Int, g: Int) -> tuple[float, Int, Int]:
    """Find the swap of a duplicate that ends the two GPUs soonest.

    Returns the longer time of the two, the other GPU and its row; the GPU is -1 if no swap
    separates the duplicates.
    """
    a = table.expert[row, g]
    best = np.inf
    best_k: Int = -1
    best_row: Int = -1
    for k in range(table.size.shape[0]):
        if table.held[k, a] > 0:
            continue
        for other in range(table.size[k]):
            b = table.expert[other, k]
            if b == EMPTY or (table.held[g, b] > 0 and table.held[k, b] < 2):
                continue
            time = pair_time(table, row, g, other, k)
            if table.held[g, b] > 0:  # g has a b already, so b's duplicate only moves here
                time += LAST_RESORT
            if time < best:
                best = time
                best_k = k
                best_row = other
    return best, best_k, best_row
