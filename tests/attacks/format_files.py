"""Files of serving engines, sound and damaged; of a folder of files, one is damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plain_samples
import rank_samples
import sglang_samples
from mutations import damage_json, damage_npy, damage_zip, pack, unpack
from plans import separate_plan
from torch_samples import sound_files, torch_old

from eplb_np import Topology
from eplb_np.io import FORMATS, read_loads, read_plan, write_plan

COUNTS = np.random.default_rng(7).integers(1, 9, (2, 3, 4, 8))
COUNTS[..., -1] += COUNTS.sum(axis=-1) % 2  # two experts for each token of a trace
COUNTS[:, :, 1] = 0  # a dense layer

Damage = Callable[[bytes, random.Random], bytes]


class FormatFile(NamedTuple):
    """A kind of file: its suffix, two sound samples, how it is read and damaged."""

    suffix: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], Any]
    damage: Damage


OPCODES = (
    b"c__builtin__\neval\n", b"cos\nsystem\n", b"R", b"b", b"(", b"t", b"}", b"]", b"a", b"s", b"u",
    b"0", b"2", b"N", b".", b"h\x00", b"q\x01", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"Q",
    b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\x7f", b"\x80\x05", b"\x85", b"\x86", b"\x87", b"\x93", b"\x94", b"\x95",
)  # fmt: skip


def damage_pickle(content: bytes, rng: random.Random) -> bytes:
    """Put other instructions into a pickle, or leave some out."""
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice([0, 0, 1, 2, 5]))
    return content[:start] + rng.choice(OPCODES) * rng.choice([1, 1, 3, 1000]) + content[stop:]


def damage_torch_zip(content: bytes, rng: random.Random) -> bytes:
    """Damage the pickle of an archive, or what else it holds."""
    if rng.random() < 0.4:
        return damage_zip(content, rng)
    members = [
        (name, damage_pickle(inside, rng) if name.endswith("data.pkl") else inside)
        for name, inside in unpack(content)
    ]
    return pack(members, 0)


def damage_pickled_npy(content: bytes, rng: random.Random) -> bytes:
    header = content.index(b"\n") + 1
    if rng.random() < 0.3:
        return damage_npy(content, rng)
    return content[:header] + damage_pickle(content[header:], rng)


def damage_text(content: bytes, rng: random.Random) -> bytes:
    """Change a cell, or a line, of a table."""
    lines = content.split(b"\n")
    i = rng.randrange(len(lines))
    cells = lines[i].split(b",")
    odd = [b"", b"x", b"-1", b"nan", b"1e999", b'"', b"9" * 500, b"\0", b"1,2", b"0x1", b"#"]
    cells[rng.randrange(len(cells))] = rng.choice(odd)
    lines[i] = rng.choice([b",".join(cells), lines[i] * 2, b""])
    return b"\n".join(lines)


def single(suffix: str, content: Callable[[Any], bytes], damage: Damage) -> FormatFile:
    """A format of one file, whose content follows from counts [S, L, E]."""
    return FormatFile(
        suffix, lambda path, sample: path.write_bytes(content(COUNTS[sample])), read_loads, damage
    )


def member(suffix: str, write: Callable[[Path, Any], object], damage: Damage) -> FormatFile:
    """The second file of a folder that is written of counts; the others beside it are sound."""

    def second_of(folder: Path) -> Path:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix)[1]

    def write_second(path: Path, sample: int) -> None:
        folder = path.with_name(f"sound-{sample}")
        folder.mkdir(exist_ok=True)
        write(folder, COUNTS[sample])
        path.write_bytes(second_of(folder).read_bytes())

    def read_folder(path: Path) -> Any:
        folder = path.with_name("folder")
        if not folder.exists():
            folder.mkdir()
            write(folder, COUNTS[0])
        second = second_of(folder)
        second.unlink()
        second.symlink_to(path)  # which may be anything
        try:
            return read_loads(folder)
        except ValueError as error:  # whose beginning is the path of the folder, or of a file
            raise ValueError(f"{path}: {error}") from None

    return FormatFile(suffix, write_second, read_folder, damage)


def plan_file(name: str, damage: Damage) -> FormatFile:
    """A plan in the format of an engine."""
    suffix = FORMATS[name].member("CONSUMER").suffixes[0]

    def write(path: Path, sample: int) -> None:
        layers = [0, 2, 3]
        plan = separate_plan(COUNTS[sample, 0, layers], Topology(8, 12, 4), layers)
        write_plan(plan, path, name, num_hidden_layers=4)

    return FormatFile(suffix, write, lambda path: read_plan(path, name, num_gpus=4), damage)


def of_sglang(name: str) -> Callable[[Path, Any], object]:
    return sglang_samples.SAMPLES[name][1]


LAYERS = range(4)

RECORDINGS = {
    "sglang .pt": single(
        ".pt", lambda counts: sglang_samples.stat_dump(counts.astype(np.int32)), damage_torch_zip
    ),
    "sglang old .pt": single(
        ".pt", lambda counts: torch_old({"logical_count": counts.astype(np.int64)}), damage_pickle
    ),
    "sglang per_pass": member(".pt", of_sglang("sglang per_pass"), damage_torch_zip),
    "sglang per_token": member(".pt", of_sglang("sglang per_token"), damage_torch_zip),
    "sglang-jax": single(
        ".npy", lambda counts: sound_files(counts)["pickled npy"], damage_pickled_npy
    ),
    "tensorrt-llm": member(
        ".safetensors",
        lambda folder, counts: rank_samples.write_expert_statistic(folder, counts, LAYERS),
        rank_samples.damage_safetensors(damage_json),
    ),
    "megatron": member(
        ".jsonl",
        lambda folder, counts: rank_samples.write_tokens_per_expert(folder, counts, LAYERS),
        rank_samples.damage_lines(damage_json),
    ),
    "megatron-trace": member(
        ".jsonl",
        lambda folder, counts: rank_samples.write_router_trace(folder, counts, LAYERS),
        rank_samples.damage_lines(damage_json),
    ),
    "fastdeploy": single(
        ".json", lambda counts: plain_samples.as_rearrange_experts(counts[0]), damage_json
    ),
    "json": single(".json", plain_samples.as_list, damage_json),
    "text": single(".csv", lambda counts: plain_samples.as_text(counts[0]), damage_text),
    "text of entries": single(
        ".csv", lambda counts: plain_samples.as_entries(counts[0]), damage_text
    ),
}

PLANS = {
    "sglang map": plan_file("sglang", damage_json),
    "sglang-jax map": plan_file("sglang-jax", damage_npy),
    "vllm-ascend map": plan_file("vllm-ascend", damage_json),
    "tensorrt-llm YAML": plan_file("tensorrt-llm", damage_text),
}
