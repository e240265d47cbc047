"""Folders and lines that are not what they claim: refused within 2 s and 1 GB."""

import gzip
import json
import os
import struct

import numpy as np
import pytest
from rank_samples import safetensors_bytes, safetensors_of, write_expert_statistic
from support import refusal, said_of

MIB = 1 << 20
LOADS, PLAN = "read_loads", "(lambda path: read_plan(path, num_gpus=1))"
IMPORTS = """
import eplb_np, numba, yaml
from eplb_np.io import read_loads, read_plan
"""


def statistic(folder, num_experts, **files):
    folder.mkdir()
    (folder / "meta_info.json").write_text(json.dumps({"num_experts": num_experts}))
    for name, content in files.items():
        (folder / f"{name}.safetensors").write_bytes(content)


def zeros(num_tensors, num_experts, layers=64):
    """A header of tensors of bytes that are zero, and how many bytes of data it wants."""
    header = {
        f"{i // layers}_{i % layers}": {
            "dtype": "U8", "shape": [num_experts],
            "data_offsets": [i * num_experts, (i + 1) * num_experts],
        }
        for i in range(num_tensors)
    }  # fmt: skip
    return safetensors_of(header, b""), num_tensors * num_experts


def write_sparse(path, header, size):
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


HEADERS = {
    "no end": struct.pack("<Q", 1 << 40) + b"{}",
    "long": struct.pack("<Q", 40 * MIB) + b"{" + b" " * (40 * MIB - 1),
    "spaces": struct.pack("<Q", 32 * MIB) + b"{" + b" " * (32 * MIB - 1),
    "deep": struct.pack("<Q", 30 * MIB) + b'{"a":' + b"[" * (30 * MIB - 5),
    "objects": struct.pack("<Q", 30 * MIB) + b'{"a":[' + b"{}," * (10 * MIB - 2),
    "rows": struct.pack("<Q", 8 * MIB + 8) + b'{"a":[ ' + b"[1]," * (2 * MIB) + b" ",
    "metadata": safetensors_of({"__metadata__": ["ab"] * (5 * MIB)}, b""),
    "a long name": safetensors_of({"x" * (30 * MIB): 1}, b""),
    "many": safetensors_of({f"{i}": 1 for i in range(MIB)}, b""),
    "many tensors": zeros((1 << 17) + 1, 0)[0],
    "huge": safetensors_of(
        {"0_0": {"dtype": "I64", "shape": [1 << 60], "data_offsets": [0, 1 << 63]}}, b""
    ),
}


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_tensors(kind, tmp_path):
    statistic(tmp_path / "s", 8, rank0=HEADERS[kind])
    refusal(LOADS, tmp_path / "s", IMPORTS)


@pytest.mark.same_without_jit
@pytest.mark.parametrize(
    ("num_tensors", "num_experts", "ranks"),
    [(1 << 17, 1, 1), (1 << 17, 512, 1), (1 << 10, 1 << 16, 1), (64, 8, 3000), (1 << 12, 16, 100)],
)
def test_zeros_of_ranks(num_tensors, num_experts, ranks, tmp_path):
    """That they are no loads is known at their end only."""
    header, size = zeros(num_tensors, num_experts)
    statistic(tmp_path / "s", num_experts)
    for rank in range(ranks):
        write_sparse(tmp_path / "s" / f"rank{rank}.safetensors", header, size)
    assert "zero" in refusal(LOADS, tmp_path / "s", IMPORTS)


@pytest.mark.same_without_jit
def test_more_than_is_read_is_refused_by_the_header(tmp_path):
    header, size = zeros((1 << 10) + 64, 1 << 16)
    statistic(tmp_path / "s", 1 << 16)
    write_sparse(tmp_path / "s" / "rank0.safetensors", header, size)
    assert "record fewer iterations" in refusal(LOADS, tmp_path / "s", IMPORTS)
    header, size = zeros(1 << 14, 1 << 16)
    write_sparse(tmp_path / "s" / "rank0.safetensors", header, size)
    assert "512 MiB" in refusal(LOADS, tmp_path / "s", IMPORTS)


@pytest.mark.same_without_jit
def test_a_packed_bomb(tmp_path):
    statistic(tmp_path / "s", 8)
    bomb = gzip.compress(safetensors_bytes({"0_0": np.zeros(1)}) + bytes(200 * MIB), 1)
    (tmp_path / "s" / "rank0.safetensors.gz").write_bytes(bomb)
    assert "128 MiB" in refusal(LOADS, tmp_path / "s", IMPORTS)


@pytest.mark.same_without_jit
def test_a_long_statistic_is_read_within_a_gigabyte(tmp_path):
    """A thousand steps of 58 layers, on two ranks."""
    counts = np.ones((1000, 58, 256), np.int64)
    write_expert_statistic(tmp_path / "s", counts, range(3, 61))
    read = "(lambda path: read_loads(path).steps.sum())"
    assert said_of(read, tmp_path / "s", IMPORTS) == f"read {counts.size}.0"


def lines(record, size):
    line = (record + "\n").encode()
    return line * (size // len(line) + 2)


TPE = '{"iter": %d, "layer": 0, "tpe": %s}'
TRACE = '{"step": %d, "layer": 0, "top_indices": %s}'
ROWS = "[" + "[0]," * 100_000 + "[0]]"

LINES = {
    "zeros": lines(TPE % (1, "[[0, 0]]"), 50 * MIB),
    "short rows": lines(TPE % (1, ROWS), 50 * MIB),
    "a long row": lines(TPE % (1, f"[[{'0,' * 500_000}0]]"), 50 * MIB),
    "other blocks": lines('{"iter": 1, "layer": 0, "block": "mtp", "tpe": [[1]]}', 50 * MIB),
    "no tokens": lines(TRACE % (1, "[]"), 50 * MIB),
    "a long line": (TPE % (1, "[[1]]") + "\n" + TPE % (1, "x" * (20 * MIB))).encode() + b"\n",
    "spaces": (TPE % (1, "[[0]]") + "\n" * (50 * MIB) + TPE % (1, "[[0]]")).encode(),
    "large ids": "".join(TRACE % (i, [[(1 << 20) - 1 - i]]) + "\n" for i in range(1000)).encode(),
    "ids that grow": "".join(
        TRACE % (i, [[1 << min(i // 3, 19)]]) + "\n" for i in range(1 << 15)
    ).encode(),
}


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", LINES)
def test_lines(kind, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(LINES[kind])
    refusal(LOADS, path, IMPORTS)


YAML = "num_slots: 2\ninitial_global_assignments: "
TEXTS = {
    "long": YAML + " " * (5 * MIB),
    "spaces": YAML + " " * (3 * MIB),
    "deep": YAML + "[" * (3 * MIB),
    "deep blocks": YAML + "\n" + "- " * (1 * MIB),
    "a row": YAML + "{1: [" + "0," * MIB + "0]}",
    "layers": YAML + "{" + ", ".join(f"{i}: [0]" for i in range(250_000)) + "}",
    "keys": "".join(f"{i}: 1\n" for i in range(350_000)) + YAML,
    "aliases": YAML + "&a [0, 1]\n" + "".join(f"x{i}: &x{i} [*a, *a]\n" for i in range(99_999)),
    "digits": YAML + "{1: [" + "9" * (3 * MIB) + "]}",
    "quotes": YAML + '"' + r"\u4e00" * (MIB // 2) + '"',
}


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", TEXTS)
def test_texts(kind, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(TEXTS[kind])
    refusal(PLAN, path, IMPORTS)
