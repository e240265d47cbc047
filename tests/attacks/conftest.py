"""Lets the attacks import the helpers beside them, and says in which runs they are made."""

import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):  # they fork, limit processes and read /proc
    collect_ignore_glob = ["test_*.py"]

sys.path.insert(0, str(Path(__file__).parent))


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the attacks out of the run without compiled kernels: they start processes of their own.

    Every other run makes them in their short form, but for those that are marked as slow.
    """
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.same_without_jit)
