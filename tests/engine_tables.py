"""What every engine relies on in the three tables of a plan, asserted by it or not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

LOADS = {
    "drawn": np.random.default_rng(3).gamma(0.5, 100, (4, 16)).astype(np.int32),
    # No even split of 24 replicas on 4 GPUs is balanced in every layer.
    "skewed": (np.random.default_rng(34).lognormal(0, 3, (4, 16)) * 10).astype(np.int32),
    "zeros": np.zeros((4, 16), np.int32),
    "ones": np.ones((4, 16), np.int32),
    "dense rows": np.random.default_rng(4).integers(0, 99, (4, 16)) * [[0], [1], [1], [0]],
    "one expert": np.eye(4, 16, dtype=np.int64) * 1000,
    "large": np.random.default_rng(5).integers(0, 2**40, (4, 16)),
    "floats": np.random.default_rng(6).random((4, 16), np.float32),
}


def check_tables(
    tables: Any, num_experts: int, num_slots: int, dtype: Any = np.int64, *, dead: Any = ()
) -> None:
    """Check one layer after another, in plain loops."""
    phy2log, log2phy, count = (np.asarray(table) for table in tables)
    num_layers = len(phy2log)
    assert phy2log.shape == (num_layers, num_slots)
    assert log2phy.shape[:2] == count.shape == (num_layers, num_experts)
    assert 1 <= log2phy.shape[2] <= num_slots
    for table in (phy2log, log2phy, count):
        assert table.dtype == dtype
        assert table.flags.c_contiguous
        assert table.flags.writeable
    for layer in range(num_layers):
        for expert in range(num_experts):
            row = log2phy[layer, expert].tolist()
            used = row[: count[layer, expert]]
            assert used, "an expert without a slot"
            assert set(row[len(used) :]) <= {-1}
            holds = {
                slot
                for slot in range(num_slots)
                if phy2log[layer, slot] == expert and slot not in dead
            }
            assert set(used) == holds
    assert not set(log2phy.ravel().tolist()) & set(dead)


def repeated(tables: Any) -> bool:
    """Whether some expert has more entries than replicas."""
    phy2log, _, count = tables
    return int(np.asarray(count).sum()) > np.asarray(phy2log).size


@contextmanager
def unchanged(*arrays: np.ndarray) -> Iterator[None]:
    """Check that arrays stay as they are."""
    before = [array.copy() for array in arrays]
    yield
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def engine_module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> ModuleType:
    """Put a stand-in for a module of an engine, and for its packages, where imports find it."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        package = ModuleType(".".join(parts[:end]))
        package.__path__ = []
        monkeypatch.setitem(sys.modules, package.__name__, package)
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    return module
