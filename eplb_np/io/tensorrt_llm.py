"""TensorRT-LLM: folders of its expert statistics, and YAML for its load balancer.

After ``tensorrt_llm/_torch/expert_statistic.py`` and ``examples/wide_ep/ep_load_balancer``. Each
rank writes, for each iteration and layer, how many of its own tokens went to each logical expert.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, as_size, one_line
from eplb_np._files.numpy_files import LARGEST_ARRAYS
from eplb_np._files.safetensors_files import SafeTensors
from eplb_np._files.targets import write_to
from eplb_np._files.yaml_text import parse_yaml
from eplb_np.io.contents import Contents, opened
from eplb_np.io.placements import Consumer, Placement
from eplb_np.io.ranks import rank_files
from eplb_np.io.recorded import Asked, Recording, check_shape

META = r"meta_info\.json(\.gz)?"
RANK = r"rank([0-9]+)\.safetensors(\.gz)?"
"""Exactly: ``rank0_raw`` and ``cooccurrence_rank0`` hold something else."""

KEY = re.compile(r"(0|[1-9][0-9]{0,8})_(0|[1-9][0-9]{0,8})")
"""Iteration and layer."""

SLOTS, ASSIGNMENTS, UPDATES = "num_slots", "initial_global_assignments", "layer_updates_per_iter"
EP_SIZE = "ep_size"
"""What TensorRT-LLM's own report reads beside the other keys, but its engine refuses."""

FIRST_KEY = re.compile(r"^[\"']?(?:num_slots|initial_global_assignments)[\"']?[ \t]*:", re.M)

MOST_COUNTS = LARGEST_ARRAYS // 8
"""Of all iterations: ranks are added up in float64."""

WITHOUT_LOAD = 1 << 26
"""Counts at the beginning that may all be zero, where each tensor takes the time of `FOR_EACH`."""

FOR_EACH = 1 << 9

CONSUMER = Consumer(
    "TensorRT-LLM", suffixes=(".yaml", ".yml"), most_experts=1024, most_slots=(1 << 15) - 1
)

Step = tuple[int, int]


def recognise(contents: Contents) -> bool:
    """Whether this is a folder of statistics, a file of one, or a plan in YAML."""
    if contents.kind == "folder":
        return bool(contents.named(META) or contents.named(RANK))
    if contents.kind == "safetensors":
        return True
    return contents.kind == "text" and bool(FIRST_KEY.search(contents.beginning))


def holds_plan(contents: Contents) -> bool:
    """Whether this is YAML; folders are statistics."""
    return contents.kind == "text"


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts [S, R, E] of all ranks, which are added up."""
    if contents.kind == "safetensors":
        raise ValueError("it is of one rank: give the folder with meta_info.json and all ranks")
    if contents.kind != "folder":
        raise ValueError("it is a plan, not loads: read it with read_plan")
    num_experts, num_ranks = _read_meta(contents, asked)
    total: NDArray[Any] = np.zeros(0)
    steps: list[int] = []
    layers: list[int] = []
    read = 0
    has_load = False
    for rank, path in enumerate(rank_files(contents, RANK, num_ranks)):
        with opened(path) as file:
            if file.kind != "safetensors":
                raise ValueError(f"it is {file.describe()}, not of safetensors")
            tensors = SafeTensors(file.file)
            names = _parse_names(tensors.tensors)
            if rank == 0:
                steps, layers = _axes(names)
                shape = (len(steps), len(layers), num_experts)
                _check_size(shape)
                total = np.zeros(shape)
            _check_complete(names, steps, layers, rank)
            has_load = _add(tensors, names, total) or has_load
        read += total.size + FOR_EACH * len(names)
        if read >= WITHOUT_LOAD and not has_load:
            raise ValueError(f"the files of ranks 0 to {rank} are zero everywhere")
    return Recording(total, in_order=True, layer_ids=layers, name="the statistics")


def _check_size(shape: tuple[int, int, int]) -> None:
    """Raise ``ValueError`` if float64 counts of this shape are more than is read."""
    check_shape(shape, "the statistics")
    if math.prod(shape) > MOST_COUNTS:
        raise ValueError(
            f"the statistics have shape {shape}, more than the {MOST_COUNTS} counts that are read: "
            "record fewer iterations"
        )


def _read_meta(contents: Contents, asked: Asked) -> tuple[int, int | None]:
    """Return the number of experts, and that of ranks if anybody says it."""
    names = list(contents.named(META))
    if len(names) != 1:
        raise ValueError(f"it has {len(names)} files meta_info.json, not one")
    with opened(contents.path / names[0]) as file:
        meta = file.json if file.kind == "json" else None
        if not isinstance(meta, dict) or "num_experts" not in meta:
            raise ValueError('it has no key "num_experts"')
        num_experts = as_size("num_experts", meta["num_experts"])
        num_ranks = None if meta.get(EP_SIZE) is None else as_size(EP_SIZE, meta[EP_SIZE])
    if asked.num_experts not in (None, num_experts):
        raise ValueError(f"num_experts={asked.num_experts}, but it has {num_experts} experts")
    return num_experts, asked.num_ranks or num_ranks


def _parse_names(names: Collection[str]) -> dict[Step, str]:
    """Return the names of tensors by iteration and layer."""
    found = {}
    for name in names:
        match = KEY.fullmatch(name)
        if match is None or int(match[2]) >= LARGEST_SIZE:
            raise ValueError(f"its tensor {one_line(name)} is not named '<iteration>_<layer>'")
        found[int(match[1]), int(match[2])] = name
    if not found:
        raise ValueError("it has no tensors")
    return found


def _axes(names: dict[Step, str]) -> tuple[list[int], list[int]]:
    """Return iterations and layers in order."""
    steps = sorted({step for step, _ in names})
    for before, step in pairwise(steps):
        if step != before + 1:
            raise ValueError(
                f"iteration {before + 1} is missing, of {steps[0]} to {steps[-1]}: they must "
                "follow each other"
            )
    return steps, sorted({layer for _, layer in names})


def _check_complete(names: dict[Step, str], steps: list[int], layers: list[int], rank: int) -> None:
    """Raise ``ValueError`` unless there are counts of each iteration and layer, and no others."""
    for step, layer in product(steps, layers):
        if (step, layer) not in names:
            raise ValueError(f"rank {rank} has no counts of layer {layer} in iteration {step}")
    if len(names) > len(steps) * len(layers):
        step, layer = next(
            key for key in names if key[1] not in layers or not steps[0] <= key[0] <= steps[-1]
        )
        raise ValueError(
            f"rank {rank} has counts of layer {layer} in iteration {step}, but rank 0 has none"
        )


def _add(tensors: SafeTensors, names: dict[Step, str], total: NDArray[Any]) -> bool:
    """Add a rank's counts to the total [S, R, E], and tell whether any is not zero."""
    has_load = False
    rows = total.reshape(-1, total.shape[-1])
    row_of = {names[key]: row for row, key in enumerate(sorted(names))}
    for block, counts in tensors.blocks():
        if counts.shape[1:] != rows.shape[1:]:
            raise ValueError(
                f"its tensor {block[0]!r} has shape {counts.shape[1:]}, but meta_info.json says "
                f"that there are {rows.shape[1]} experts"
            )
        if not counts.min() >= 0:
            bad, expert = (int(i) for i in np.argwhere(~(counts >= 0))[0])
            raise ValueError(
                f"its tensor {block[bad]!r} holds {counts[bad, expert]} for expert {expert}: "
                "counts must not be negative"
            )
        if counts.any():  # else memory is not even taken
            rows[[row_of[name] for name in block]] += counts
            has_load = True
    return has_load


def read_plan(contents: Contents) -> Placement:
    """Read the rows of the layers, in ascending order."""
    if contents.kind != "text":
        raise ValueError("it is loads, not a plan: read it with read_loads")
    found = parse_yaml(contents.text)
    odd = found.keys() - {SLOTS, ASSIGNMENTS, UPDATES, EP_SIZE}
    if odd:
        raise ValueError(f"it has the key {one_line(min(map(str, odd)))}, which is not of a plan")
    layers = found.get(ASSIGNMENTS)
    if not isinstance(layers, dict) or not layers:
        raise ValueError(
            f"it has no layers in {ASSIGNMENTS}: write '<layer>: [<experts>]' for each"
        )
    if SLOTS not in found:
        raise ValueError(f'it has no key "{SLOTS}"')
    num_slots = as_size(SLOTS, found[SLOTS])
    for layer in layers:
        if not isinstance(layer, int) or layer >= LARGEST_SIZE:
            raise ValueError(f"{ASSIGNMENTS} has the key {one_line(layer)}: give ids of layers")
        row = layers[layer]
        if not isinstance(row, list) or any(type(expert) is not int for expert in row):
            raise ValueError(f"layer {layer} has no list of expert ids")
        if len(row) != num_slots:
            raise ValueError(f"layer {layer} has {len(row)} slots, but {SLOTS} is {num_slots}")
    ids = sorted(layers)
    rows = np.array([layers[layer] for layer in ids])
    ep_size = found.get(EP_SIZE)
    return Placement(rows, ids, None if ep_size is None else as_size(EP_SIZE, ep_size))


def write_plan(placement: Placement, path: Path) -> str:
    """Write exactly the keys that the engine takes, with a layer in each line."""
    rows = placement.rows.tolist()
    ids = range(len(rows)) if placement.layer_ids is None else placement.layer_ids
    lines = [
        f"{SLOTS}: {placement.rows.shape[1]}",
        f"{ASSIGNMENTS}:",
        *(f"  {layer}: {row}" for layer, row in zip(ids, rows, strict=True)),
        f"{UPDATES}: 0",
    ]
    write_to(path, lambda file: file.write("\n".join([*lines, ""]).encode()))
    return (
        f"moe_config: {{load_balancer: {path}}} in the file of --extra_llm_api_options, with "
        f"--ep {placement.num_gpus}"
    )
