"""No file takes more than 2 s and 1 GB to be refused."""

import known_faults
from arena import HARMFUL, each, held, outcomes
from hostile_files import cases
from support import needs_jit

NAMES = list(cases(long=False))
FAULTS = {
    name: known_faults.BIG_FILES
    for name in NAMES
    if name.startswith(("fifo", "bomb", "brackets"))
    or (name.startswith("endless") and name.endswith(".json"))
} | {"plan_of_nothing, Plan.load .json": known_faults.SIZES}


@needs_jit
@each(NAMES, FAULTS)
def test_a_hostile_file_is_refused_soon(name) -> None:
    held(outcomes("hostile_files")[name], *HARMFUL)
