"""Sound files of the plain formats, made without the package from counts [L, E] or a plan."""

import csv
import io
import json

import numpy as np


def as_list(counts):
    return json.dumps(counts.tolist()).encode()


def as_rearrange_experts(counts, phy2log=None):
    """FastDeploy's report."""
    slots = np.tile(np.arange(counts.shape[1]), (len(counts), 1)) if phy2log is None else phy2log
    report = {
        "update_timestamp": 1795534865.2,
        "tokens_per_expert_stats_list": counts.tolist(),
        "ep_rank_to_expert_id_list": slots.tolist(),
        "expert_id_to_ep_rank_array": [[[0, -1]] * counts.shape[1]] * len(counts),
        "expert_in_rank_num_list": np.ones(counts.shape, int).tolist(),
        "cost_milliseconds": 0,
        "meta_file_name": "redundant_expert_meta/rearrange-experts.json",
    }
    return json.dumps(report).encode()


def as_expert_map(phy2log, num_gpus, **changes):
    """vLLM Ascend's map of a plan [L, P], as it records one."""
    devices = phy2log.reshape(len(phy2log), num_gpus, -1).tolist()
    return {
        "moe_layer_count": len(devices),
        "layer_list": [
            {
                "layer_id": i,
                "device_count": num_gpus,
                "device_list": [
                    {"device_id": gpu, "device_expert": experts}
                    for gpu, experts in enumerate(layer)
                ],
            }
            for i, layer in enumerate(devices)
        ],
        **changes,
    }


def as_text(counts, separator=",", end="\n", header=False, ids=None, quoted=False):
    """A line for each layer."""
    file = io.StringIO()
    writer = csv.writer(
        file, delimiter=separator, lineterminator=end,
        quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    layers = [] if ids is None else ["layer"]
    if header:
        writer.writerow([*layers, *(f"expert_{i}" for i in range(counts.shape[1]))])
    for i, row in enumerate(counts.tolist()):
        writer.writerow(row if ids is None else [ids[i], *row])
    return file.getvalue().encode()


def as_entries(counts, ids=None):
    """A line for each layer and expert with load, as Megatron's script writes."""
    ids = range(len(counts)) if ids is None else ids
    lines = [
        f"decoder,None,{ids[layer]},{expert},{counts[layer, expert]}"
        for layer, expert in np.argwhere(counts > 0)
    ]
    return "\n".join(["block,mtp_idx,layer,expert_id,count", *lines, ""]).encode()


SAMPLES = {
    "fastdeploy": as_rearrange_experts,
    "json": as_list,
    "json steps": lambda counts: as_list(np.stack([counts, 2 * counts])),
    "text": as_text,
    "text with a header": lambda counts: as_text(
        counts, "\t", "\r\n", header=True, ids=range(len(counts)), quoted=True
    ),
    "text of entries": as_entries,
}
"""Sound files of loads from counts [L, E], integers."""
