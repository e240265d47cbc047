"""No file takes more than 2 s and 1 GB to be refused."""

from arena import HARMFUL, each, held, outcomes
from hostile_files import cases
from support import needs_jit

NAMES = list(cases(long=False))


@needs_jit
@each(NAMES)
def test_a_hostile_file_is_refused_soon(name) -> None:
    held(outcomes("hostile_files")[name], *HARMFUL)
