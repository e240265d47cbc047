"""vLLM Ascend: expert maps in JSON, which it serves from or has recorded.

After ``vllm_ascend/eplb`` of 2026-08. Layers are the MoE layers of the model, counted from 0. The
engine goes by the places in the lists, and looks at no id.
"""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eplb_np._arguments import one_line
from eplb_np._files.reading import printable
from eplb_np._files.targets import write_to
from eplb_np.io.contents import Contents
from eplb_np.io.placements import Consumer, Placement

COUNT, LAYERS, DEVICES, EXPERTS = "moe_layer_count", "layer_list", "device_list", "device_expert"

CONSUMER = Consumer("vLLM Ascend", suffixes=(".json",), breaks_on_duplicates=True)


def recognise(contents: Contents) -> bool:
    """Whether this is JSON with a list of layers, as only expert maps have it."""
    return {COUNT, LAYERS} <= contents.keys


def read_plan(contents: Contents) -> Placement:
    """Read a map, and refuse what the engine would take for another one than it says."""
    layers = _list_in(contents.json, LAYERS, "it")
    count = contents.json[COUNT]
    if type(count) is not int or count != len(layers):
        raise ValueError(
            f"its {COUNT} is {one_line(count)}, but its {LAYERS} has {len(layers)} layers: give "
            "the number of layers"
        )
    _check_order(layers, "layer_id", LAYERS)
    maps = [_devices_of(layer, f"layer {i}") for i, layer in enumerate(layers)]
    shapes = [(len(devices), len(devices[0])) for devices in maps]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"layer {i} has {shape[0]} devices of {shape[1]} slots, and layer 0 has "
                f"{shapes[0][0]} of {shapes[0][1]}: give every layer the same"
            )
    rows = np.array(maps, np.int64).reshape(len(maps), -1)
    return Placement(rows, num_gpus=shapes[0][0], moe_rows=True)


def write_plan(placement: Placement, path: Path) -> str:
    """Write a map as the engine records them: a list of layers, of devices, of experts."""
    if path.suffix != ".json":  # it compares the letters as they are
        raise ValueError(f"{printable(path)}: vLLM Ascend wants a suffix of small letters: .json")
    num_gpus = placement.num_gpus or 1
    maps = placement.rows.reshape(len(placement.rows), num_gpus, -1).tolist()
    content = {
        COUNT: len(maps),
        LAYERS: [
            {
                "layer_id": i,
                "device_count": num_gpus,
                DEVICES: [
                    {"device_id": gpu, EXPERTS: experts} for gpu, experts in enumerate(devices)
                ],
            }
            for i, devices in enumerate(maps)
        ],
    }
    text = json.dumps(content)
    write_to(path, lambda file: file.write(text.encode()))
    redundant = placement.rows.shape[1] - (placement.num_experts or 0)
    config = {"expert_map_path": str(path), "num_redundant_experts": redundant}
    options = shlex.quote(json.dumps({"eplb_config": config}))
    return f"--enable-expert-parallel --additional-config {options}"


def _devices_of(layer: Any, where: str) -> list[list[int]]:
    """Return the experts of each device of a layer."""
    devices = _list_in(layer, DEVICES, where)
    count = layer.get("device_count", len(devices))
    if type(count) is not int or count != len(devices):
        raise ValueError(
            f"the device_count of {where} is {one_line(count)}, but its {DEVICES} has "
            f"{len(devices)} devices: give the number of devices"
        )
    _check_order(devices, "device_id", f"{DEVICES} of {where}")
    found = [
        _list_in(device, EXPERTS, f"device {i} of {where}") for i, device in enumerate(devices)
    ]
    num_slots = sum(map(len, found))
    for i, experts in enumerate(found):
        device = f"device {i} of {where}"
        for expert in experts:
            if type(expert) is not int or not 0 <= expert < num_slots:
                raise ValueError(
                    f"{device} holds {one_line(expert)}, which is no expert id: there are "
                    f"{num_slots} slots, so give 0 .. {num_slots - 1} at most"
                )
        if len(experts) != len(found[0]):
            raise ValueError(
                f"{device} holds {len(experts)} experts, and device 0 holds {len(found[0])}: give "
                "every device the same number"
            )
        if len(set(experts)) < len(experts):
            double = next(a for a, b in pairwise(sorted(experts)) if a == b)
            raise ValueError(
                f"{device} holds expert {double} twice, of which vLLM Ascend loses one: give it "
                "different experts"
            )
    return found


def _check_order(entries: list[Any], name: str, where: str) -> None:
    """Refuse ids in another order than the list's: the engine would mistake one for another."""
    ids = [entry.get(name) for entry in entries if isinstance(entry, dict)]
    known = [i for i in ids if type(i) is int]
    if any(a >= b for a, b in pairwise(known)):
        raise ValueError(
            f"the {name} in the {where} do not ascend, but vLLM Ascend goes by the places in the "
            "list: sort it"
        )


def _list_in(holder: Any, name: str, where: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError(f'{where} has no list "{name}" with entries')
    return found
