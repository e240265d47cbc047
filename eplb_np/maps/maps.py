"""The maps that a plan is made of, what they must satisfy, and how to allocate them.

Letters: L layers, E logical experts, P slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np.topology import Topology

EMPTY = np.int64(-1)
"""The one sentinel: a slot without a replica, an entry of ``log2phy`` after an expert's last
replica, the source of a fetch from storage."""

ALIGNMENT = 64
"""Bytes. JAX, on a CPU, takes over an array without a copy if its address is a multiple of it."""


class Maps(NamedTuple):
    """What every policy makes: the experts in the slots, their ranks, the counts."""

    phy2log: NDArray[Any]  # [L, P], the logical expert in each slot
    phyrank: NDArray[Any]  # [L, P], which of its expert's replicas it is
    logcnt: NDArray[Any]  # [L, E], replicas of each expert


def empty_maps(num_layers: int, topology: Topology) -> Maps:
    """Allocate int64 maps for a planner to fill."""
    return Maps(
        np.empty((num_layers, topology.num_replicas), np.int64),
        np.empty((num_layers, topology.num_replicas), np.int64),
        np.empty((num_layers, topology.num_experts), np.int64),
    )


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a C-contiguous view, or copy, that cannot be written to."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def aligned_copy(array: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Copy to a read-only array whose address is a multiple of `ALIGNMENT`."""
    kind = array.dtype if dtype is None else dtype
    room = np.empty(array.size * kind.itemsize + ALIGNMENT - 1, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    copy: NDArray[Any] = np.ndarray(array.shape, kind, room, start)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def as_plan_array(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a read-only array of a plan's dtype: aligned if that is int32, which is for JAX.

    int64 arrays stay where they are: by default, JAX copies them to int32 anyway.
    """
    return read_only(array) if dtype == np.int64 else aligned_copy(array, dtype)


def count_replicas(phy2log: NDArray[np.signedinteger[Any]], num_experts: int) -> NDArray[Any]:
    """Count each expert's replicas in each layer."""
    num_layers = phy2log.shape[0]
    # Empty slots are counted in an extra column, which is dropped.
    width = num_experts + 1
    flat = phy2log + 1 + width * np.arange(num_layers, dtype=np.int64)[:, None]
    count = np.bincount(flat.ravel(), minlength=num_layers * width).reshape(num_layers, width)
    return count[:, 1:].astype(phy2log.dtype, copy=False)


def rank_by_slots(phy2log: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank the replicas [L, P] of each expert in the order of their slots.

    As `number_replicas` in ``cpu.py``, but without a kernel to compile for a map that is read.
    """
    order = np.argsort(phy2log, axis=1, kind="stable")
    experts = np.take_along_axis(phy2log, order, axis=1)
    places = np.broadcast_to(np.arange(phy2log.shape[1]), phy2log.shape)
    begins = np.hstack([np.ones((len(experts), 1), bool), experts[:, 1:] != experts[:, :-1]])
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    rank = np.empty_like(phy2log)
    np.put_along_axis(rank, order, places - first, axis=1)
    return rank


def check_maps(phy2log: NDArray[Any], phyrank: NDArray[Any], topology: Topology) -> None:
    """Raise ``ValueError`` unless the arrays are a plan of the topology: see `Plan.check`."""
    num_slots = topology.num_replicas
    num_experts = topology.num_experts
    for name, array in (("phy2log", phy2log), ("phyrank", phyrank)):
        if array.dtype not in (np.int64, np.int32) or array.dtype != phy2log.dtype:
            raise ValueError(
                f"{name} has dtype {array.dtype}: give int64 or int32, the same for both arrays"
            )
        if array.ndim != 2 or array.shape[0] == 0 or array.shape != (len(phy2log), num_slots):
            raise ValueError(
                f"{name} has shape {array.shape}, but the topology has "
                f"num_replicas={num_slots}: give [layers, {num_slots}]"
            )
    wrong = (phy2log < -1) | (phy2log >= num_experts)
    if wrong.any():
        layer, slot = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"phy2log[{layer}, {slot}] = {phy2log[layer, slot]} is not an expert id: "
            f"give 0 .. {num_experts - 1}, or -1 for an empty slot"
        )
    gone = (topology.active_slots == 0)[topology.gpu_of_slot]
    if (phy2log[:, gone] >= 0).any():
        layer, slot = (int(i) for i in np.argwhere((phy2log >= 0) & gone)[0])
        raise ValueError(
            f"phy2log[{layer}, {slot}] = {phy2log[layer, slot]}, but the slot's GPU is not "
            "active in the topology: give -1 for its slots"
        )
    count = count_replicas(phy2log, num_experts)
    if (count == 0).any():
        layer, expert = (int(i) for i in np.argwhere(count == 0)[0])
        raise ValueError(
            f"expert {expert} has no replica in layer {layer}: every expert needs a slot"
        )
    # Ranks 0 .. count - 1 for each expert: in range, and no (expert, rank) twice.
    layers = np.arange(len(phy2log))[:, None]
    empty = phy2log < 0
    sound = np.where(empty, phyrank == -1, (phyrank >= 0) & (phyrank < count[layers, phy2log]))
    if sound.all():
        first = np.cumsum(count, axis=1, dtype=np.int64) - count
        place = first[layers, phy2log] + phyrank
        # Empty slots take the places behind all others.
        behind = num_slots - np.cumsum(empty, axis=1)
        taken = np.zeros(phy2log.shape, bool)
        taken[layers, np.where(empty, behind, place)] = True
        sound = taken
    if not sound.all():
        layer = int(np.argwhere(~sound)[0, 0])
        raise ValueError(
            f"phyrank of layer {layer} does not number the replicas of each expert from 0: "
            "give each replica of an expert its own rank, 0 .. count - 1"
        )
