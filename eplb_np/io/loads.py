"""Read recorded loads from ``.json``, ``.npy`` and ``.npz`` files."""

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
    """Loads of a model's MoE layers, and the ids of these layers in the model."""

    load: NDArray[np.float64]
    """[L, E] float64, the MoE layers only, summed over steps."""
    moe_layer_ids: list[int]
    """[L], id in the model of each MoE layer, ascending."""
    dense_layer_ids: list[int]
    """Ids of the layers whose recorded load is all zero: dense layers, which are not planned."""


def read_loads(path: str | os.PathLike[str]) -> RecordedLoad:
    """Read loads ``[layers, experts]``, or ``[steps, layers, experts]``, which are summed.

    A JSON file holds an object with the key ``logical_count``. An ``.npz`` file holds an array of
    that name, or a single array. Anything else raises a one-line ``ValueError``.
    """
    suffix = suffix_of(path, SUFFIXES)
    with reading(path):
        values = _read_json(path) if suffix == ".json" else _read_numpy(path)
        return select_moe_layers(_sum_steps(as_array(values, KEY)))


def select_moe_layers(load: NDArray[np.float64]) -> RecordedLoad:
    """Separate the MoE layers of ``load`` [layers, experts] from the dense ones, which are zero."""
    is_dense = (load == 0).all(axis=1)
    if is_dense.all():
        raise ValueError(
            f"{KEY}: all {len(load)} layers are zero, so there is no MoE layer to plan: "
            "give loads of at least one"
        )
    moe = np.flatnonzero(~is_dense)
    return RecordedLoad(load[moe], moe.tolist(), np.flatnonzero(is_dense).tolist())


def _sum_steps(values: NDArray[np.generic]) -> NDArray[np.float64]:
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(
            f"{KEY} has shape {values.shape}: give [layers, experts] or [steps, layers, experts], "
            "with no empty axis"
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
        raise ValueError(f'it is not a JSON object with the key "{KEY}": give {{"{KEY}": ...}}')
    return content[KEY]


def _read_numpy(path: str | os.PathLike[str]) -> NDArray[Any]:
    with Path(path).open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        names = content.files
        if KEY not in names and len(names) != 1:
            raise ValueError(f'it holds the arrays {names}: name the one with the loads "{KEY}"')
        array: NDArray[Any] = content[KEY if KEY in names else names[0]]
        return array
