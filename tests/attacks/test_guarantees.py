"""The page of guarantees names tests that exist, and says so while some of them fail."""

import re
from pathlib import Path

import pytest
from support import TESTS

PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:attacks/)?test_\w+\.py)::(test_\w+)`", PAGE)))


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if row != "| promise | held by |"]
    assert len(promises) > 30
    assert all("::test_" in row for row in promises)
    assert PAGE.count("::test_") >= len(NAMED) > 30


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_named_test_exists(file, test) -> None:
    found = [path for path in TESTS.rglob(Path(file).name) if str(path).endswith(f"/{file}")]
    assert len(found) == 1, f"{file} is in {found}"
    assert re.search(rf"^def {test}\(", found[0].read_text(), re.MULTILINE)
