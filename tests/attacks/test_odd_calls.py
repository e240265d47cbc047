"""Whatever is passed to a public function, it answers or says in one line what is wrong with it."""

import pytest
from arena import HARMFUL, each, held, outcomes
from odd_calls import CALLS
from support import needs_jit

pytestmark = needs_jit


@each(CALLS)
def test_an_odd_argument_is_taken_or_refused(name) -> None:
    held(outcomes("odd_calls")[f"{name}, odd"], *HARMFUL)


@each(CALLS)
def test_a_huge_number_is_taken_or_refused(name) -> None:
    held(outcomes("odd_calls")[f"{name}, huge"], *HARMFUL)


@pytest.mark.slow  # compiles everything once more
@each(CALLS)
def test_an_odd_argument_makes_no_kernel_leave_its_arrays(name) -> None:
    found = outcomes("odd_calls", NUMBA_BOUNDSCHECK="1")[f"{name}, odd"]
    assert not any("IndexError" in text for text in found.get("wrong", []))
    held(found, "crash", "hang")
