"""The donor fix-up of the published algorithm never changes a row.

Its donor is the expert with the largest average. Without one of its replicas that average can
only grow, so the largest average never falls, and the move is never kept.
"""

import naive
import numpy as np
from cases import random_cases, replication_cases
from support import compiled, fewer

from eplb_np import replicate_experts
from eplb_np.stages.replication.cpu import donor_fixup

RNG = np.random.default_rng(2)


def test_replica_counts_are_those_before_the_fixup():
    for case in replication_cases(fewer(3000, 150), 40):
        rows = naive._rows(case.weight)
        granted = [naive._grant_extras(row, case.num_phy) for row in rows]
        np.testing.assert_array_equal(replicate_experts(*case.args)[2], granted, case.id)
        for row, count in zip(rows, granted, strict=True):
            assert naive._fix_donor(row, count) == count, case.id


def test_no_counts_at_all_are_changed():
    """Nor does it change counts that no allocation would make."""
    fixup = compiled(donor_fixup)
    for case in random_cases(fewer(3000, 150), 41):
        for row in np.asarray(case.weight, np.float32):
            count = RNG.integers(1, 9, row.size)
            before = count.copy()
            assert not fixup(row, count), case.id
            np.testing.assert_array_equal(count, before, case.id)
            assert naive._fix_donor(list(row), before.tolist()) == before.tolist(), case.id
