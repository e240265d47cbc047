"""Sound files of the recorders of SGLang and sglang-jax, written without torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch_samples import pickled_npy, torch_zip

NAME = "expert_distribution_recorder"


def stat_dump(counts: np.ndarray, **more: Any) -> bytes:
    """A dump of the modes ``stat`` and ``stat_approx``: counts [steps, layers, experts]."""
    content = {"rank": 0, "logical_count": counts, "average_utilization_rate_over_window": None}
    return torch_zip(content | more)


def rank_records(rank: int, counts: np.ndarray, first_pass: int = 0, per_token: bool = False):
    """Records of a rank: counts [passes, layers, slots], for ``per_token`` as choices of slots."""
    records = []
    for pass_id, count in enumerate(counts, first_pass):
        record = {"forward_pass_id": pass_id, "rank": rank, "gatherer_key": "primary"}
        if per_token:
            choices = choices_of(count)
            num_tokens = choices.shape[1]
            record |= {
                "input_ids": [7] * num_tokens, "positions": list(range(num_tokens)),
                "extend_seq_lens": None, "forward_mode": 1, "misc_objects": [],
                "topk_ids_of_layer": choices,
            }  # fmt: skip
        records.append(record | ({} if per_token == "only" else {"global_physical_count": count}))
    return records


def choices_of(count: np.ndarray) -> np.ndarray:
    """Choices [layers, tokens, 8] that give these counts [layers, slots]; -1 is padding."""
    chosen = [np.repeat(np.arange(len(row)), row) for row in count]
    num_tokens = -(-max(map(len, chosen)) // 8) + 1
    choices = np.full((len(count), num_tokens * 8), -1, np.int32)
    for row, slots in zip(choices, chosen, strict=True):
        row[: len(slots)] = slots
    return choices.reshape(len(count), num_tokens, 8)


def rank_dump(records: list[dict[str, Any]], p2l: np.ndarray, **more: Any) -> bytes:
    """A dump of the modes ``per_pass`` and ``per_token``."""
    return torch_zip({"records": records, "last_physical_to_logical_map": p2l} | more)


def write_ranks(
    folder: Path, counts: np.ndarray, p2l: np.ndarray, first_pass: int = 0, time: float = 17e8,
    per_token: bool = False,
) -> list[Path]:  # fmt: skip
    """Write a dump of each rank: counts [passes, ranks, layers, slots]."""
    paths = []
    for rank in range(counts.shape[1]):
        records = rank_records(rank, counts[:, rank], first_pass, per_token)
        paths.append(folder / f"{NAME}_{time + rank / 1000}_{rank}.pt")
        paths[-1].write_bytes(rank_dump(records, p2l))
    return paths


def jax_dump(counts: np.ndarray, timestamp: str = "20261124_1541") -> bytes:
    """A dump of sglang-jax: counts [layers, experts], or [layers, slots] without a map."""
    return pickled_npy({"logical_count": counts, "timestamp": timestamp})


# ---------------------------------------------------------------------------------------------
# Of any counts, for whoever damages sound files
# ---------------------------------------------------------------------------------------------


def _in_slots(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts [steps, ranks, layers, slots] that give these of experts, and their map."""
    num_steps, num_layers, num_experts = counts.shape
    slots = np.zeros((num_steps, 2, num_layers, num_experts + 2), np.int32)
    slots[:, 0, :, :num_experts] = counts
    moved = slots[:, 0, :, :2] // 2  # to other replicas, of which the other rank counted
    slots[:, 0, :, :2] -= moved
    slots[:, 1, :, num_experts:] = moved
    return slots, np.tile(np.arange(num_experts + 2) % num_experts, (num_layers, 1))


def _write_ranks(path: Path, counts: np.ndarray, per_token: bool) -> None:
    path.mkdir(exist_ok=True)
    slots, p2l = _in_slots(counts)
    write_ranks(path, slots, p2l, per_token=per_token)


def _write_stats(path: Path, counts: np.ndarray) -> None:
    path.mkdir(exist_ok=True)
    for i, step in enumerate(counts.astype(np.int32)):
        (path / f"{NAME}_{17e8 + i}.pt").write_bytes(stat_dump(np.stack([step, 0 * step])))


def _write_jax(path: Path, counts: np.ndarray) -> None:
    path.mkdir(exist_ok=True)
    for i, step in enumerate(counts.astype(np.int64)):
        name = f"20261124_{1500 + i}"
        (path / f"x_{name}.npy").write_bytes(jax_dump(step, name))


SAMPLES: Mapping[str, tuple[str, Callable[[Path, np.ndarray], object]]] = {
    "sglang stat": (
        ".pt", lambda path, counts: path.write_bytes(stat_dump(counts.astype(np.int32))),
    ),
    "sglang-jax": (
        ".npy", lambda path, counts: path.write_bytes(jax_dump(counts.sum(0).astype(np.int64))),
    ),
    "sglang stats": ("", _write_stats),
    "sglang per_pass": ("", lambda path, counts: _write_ranks(path, counts, False)),
    "sglang per_token": ("", lambda path, counts: _write_ranks(path, counts, True)),
    "sglang-jax dumps": ("", _write_jax),
}  # fmt: skip
"""Suffix, and how to write a file, or a folder where there is no suffix, of counts
[steps, layers, experts] of integers. `read_loads` finds them again, or their sum."""
