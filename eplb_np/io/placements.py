"""Placements as files hold them: slots of ranks in rows; checked before one is written.

Letters: R rows, L planned layers, E logical experts, P slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_list, as_size, one_line
from eplb_np._loads.host import as_array
from eplb_np.maps.maps import rank_by_slots
from eplb_np.plan import Plan
from eplb_np.summaries import count_duplicates
from eplb_np.topology import Topology


class Placement(NamedTuple):
    """The experts in the slots of each layer, rank by rank, and what else a file says."""

    rows: NDArray[Any]
    """[R, P], logical expert in each slot."""
    layer_ids: Sequence[int] | None = None
    """[R], ids in the model of the rows' layers; None if the rows are all layers from 0 on."""
    num_gpus: int | None = None
    num_experts: int | None = None
    moe_rows: bool = False
    """Whether the rows are the MoE layers in the order of the model, and the file has no ids."""


class Consumer(NamedTuple):
    """What an engine demands of a plan that it is given in a file, and mostly does not check."""

    name: str
    suffixes: tuple[str, ...]
    every_layer: bool = False
    """Whether it wants a row for each decoder layer, dense ones included."""
    breaks_on_duplicates: bool = False
    """Whether it fails if an expert stands twice on a GPU."""
    most_experts: int | None = None
    most_slots: int | None = None


def placement_for(
    consumer: Consumer, plan: Plan, num_hidden_layers: int | None, current: Plan | None
) -> tuple[Placement, tuple[str, ...]]:
    """Lay out a plan as an engine wants it, and say what a user should know; see `write_plan`."""
    topology = plan.topology
    _check_slots(consumer, plan)
    notes = []
    duplicates = count_duplicates(plan.phy2log, plan.topology)
    if duplicates and consumer.breaks_on_duplicates:
        raise ValueError(
            f"slots that hold an expert which their GPU holds already: {duplicates}. "
            f"{consumer.name} loses such slots: plan with policy='refined' and split='best', "
            "which avoid them"
        )
    if duplicates:
        notes.append(f"slots that hold an expert which their GPU holds already: {duplicates}")
    slots = plan.phy2log if current is None else align_slots(plan, current)
    ids = list(plan.moe_layer_ids or ())
    check_num_layers(consumer, ids[-1], num_hidden_layers)
    if not consumer.every_layer or num_hidden_layers is None:
        return Placement(slots, ids, topology.num_gpus, topology.num_experts), tuple(notes)
    # Any row would do for a dense layer, if it holds every expert: this is the engines' own.
    rows = np.tile(
        np.arange(topology.num_replicas, dtype=slots.dtype) % topology.num_experts,
        (num_hidden_layers, 1),
    )
    rows[ids] = slots
    left = num_hidden_layers - len(ids)
    if left:
        notes.append(f"layers that are not planned, and hold the experts in order: {left}")
    return (
        Placement(rows, range(num_hidden_layers), topology.num_gpus, topology.num_experts),
        tuple(notes),
    )


def check_num_layers(consumer: Consumer, last_layer: int, num_hidden_layers: int | None) -> None:
    """Raise ``ValueError`` unless the number of layers fits a plan, and is given if needed."""
    if num_hidden_layers is None:
        if consumer.every_layer:
            raise ValueError(
                f"{consumer.name} wants a row for every decoder layer, dense ones included, and "
                "serves wrong layers if their number differs: give num_hidden_layers, which is 61 "
                "for DeepSeek-V3"
            )
    elif as_size("num_hidden_layers", num_hidden_layers) <= last_layer:
        raise ValueError(
            f"num_hidden_layers={num_hidden_layers}, but layer {last_layer} is planned: give the "
            "number of all decoder layers of the model, dense ones included"
        )


def _check_slots(consumer: Consumer, plan: Plan) -> None:
    topology = plan.topology
    if topology.gpu_slots is not None:
        raise ValueError(
            f"the GPUs differ in slots, but {consumer.name} wants the same number on each: plan "
            f"for a multiple of num_gpus={topology.num_gpus}"
        )
    if (plan.phy2log < 0).any():
        raise ValueError(
            f"the plan has empty slots, of GPUs that are gone, but {consumer.name} wants an expert "
            "in every slot: plan for a topology of the remaining GPUs"
        )
    for what, size, most in (
        ("experts", topology.num_experts, consumer.most_experts),
        ("slots", topology.num_replicas, consumer.most_slots),
    ):
        if most is not None and size > most:
            raise ValueError(
                f"the plan has {size} {what}, but {consumer.name} takes {most} at most"
            )


def align_slots(plan: Plan, current: Plan) -> NDArray[Any]:
    """Return ``phy2log`` [L, P] with the slots of each GPU in another order: what stays, stays put.

    An expert that a GPU holds in both plans keeps its slot; of several replicas on one GPU, as
    many as it had. The others fill what is free, lowest slot and earliest in the plan first.
    O(L P).
    """
    if plan.topology != current.topology or plan.moe_layer_ids != current.moe_layer_ids:
        raise ValueError(
            f"current={current} does not fit {plan}: give a plan with the same layers and sizes"
        )
    aligned = np.full_like(plan.phy2log, -1)
    gpus = list(pairwise(plan.topology.first_slots.tolist()))
    for new, old, out in zip(plan.phy2log.tolist(), current.phy2log.tolist(), aligned, strict=True):
        for first, stop in gpus:
            out[first:stop] = _aligned(new[first:stop], old[first:stop])
    return aligned


def as_rows(values: Any, name: str = "the placement") -> NDArray[Any]:
    """Return what a file holds as integers [R, P], or raise ``ValueError``."""
    rows: NDArray[Any] = as_array(values, name)
    if rows.dtype.kind not in "iu" or rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(
            f"{name} has shape {rows.shape} and dtype {rows.dtype}: give integers [layers, slots]"
        )
    return rows


def plan_of(
    found: Placement, topology: Topology, policy: str, moe_layer_ids: Sequence[int] | None
) -> Plan:
    """Make a plan of a placement that was read: see `read_plan` for ``moe_layer_ids``."""
    rows = as_rows(found.rows)
    wrong = (rows < 0) | (rows >= topology.num_experts)
    if wrong.any():
        row, slot = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"slot {slot} of row {row} holds {rows[row, slot]}, which is not an expert id: "
            f"give 0 .. {topology.num_experts - 1}"
        )
    ids = list(range(len(rows)) if found.layer_ids is None else found.layer_ids)
    if moe_layer_ids is not None and found.moe_rows:
        ids = as_list("moe_layer_ids", moe_layer_ids, "give ids of layers", most=len(rows))
        if len(ids) != len(rows):
            raise ValueError(
                f"moe_layer_ids={one_line(moe_layer_ids)}, but the file has {len(rows)} MoE layers "
                "without ids: give one id for each"
            )
    elif moe_layer_ids is not None:
        wanted = as_list("moe_layer_ids", moe_layer_ids, "give ids of layers", most=len(rows))
        missing = [i for i in wanted if i not in ids]
        if missing:
            raise ValueError(f"moe_layer_ids: there is no layer {one_line(missing[0])}, of {ids}")
        rows = rows[[ids.index(i) for i in wanted]]
        ids = wanted
    phy2log = rows.astype(np.int64)
    return Plan(phy2log, rank_by_slots(phy2log), topology, policy, ids)


def _aligned(new: list[int], old: list[int]) -> list[int]:
    left = list(new)
    kept = []
    for expert in old:
        stays = expert in left
        if stays:
            left.remove(expert)
        kept.append(expert if stays else None)
    rest = iter(left)
    return [next(rest) if expert is None else expert for expert in kept]
