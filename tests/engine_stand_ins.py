"""Stand-ins of what engines do with a plan that they are given, and of PyTorch's tensors."""

from __future__ import annotations

import sys
import types
from collections import Counter
from typing import Any

import numpy as np
import pytest


class Tensor:
    """As much of a tensor as adapters need, with what PyTorch refuses."""

    def __init__(self, array: np.ndarray, device: str = "cpu", wide: bool = True) -> None:
        self.array = array
        self.device = device
        self.wide = wide  # False for bfloat16, which NumPy lacks

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def to(self, device: str) -> Tensor:
        array = self.array if device == self.device else self.array.copy()
        return Tensor(array, device, self.wide)

    def float(self) -> Tensor:
        return Tensor(self.array.astype(np.float32), self.device)

    def numpy(self) -> np.ndarray:
        if not self.wide:
            raise TypeError("Got unsupported ScalarType BFloat16")
        if self.device != "cpu":
            raise TypeError("can't convert device type tensor to numpy")
        return self.array


def from_numpy(array: np.ndarray) -> Tensor:
    assert array.flags.writeable  # PyTorch warns
    return Tensor(array)


FAKE_TORCH = types.SimpleNamespace(Tensor=Tensor, from_numpy=from_numpy)


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "torch", FAKE_TORCH)
    return FAKE_TORCH


def check_map(phy2log: np.ndarray, num_layers: int, num_experts: int, num_slots: int) -> None:
    """What every engine takes for granted: nobody checks it, and wrong weights are served."""
    assert phy2log.shape == (num_layers, num_slots)
    assert phy2log.flags.c_contiguous
    assert phy2log.flags.writeable
    assert phy2log.min() >= 0
    for row in phy2log.tolist():
        assert set(row) == set(range(num_experts))


def carry_out(old: np.ndarray, new: np.ndarray, num_gpus: int) -> tuple[int, int]:
    """Move weights from slot to slot as ranks do, each by the two maps alone.

    A rank takes an expert from one of its own slots if it can, else from another rank, once.
    Returns how many slots were copied within ranks, and how many weights were received.
    """
    within = received = 0
    slots = new.shape[1] // num_gpus
    for layer in range(len(new)):
        weights = old[layer].copy()  # an expert's weights are its number
        for rank in range(num_gpus):
            here = slice(rank * slots, (rank + 1) * slots)
            mine = old[layer, here]
            arrived = {}
            for slot, expert in enumerate(new[layer, here].tolist(), here.start):
                if slot < old.shape[1] and old[layer, slot] == expert:
                    continue
                if expert in mine:
                    within += 1
                elif expert not in arrived:
                    senders = np.flatnonzero(old[layer] == expert)
                    assert senders.size, f"nobody holds expert {expert}"
                    received += 1
                    arrived[expert] = True
                if slot < len(weights):
                    weights[slot] = expert
        np.testing.assert_array_equal(weights[: new.shape[1]], new[layer, : len(weights)])
    return within, received


def slots_that_could_stay(old: np.ndarray, new: np.ndarray, num_gpus: int) -> int:
    """The most slots that keep their expert, if slots of a GPU may change places."""
    most = 0
    slots = new.shape[1] // num_gpus
    for before, after in zip(old, new, strict=True):
        for rank in range(num_gpus):
            here = slice(rank * slots, (rank + 1) * slots)
            most += (Counter(before[here].tolist()) & Counter(after[here].tolist())).total()
    return most


def slots_that_stay(old: np.ndarray, new: np.ndarray) -> int:
    width = min(old.shape[1], new.shape[1])
    return int((old[:, :width] == new[:, :width]).sum())


def logical_maps(phy2log: np.ndarray, num_experts: int, width: int) -> tuple[np.ndarray, ...]:
    """Slots of each expert in ascending order, -1 behind them, and their number."""
    table = np.full((len(phy2log), num_experts, width), -1)
    count = np.zeros((len(phy2log), num_experts), int)
    for layer, row in enumerate(phy2log.tolist()):
        for slot, expert in enumerate(row):
            table[layer, expert, count[layer, expert]] = slot
            count[layer, expert] += 1
    return table, count
