"""Whatever is done to a file, its reader returns what is sound or says in one line what is not."""

import pytest
from arena import HARMFUL, each, held, outcomes
from readers import EXTREME, READERS, WITH_TOPOLOGY
from support import needs_jit

pytestmark = needs_jit

EXTREMES = [f"{name}, {kind}" for name in WITH_TOPOLOGY for kind in EXTREME]


@each(READERS)
def test_a_damaged_file_is_read_or_refused(name) -> None:
    held(outcomes("readers")[name], *HARMFUL)


@each(READERS)
def test_a_damaged_file_causes_no_warning(name) -> None:
    held(outcomes("readers")[name], "warning")


@each(READERS)
def test_a_refusal_can_be_printed(name) -> None:
    held(outcomes("readers")[name], "unprintable")


@each(EXTREMES)
def test_a_file_with_extreme_numbers_is_read_or_refused(name) -> None:
    held(outcomes("readers")[name], *HARMFUL, "warning")


@pytest.mark.slow
@each(READERS)
def test_thousands_of_damaged_files(name) -> None:
    held(outcomes("readers", long=True)[name], *HARMFUL)


@pytest.mark.slow
@each(EXTREMES)
def test_all_files_with_extreme_numbers_are_read_or_refused(name) -> None:
    held(outcomes("readers", long=True)[name], *HARMFUL, "warning")
