"""Reassignments promise no more than they keep, also where GPUs hold an expert twice."""

import numpy as np
import pytest
from support import fewer

from eplb_np.local_search.reassign import best_reassignment, reassign_slot
from eplb_np.local_search.slot_table import SlotTable, make_slot_table, slowest_gpu, update_table
from eplb_np.moves.fetches import UNLIMITED

EXPERTS, GPUS, SLOTS = 5, 4, 3


def random_table(generator: np.random.Generator, most_held: int) -> SlotTable:
    """A table in which some GPUs hold an expert twice, and all experts have a replica."""
    table = make_slot_table(SLOTS, GPUS, EXPERTS)
    table.most_held[0] = most_held
    table.weight[:] = generator.lognormal(0, 1, EXPERTS)
    table.slowness[:] = generator.choice([1.0, 1.5], GPUS)
    slots = np.concatenate((np.arange(EXPERTS), generator.integers(0, EXPERTS, 7)))
    table.expert[:] = generator.permutation(slots).reshape(SLOTS, GPUS)
    update_table(table)
    return table


@pytest.mark.parametrize("most_held", [1, UNLIMITED], ids=["once", "any number"])
def test_no_gpu_ends_later_than_promised(most_held) -> None:
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(fewer(3000, 300)):
        table = random_table(generator, most_held)
        if most_held == 1 and (table.held > 1).any():
            continue
        before = table.gpu_load * table.slowness
        h = slowest_gpu(table)
        promised, (row, g, expert) = best_reassignment(table, h, table.unlimited)
        if g < 0:
            continue
        found += 1
        reassign_slot(table, row, g, expert)
        after = table.gpu_load * table.slowness
        slower = (after > before * (1 + 1e-12)) | (np.arange(GPUS) == h)
        assert after[slower].max() <= promised * (1 + 1e-12)
        assert after.max() < before.max()
    assert found > 10
