"""Sound files of TensorRT-LLM and Megatron-LM, written from counts, and damage to them.

Counts [steps, layers, experts] are integers. The writers follow the formats, not their readers.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {"i8": "I64", "i4": "I32", "u1": "U8", "f2": "F16", "f4": "F32", "f8": "F64", "u8": "U64"}


def safetensors_bytes(
    tensors: Mapping[str, NDArray[Any]], names: Mapping[str, str] = NAMES, **header: Any
) -> bytes:
    """A file of safetensors; more keyword arguments are more keys of the header."""
    place = 0
    for key, tensor in tensors.items():
        offsets = [place, place + tensor.nbytes]
        dtype = names[tensor.dtype.str[1:]]
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        place += tensor.nbytes
    return safetensors_of(header, b"".join(tensor.tobytes() for tensor in tensors.values()))


def safetensors_of(header: object, data: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def shares(counts: NDArray[Any], parts: int, seed: int = 1) -> NDArray[Any]:
    """Split counts at random: [parts, *shape], which add up to them."""
    rng = np.random.default_rng(seed)
    return np.moveaxis(rng.multinomial(counts, [1 / parts] * parts), -1, 0)


def write_expert_statistic(
    folder: Path, counts: NDArray[Any], layers: Sequence[int], num_ranks: int = 2, first: int = 100
) -> None:
    """TensorRT-LLM's statistics: of each rank's own tokens, with an order of keys of its own."""
    folder.mkdir(exist_ok=True)
    meta = {"num_experts": counts.shape[-1], "num_experts_per_token": 2}
    (folder / "meta_info.json").write_text(json.dumps(meta))
    rng = random.Random(5)
    for rank, part in enumerate(shares(counts, num_ranks)):
        tensors = {
            f"{first + i}_{layer}": part[i, row].astype("<i8")
            for i in range(len(part))
            for row, layer in enumerate(layers)
        }
        keys = rng.sample(list(tensors), len(tensors))
        content = safetensors_bytes({key: tensors[key] for key in keys})
        (folder / f"rank{rank}.safetensors").write_bytes(content)


def write_load_balancer(path: Path, phy2log: NDArray[Any], layers: Sequence[int]) -> None:
    """TensorRT-LLM's plan, as its own script writes it: with sorted keys."""
    rows = [f"  {layer}: {row}\n" for layer, row in zip(layers, phy2log.tolist(), strict=True)]
    path.write_text(
        f"initial_global_assignments:\n{''.join(rows)}layer_updates_per_iter: 0\n"
        f"num_slots: {phy2log.shape[1]}\n"
    )


def write_tokens_per_expert(
    folder: Path,
    counts: NDArray[Any],
    layers: Sequence[int],
    num_ranks: int = 2,
    replicas: int = 1,
    iterations: Sequence[int] | None = None,
) -> None:
    """Megatron-LM's tokens per expert, with two microbatches and a block for more predictions."""
    folder.mkdir(exist_ok=True)
    iterations = range(10, 10 * len(counts) + 1, 10) if iterations is None else iterations
    local = counts.shape[-1] // num_ranks
    for replica, part in enumerate(shares(counts, replicas)):
        for rank in range(num_ranks):
            mine = shares(part[..., rank * local : (rank + 1) * local], 2, seed=2)
            lines = []
            for i, step in enumerate(iterations):
                for row, layer in enumerate(layers):
                    record = {"iter": step, "block": "decoder", "layer": layer}
                    lines.append({**record, "tpe": mine[:, i, row].tolist()})
                mtp = {"iter": step, "block": "mtp", "mtp_idx": 0, "layer": layers[0]}
                lines.append({**mtp, "tpe": [[7] * local]})
            write_lines(folder / f"rank{replica * num_ranks + rank}.jsonl", lines)


def write_router_trace(
    folder: Path, counts: NDArray[Any], layers: Sequence[int], num_ranks: int = 2, topk: int = 2
) -> None:
    """Megatron-LM's router trace; counts of a layer must add up to a multiple of ``topk``."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    lines: list[list[dict[str, Any]]] = [[] for _ in range(num_ranks)]
    for step, matrix in enumerate(counts):
        for row, layer in enumerate(layers):
            ids = np.repeat(np.arange(counts.shape[-1]), matrix[row])
            tokens = rng.permutation(ids).reshape(-1, topk)
            for rank, part in enumerate(np.array_split(tokens, num_ranks)):
                record = {"step": step, "stage": "pre_dispatch", "block": "decoder"}
                record |= {"layer": layer, "rank": rank, "num_tokens": len(part), "topk": topk}
                lines[rank].append({**record, "top_indices": part.tolist()})
    for rank, records in enumerate(lines):
        write_lines(folder / f"router_trace_rank{rank}.jsonl", records)


def write_lines(path: Path, records: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


# ---------------------------------------------------------------------------------------------
# For attacks: one file of a folder is damaged
# ---------------------------------------------------------------------------------------------

Rng = random.Random
Damage = Callable[[bytes, Rng], bytes]

LAYERS = (3, 4, 6)
SAMPLES = np.random.default_rng(7).integers(1, 9, (2, 4, len(LAYERS), 8))
SAMPLES[..., -1] += SAMPLES.sum(axis=-1) % 2  # two experts for each token

FOLDERS: dict[str, tuple[Callable[[Path, NDArray[Any], Sequence[int]], None], str]] = {
    "tensorrt-llm": (write_expert_statistic, "rank1.safetensors"),
    "megatron": (write_tokens_per_expert, "rank1.jsonl"),
    "megatron-trace": (write_router_trace, "router_trace_rank1.jsonl"),
}
"""By format: the writer of a folder, and the file of it that is damaged."""


def write_member(name: str, path: Path, sample: int) -> None:
    """Write one file of a folder to a path."""
    write, member = FOLDERS[name]
    folder = path.with_name(f"sound-{name}")
    write(folder, SAMPLES[sample], LAYERS)
    path.write_bytes((folder / member).read_bytes())


def read_beside_sound(name: str, path: Path, read: Callable[[Path], Any]) -> Any:
    """Read a folder of which a file is replaced by that of a path; errors name the path."""
    write, member = FOLDERS[name]
    folder = path.with_name(f"folder-{name}")
    write(folder, SAMPLES[0], LAYERS)
    (folder / member).write_bytes(path.read_bytes())
    try:
        return read(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), str(path), 1)) from None


def damage_lines(damage_json: Damage) -> Damage:
    """Damage to lines of JSON, in one of them or in their order."""

    def damage(content: bytes, rng: Rng) -> bytes:
        lines = content.splitlines(keepends=True)
        i, k = rng.randrange(len(lines)), rng.randrange(len(lines))
        what = rng.choice(["json", "json", "json", "swap", "drop", "again", "join"])
        if what == "json":
            lines[i] = damage_json(lines[i], rng) + b"\n"
        elif what == "swap":
            lines[i], lines[k] = lines[k], lines[i]
        elif what == "drop":
            del lines[i]
        elif what == "again":
            lines.insert(i, lines[k])
        else:
            lines[i] = lines[i].rstrip()
        return b"".join(lines)

    return damage


def damage_safetensors(damage_json: Damage) -> Damage:
    """Damage to the header of safetensors, and to the data's length."""

    def damage(content: bytes, rng: Rng) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header, data = content[8 : 8 + length], content[8 + length :]
        if rng.random() < 0.2:
            data = rng.choice([data[:-1], data + b"\0", b"", data * 2])
        else:
            header = damage_json(header, rng)
        return struct.pack("<Q", len(header)) + header + data

    return damage
