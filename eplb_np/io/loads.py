"""Read recorded loads from ``.json``, ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, LARGEST_TOTAL
from eplb_np._files.json_text import read_json
from eplb_np._files.numpy_files import Archive, StoredArray, open_npy
from eplb_np._files.reading import open_regular, reading, suffix_of
from eplb_np._loads.host import as_array, check_loads

KEY = "logical_count"
SUFFIXES = (".json", ".npy", ".npz")

LARGEST_STEP = 1 << 24
"""Loads of one step, over all layers and experts."""

LARGEST_RECORDING = 1 << 27
"""Loads of all steps: that zeros are no loads shows at their end only, but within a second."""

BLOCK_BYTES = 1 << 23
"""Bytes of the steps that are read and summed at a time."""


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
    that name, or a single array. Anything else raises a one-line ``ValueError``, soon: sizes are
    checked before anything is unpacked. At most 256 MiB of JSON or 512 MiB of arrays are
    read, with at most 2**27 loads, and 2**24 in a step.
    """
    suffix = suffix_of(path, SUFFIXES)
    with reading(path), open_regular(path) as file:
        if suffix == ".json":
            values = _read_json(file)
            total = _sum_steps(values.shape, [values])
        elif suffix == ".npy":
            total = _sum_array(open_npy(file))
        else:
            archive = Archive(file)
            with archive.array(_name_in(archive)) as stored:
                total = _sum_array(stored)
        return select_moe_layers(total)


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


def _sum_array(stored: StoredArray) -> NDArray[np.float64]:
    as_array(np.empty(0, stored.dtype), KEY)  # refuses what is not a real number type
    _check_shape(stored.shape)
    if len(stored.shape) == 2:
        return _sum_steps(stored.shape, [stored.read()])
    return _sum_steps(stored.shape, stored.blocks(BLOCK_BYTES))


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"{KEY} has shape {shape}: give [layers, experts] or [steps, layers, experts], "
            "with no empty axis"
        )
    if shape[-2] * shape[-1] > LARGEST_STEP or max(shape[-2:]) > LARGEST_SIZE:
        raise ValueError(
            f"{KEY} has shape {shape}: at most {LARGEST_SIZE} layers or experts, and "
            f"{LARGEST_STEP} loads of a step, are read"
        )
    if math.prod(shape) > LARGEST_RECORDING:
        raise ValueError(
            f"{KEY} has shape {shape}: at most {LARGEST_RECORDING} loads are read: save the sum "
            f"over steps, or parts of {LARGEST_RECORDING // (shape[-2] * shape[-1])} steps at most"
        )


def _sum_steps(shape: tuple[int, ...], parts: Iterable[NDArray[np.generic]]) -> NDArray[np.float64]:
    """Sum loads [steps, layers, experts] that come in parts, some steps each; check them."""
    load = np.zeros(shape[-2:])
    most = min(math.prod(shape[:-2]), max(1, BLOCK_BYTES // load.nbytes))
    memory = np.empty((1 + most, *load.shape))  # once: pages of new memory cost more than the sums
    first = 0
    with np.errstate(over="ignore"):  # what overflows is found, and named
        for part in parts:
            steps = part.reshape(-1, *load.shape)
            for start in range(0, len(steps), most):
                block = steps[start : start + most]
                added = memory[: 1 + len(block)]
                added[0] = load
                added[1:] = block
                if not added.min() >= 0 or not added.max() < np.inf:
                    for i, step in enumerate(added[1:], first):
                        check_loads(step, f"{KEY}[{i}]" if len(shape) == 3 else KEY)
                added.sum(axis=0, out=load)
                first += len(block)
        too_large = load.sum(axis=1) >= LARGEST_TOTAL
    if too_large.any():
        raise ValueError(
            f"{KEY}: the loads of layer {int(too_large.argmax())} add up to 2**127 or more, so "
            "sums of them would exceed float32's range: scale them down (only ratios matter)"
        )
    return load


def _read_json(file: BinaryIO) -> NDArray[np.generic]:
    content = read_json(file, (KEY,))
    if KEY not in content:
        raise ValueError(f'it has no key "{KEY}": give {{"{KEY}": ...}}')
    values = as_array(content[KEY], KEY)
    _check_shape(values.shape)
    return values


def _name_in(archive: Archive) -> str:
    """Name of the array with the loads."""
    names = list(archive.members)
    if KEY not in names and len(names) != 1:
        raise ValueError(f'it holds the arrays {names}: name the one with the loads "{KEY}"')
    return KEY if KEY in names else names[0]
