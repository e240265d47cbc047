"""`RecordedLoads`, and how the counts of any format become them: checked, folded, summed.

Letters: S steps, R rows of a recording, L MoE layers, E logical experts, P slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, LARGEST_TOTAL, as_list, as_size, one_line
from eplb_np._loads.host import as_array, check_loads
from eplb_np.plan import Plan

LARGEST_STEP = 1 << 24
"""Loads of one step, over all layers and experts."""

LARGEST_RECORDING = 1 << 27
"""Loads of all steps: that zeros are no loads shows at their end only, but within a second."""

BLOCK_BYTES = 1 << 23
"""Bytes of the steps that are summed at a time."""


@dataclass(frozen=True, eq=False)
class RecordedLoads:
    """Loads of the MoE layers of a model, as `read_loads` found them in a file or a folder.

    ``make_plan(loads.windows, ..., moe_layer_ids=loads.moe_layer_ids)`` plans from them.

    Parameters
    ----------
    load : ndarray, shape [L, E], float64
        Tokens of each logical expert, or whatever was recorded, summed over all steps. Every layer
        has load.
    steps : ndarray, shape [S, L, E], of a real dtype, or None
        The steps that have load, oldest first. None if there are fewer than two, or if their order
        is not known.
    moe_layer_ids : list of int
        Id in the model of each MoE layer, ascending; L of them.
    dense_layer_ids : list of int
        Ids, below that of the last layer, of layers without load: dense ones, which need no plan.
    num_hidden_layers : int or None
        Decoder layers of the model, dense ones included; None if the recording does not say.
    num_steps : int
        Steps with load that were summed, at least 1.
    phy2log : ndarray, shape [L, P], int64, or None
        The map from slots to logical experts under which physical counts were taken; None if
        logical experts were counted.
    format : str
        Name of the format, one of `FORMATS`.
    source : str
        What was read.
    notes : tuple of str
        What a user should know of how the loads were read, one line each.
    """

    load: NDArray[np.float64]
    steps: NDArray[Any] | None
    moe_layer_ids: list[int]
    dense_layer_ids: list[int]
    num_hidden_layers: int | None
    num_steps: int
    phy2log: NDArray[np.int64] | None = None
    format: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> NDArray[Any]:
        """What to plan from [W, L, E]: the steps if their order is known, else their sum.

        This is what ``eplb-np plan`` passes to `make_plan`, which forecasts from several windows.
        """
        return self.load[None] if self.steps is None else self.steps


class Recording(NamedTuple):
    """What the reader of a format found, before any of it was checked."""

    counts: NDArray[Any]
    """[S, R, E], or [S, R, P] with ``phy2log``; [R, E] is a single step."""
    in_order: bool
    """Whether the steps are known to be in order, oldest first."""
    layer_ids: Sequence[int] | None = None
    """[R], ids of the rows' layers, if the format says them."""
    every_layer: bool = False
    """Whether the rows are all decoder layers of the model, from the first one on."""
    phy2log: NDArray[Any] | None = None
    """[R, P], what was in the slots when they were counted."""
    name: str = "the loads"
    """What errors call the counts."""
    notes: tuple[str, ...] = ()


class Asked(NamedTuple):
    """What a caller knows about the files, and they do not say."""

    num_ranks: int | None = None
    num_experts: int | None = None


def recorded_loads(
    found: Recording,
    *,
    in_order: bool | None = None,
    moe_layer_ids: Sequence[int] | None = None,
    current: Plan | None = None,
) -> RecordedLoads:
    """Check what a format's reader found, and bring it into the one form: see `read_loads`."""
    name = found.name
    counts = as_array(found.counts, name)
    check_shape(counts.shape, name)
    ids = _ids_of_rows(found, counts.shape[-2], moe_layer_ids)
    steps = counts if counts.ndim == 3 else counts[None]
    phy2log = found.phy2log
    if current is not None:
        if phy2log is not None:
            raise ValueError("the file holds the map of its slots itself: leave current out")
        phy2log = _map_of_rows(current, ids, steps)
    if phy2log is not None:
        steps = fold(steps, phy2log, name)
    load, has_load = sum_steps(steps, name, counts.ndim == 3)
    notes = list(found.notes)
    idle = len(steps) - int(has_load.sum())
    if idle and has_load.any():
        notes.append(f"steps without load, which are left out: {idle} of {len(steps)}")
    moe: Any = (load > 0).any(axis=1)
    if not moe.any():
        raise all_zero(name, len(load))
    num_steps = int(has_load.sum())
    known = found.in_order if in_order is None else in_order
    if num_steps > 1 and not known:
        notes.append(
            f"{num_steps} steps are summed, because "
            + ("their order is not known" if in_order is None else "in_order=False")
        )
    dense = sorted(set(range(ids[-1] + 1)) - {i for i, m in zip(ids, moe, strict=True) if m})
    tells_all = found.every_layer or (
        moe_layer_ids is None and found.layer_ids is None and bool(dense)
    )
    return RecordedLoads(
        load=load[moe],
        steps=_select(steps, has_load, moe) if known and num_steps > 1 else None,
        moe_layer_ids=[i for i, m in zip(ids, moe, strict=True) if m],
        dense_layer_ids=dense,
        num_hidden_layers=len(load) if tells_all else None,
        num_steps=num_steps,
        phy2log=None if phy2log is None else np.asarray(phy2log)[moe].astype(np.int64),
        notes=tuple(notes),
    )


def all_zero(name: str, num_layers: int) -> ValueError:
    """Return the error of loads that are none."""
    return ValueError(
        f"{name}: all {num_layers} layers are zero, so there is no MoE layer to plan: "
        "give loads of at least one"
    )


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise ``ValueError`` unless a shape is that of loads, and not too large; before they are."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}: give [layers, experts] or [steps, layers, experts], "
            "with no empty axis"
        )
    if shape[-2] * shape[-1] > LARGEST_STEP or max(shape[-2:]) > LARGEST_SIZE:
        raise ValueError(
            f"{name} has shape {shape}: at most {LARGEST_SIZE} layers or experts, and "
            f"{LARGEST_STEP} loads of a step, are read"
        )
    if math.prod(shape) > LARGEST_RECORDING:
        raise ValueError(
            f"{name} has shape {shape}: at most {LARGEST_RECORDING} loads are read: save the sum "
            f"over steps, or parts of {LARGEST_RECORDING // (shape[-2] * shape[-1])} steps at most"
        )


def _ids_of_rows(found: Recording, num_rows: int, given: Sequence[int] | None) -> list[int]:
    hint = "give one id for each row, in ascending order"
    if given is None:
        return list(range(num_rows)) if found.layer_ids is None else list(found.layer_ids)
    if found.layer_ids is not None or found.every_layer:
        raise ValueError(
            f"moe_layer_ids={one_line(given)}, but the file itself says which layers its rows are: "
            "leave moe_layer_ids out"
        )
    ids = [
        as_size("an id in moe_layer_ids", i, 0)
        for i in as_list("moe_layer_ids", given, hint, most=num_rows)
    ]
    if len(ids) != num_rows or sorted(set(ids)) != ids:
        raise ValueError(f"moe_layer_ids={one_line(given)} does not fit {num_rows} rows: {hint}")
    return ids


def _map_of_rows(plan: Plan, ids: list[int], steps: NDArray[Any]) -> NDArray[np.int64]:
    """Return what a plan has in the slots of each row; other layers hold the experts in order."""
    topology = plan.topology
    if steps.shape[2] != topology.num_replicas:
        raise ValueError(
            f"the loads have {steps.shape[2]} columns, but current has {topology.num_replicas} "
            "slots: give the plan under which physical experts were counted, or leave current out "
            "if logical experts were counted"
        )
    rows = np.tile(np.arange(topology.num_replicas) % topology.num_experts, (len(ids), 1))
    row_of = {layer: row for row, layer in enumerate(ids)}
    for layer, slots in zip(plan.moe_layer_ids or (), plan.phy2log, strict=True):
        if layer in row_of:
            rows[row_of.pop(layer)] = slots
    for layer, row in row_of.items():
        if steps[:, row].any():
            raise ValueError(
                f"layer {layer} has load, but current has no such layer: give the plan under which "
                "physical experts were counted"
            )
    return rows


def check_map(phy2log: Any, name: str = "the map from slots to experts") -> NDArray[np.int64]:
    """Return a map from slots to experts [R, P] as a copy, or raise ``ValueError``.

    It must have integers from 0 on, and a slot for each expert in every row.
    """
    given: NDArray[Any] = as_array(phy2log, name)
    if given.dtype.kind not in "iu" or given.ndim != 2 or 0 in given.shape:
        raise ValueError(
            f"{name} has shape {given.shape} and dtype {given.dtype}: give integers [layers, slots]"
        )
    num_rows, num_slots = given.shape
    wrong = (given < 0) | (given >= num_slots)
    if wrong.any():
        row, slot = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name} holds {given[row, slot]} in slot {slot} of row {row}: expert ids are from 0, "
            f"and there are {num_slots} slots"
        )
    experts = given.astype(np.int64)
    num_experts = int(experts.max()) + 1
    places = experts + num_experts * np.arange(num_rows)[:, None]
    absent = np.bincount(places.ravel(), minlength=num_rows * num_experts) == 0
    if absent.any():
        row, expert = divmod(int(absent.argmax()), num_experts)
        raise ValueError(
            f"{name} has no slot for expert {expert} in row {row}: it is not the one under which "
            "tokens were counted"
        )
    return experts


def fold(steps: NDArray[Any], phy2log: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Add up the counts [S, R, P] of each expert's slots, by the map [R, P]: [S, R, E].

    Raises ``ValueError`` if the map is none, or counts are negative or not finite.
    """
    experts = check_map(phy2log)
    if experts.shape != steps.shape[1:]:
        raise ValueError(
            f"{name} has shape {steps.shape}, but the map from slots to experts has shape "
            f"{experts.shape}"
        )
    num_rows, num_experts = len(experts), int(experts.max()) + 1
    target = experts + num_experts * np.arange(num_rows)[:, None]
    size = num_rows * num_experts
    folded = np.empty((len(steps), size))
    most = max(1, BLOCK_BYTES // (8 * target.size))
    for start in range(0, len(steps), most):
        block = steps[start : start + most]
        if not block.min() >= 0 or not block.max() < np.inf:  # before a sum hides it
            for i, step in enumerate(block, start):
                check_loads(step, f"{name}[{i}]" if len(steps) > 1 else name)
        places = target.ravel() + size * np.arange(len(block))[:, None]
        with np.errstate(over="ignore"):  # of what is longer than float64; it is found as infinite
            values = block.ravel().astype(np.float64)
        sums = np.bincount(places.ravel(), values, len(block) * size)
        folded[start : start + len(block)] = sums.reshape(len(block), size)
    return folded.reshape(len(steps), num_rows, num_experts)


def sum_steps(
    steps: NDArray[Any], name: str, several: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Sum loads [S, R, E] over steps, and check them; also tell which steps have load."""
    load = np.zeros(steps.shape[1:])
    has_load = np.zeros(len(steps), bool)
    most = min(len(steps), max(1, BLOCK_BYTES // load.nbytes))
    memory = np.empty((1 + most, *load.shape))  # once: pages of new memory cost more than the sums
    with np.errstate(over="ignore", invalid="ignore"):  # what is wrong is found, and named
        for start in range(0, len(steps), most):
            block = steps[start : start + most]
            added = memory[: 1 + len(block)]
            added[0] = load
            added[1:] = block
            if not added.min() >= 0 or not added.max() < np.inf:
                for i, step in enumerate(added[1:], start):
                    check_loads(step, f"{name}[{i}]" if several else name)
            has_load[start : start + len(block)] = added[1:].any(axis=(1, 2))
            added.sum(axis=0, out=load)
        too_large = load.sum(axis=1) >= LARGEST_TOTAL
    if too_large.any():
        raise ValueError(
            f"{name}: the loads of layer {int(too_large.argmax())} add up to 2**127 or more, so "
            "sums of them would exceed float32's range: scale them down (only ratios matter)"
        )
    return load, has_load


def _select(
    steps: NDArray[Any], has_load: NDArray[np.bool_], moe: NDArray[np.bool_]
) -> NDArray[Any]:
    if has_load.all() and moe.all():
        return steps
    selected: NDArray[Any] = steps[np.ix_(has_load, moe, np.ones(steps.shape[2], bool))]
    return selected
