"""Recorded loads from JSON, ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.reading import reading, suffix_of
from eplb_np._loads.host import as_array, check_loads

KEY = "logical_count"
SUFFIXES = (".json", ".npy", ".npz")


class RecordedLoad(NamedTuple):
    """Loads of a model's MoE layers, and which layers of the model these are."""

    load: NDArray[np.float64]
    """[L, E], the MoE layers only, summed over steps."""
    moe_layer_ids: list[int]
    """[L], the id in the model of each."""
    dense_layer_ids: list[int]
    """Layers whose recorded load is all zero: dense ones, which are not planned."""


def read_loads(path: str | os.PathLike[str]) -> RecordedLoad:
    """Read ``[layers, experts]``, or ``[steps, layers, experts]`` which is summed.

    JSON files are an object with the key ``logical_count``, ``.npz`` files an array of that
    name or a single array. Raises ``ValueError`` in one line for anything else.
    """
    suffix = suffix_of(path, SUFFIXES)
    with reading(path):
        values = _read_json(path) if suffix == ".json" else _read_numpy(path)
        return select_moe_layers(_sum_steps(as_array(values, KEY)))


def select_moe_layers(load: NDArray[np.float64]) -> RecordedLoad:
    """Part the MoE layers of ``load`` [layers, experts] from the dense ones, which are zero."""
    is_dense = (load == 0).all(axis=1)
    if is_dense.all():
        raise ValueError(f"all {len(load)} layers are zero, so there is no MoE layer to plan")
    moe = np.flatnonzero(~is_dense)
    return RecordedLoad(load[moe], moe.tolist(), np.flatnonzero(is_dense).tolist())


def _sum_steps(values: NDArray[np.generic]) -> NDArray[np.float64]:
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(
            f"{KEY} has shape {values.shape}: [layers, experts] or [steps, layers, experts] "
            "is needed, with nothing empty"
        )
    if values.ndim == 2:
        check_loads(values, KEY)
        return values.astype(np.float64)
    for i, step in enumerate(values):
        check_loads(step, f"{KEY}[{i}]")
    load: NDArray[np.float64] = values.astype(np.float64).sum(axis=0)
    return load


def _read_json(path: str | os.PathLike[str]) -> Any:
    with Path(path).open("rb") as file:
        content = json.load(file)
    if not isinstance(content, dict) or KEY not in content:
        raise ValueError(f'it is no JSON object with the key "{KEY}"')
    return content[KEY]


def _read_numpy(path: str | os.PathLike[str]) -> NDArray[Any]:
    with Path(path).open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        names = content.files
        if KEY not in names and len(names) != 1:
            raise ValueError(f'it holds the arrays {names}: name one of them "{KEY}"')
        array: NDArray[Any] = content[KEY if KEY in names else names[0]]
        return array
