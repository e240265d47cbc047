"""Lets the attacks import the helpers beside them, and says which of them every run makes."""

import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):  # they fork, limit processes and read /proc
    collect_ignore_glob = ["test_*.py"]

sys.path.insert(0, str(Path(__file__).parent))

IN_EVERY_RUN = {"test_guarantees.py", "test_planted_caches.py", "test_weight_store.py"}
"""The others take minutes, or measure time and memory, which a busy machine has less of."""


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long attacks to `make test-slow`."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in IN_EVERY_RUN:
            item.add_marker(pytest.mark.slow)
