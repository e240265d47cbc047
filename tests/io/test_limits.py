"""Files that are not what they claim: refused within 2 s and 1 GB."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from support import refusal, said_of

MIB = 1 << 20

LOADS, PLAN, STATE = "read_loads", "Plan.load", "Rebalancer.load"


def npy(shape, descr="|i1", data=b""):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def zipped(name, packed, size, directory=b"", method=8):
    """An archive with one file, of which everything may be a lie."""
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, 0, len(packed), size, len(name), 0)
    local = b"PK\3\4" + fields + name.encode() + packed
    directory += b"PK\1\2" + struct.pack("<H", 20) + fields + bytes(14) + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(local), 0)
    return local + directory + b"PK\5\6" + end


def bomb(name, blocks, shape, descr="|i1"):
    """An array of zeros, ``blocks`` times 16 MiB, in a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = npy(shape, descr)
    packed = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += block * blocks + packer.flush(zlib.Z_FINISH)
    return zipped(name, packed, len(header) + blocks * 16 * MIB)


def archive_of(name, content):
    """A sound archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


BIG_BOMB = bomb("logical_count.npy", 160, (160, 1 << 18, 64))
SMALL_BOMB = bomb("logical_count.npy", 31, (31 * 4, 1 << 10, 1 << 10), "<f4")  # may be unpacked
HEADER = {"format": "eplb_np.plan", "version": 1, "dtype": "int64", "policy": "x"}
HUGE_PLAN = {**HEADER, "moe_layer_ids": [0], "phy2log": [[0]], "phyrank": [[0]]}


def plan_of(**sizes):
    return json.dumps({**HUGE_PLAN, "topology": sizes}).encode()


def table(row, count):
    return b'{"logical_count": [' + row * count + b"[1]]}"


CASES = {
    "zip bomb": (LOADS, ".npz", BIG_BOMB, ["are read"]),
    "zip bomb of a plan": (PLAN, ".npz", BIG_BOMB, ["no header"]),
    "zip bomb of a header": (PLAN, ".npz", bomb("header.npy", 160, ()), ["a header may have"]),
    "zip bomb of a state": (STATE, ".npz", bomb("header.npy", 160, ()), ["a header may have"]),
    "zip bomb that is just allowed": (LOADS, ".npz", SMALL_BOMB, ["CRC"]),
    "a text of characters that do not exist": (
        PLAN, ".npz", archive_of("header.npy", npy((), "<U3", b"\xff" * 12)), ["do not exist"],
    ),
    "another size than declared": (
        LOADS, ".npz", zipped("a.npy", npy((1 << 20, 1 << 10)), 1 << 30, method=0), ["size"],
    ),
    "a long directory": (
        LOADS, ".npz", zipped("a.npy", b"", 0, b"PK\1\2" * (1 << 20)), ["too long"],
    ),
    "a long string": (STATE, ".npz", zipped("header.npy", npy((), "<U999999999"), 99), []),
    "Python objects": (LOADS, ".npy", npy((2, 2), "|O", bytes(32)), ["allow_pickle"]),
    "no end": (LOADS, ".npy", npy((1 << 40, 4), "<f8", bytes(4096)), ["declares"]),
    "much from an axis of 0": (LOADS, ".npy", npy((0, 10**30), "<f8"), []),
    "many axes": (LOADS, ".npy", npy((1,) * 900, "|i1", b"1"), []),
    "empty lists": (LOADS, ".json", b'{"logical_count": [' + b"[]," * (10 * MIB) + b"[]]}", []),
    "short rows": (LOADS, ".json", table(b"[1],", 8 * MIB), ["131072 rows"]),
    "a long row": (LOADS, ".json", table(b"[" + b"1," * (20 * MIB) + b"1],", 1), ["1048576"]),
    "a long list": (LOADS, ".json", b'{"logical_count": [' + b"1," * (20 * MIB) + b"1]}", ["MiB"]),
    "another long list": (LOADS, ".json", b'{"x": [' + b'{},"a",' * (6 * MIB) + b"1]}", ["MiB"]),
    "many keys": (
        LOADS, ".json",
        b"{" + b",".join(b'"%d":1' % i for i in range(MIB)) + b"}", ["1024 keys"],
    ),
    "deep": (LOADS, ".json", b'{"logical_count": ' + b"[" * (30 * MIB), []),
    "deep elsewhere": (LOADS, ".json", b'{"x": ' + b'{"x":' * (6 * MIB), []),
    "deep root": (PLAN, ".json", b"[" * (30 * MIB), []),
    "digits": (LOADS, ".json", b'{"logical_count": [[' + b"9" * (30 * MIB) + b"]]}", []),
    "a string in a table": (
        LOADS, ".json", table(b"[" + b"1," * (MIB // 2) + b'"' + b"x" * MIB + b'"],', 1), [],
    ),
    "escapes": (LOADS, ".json", b'{"x": "' + rb"\u4e00" * (20 * MIB) + b'"}', ["MiB"]),
    "wide characters": (
        LOADS, ".json", b'{"x": "' + b"x" * (70 * MIB) + "\U0001f600".encode() + b'"}', ["ASCII"],
    ),
    "a plan of more GPUs than slots": (
        PLAN, ".json", plan_of(num_experts=4, num_replicas=4, num_gpus=10**9), ["num_gpus"],
    ),
    "a plan of many GPUs": (
        PLAN, ".json", plan_of(num_experts=4, num_replicas=10**9, num_gpus=10**9), ["num_replicas"],
    ),
    "a plan of as many GPUs as there may be": (
        PLAN, ".json", plan_of(num_experts=1, num_replicas=1 << 20, num_gpus=1 << 20), ["shape"],
    ),
}  # fmt: skip


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", CASES)
def test_what_is_not_what_it_claims_is_refused_soon(kind, tmp_path):
    read, suffix, content, parts = CASES[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    said = refusal(read, path)
    assert all(part in said for part in parts), said


@pytest.mark.same_without_jit
@pytest.mark.parametrize("read", [LOADS, PLAN, STATE])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["fifo", "endless"]
)
def test_what_has_no_end_is_refused(make, read, tmp_path):
    path = tmp_path / "file.npz"
    make(path)
    assert "not a regular file" in refusal(read, path)


@pytest.mark.same_without_jit
@pytest.mark.parametrize("descr", ["|i1", "<f4", "<f8"])
def test_zeros_are_refused_soon(descr, tmp_path):
    """That they are no loads is known at their end only, so there cannot be many."""
    path = tmp_path / "file.npy"
    size = np.dtype(descr).itemsize
    loads = min(1 << 27, (1 << 29) // size)
    write_sparse(path, npy((loads >> 14, 1 << 6, 1 << 8), descr), loads * size)
    assert "all 64 layers are zero" in refusal(LOADS, path)


@pytest.mark.same_without_jit
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_more_loads_than_are_read_are_refused_by_their_header(suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    for more, descr, parts in [(1, "|i1", ["parts of 8192 steps"]), (0, "<f8", ["512 MiB"])]:
        shape = ((1 << 13) + more, 1 << 6, 1 << 8)
        size = np.dtype(descr).itemsize * int(np.prod(shape))
        if suffix == ".npy":
            write_sparse(path, npy(shape, descr), size)
        else:
            path.write_bytes(bomb("a.npy", -(-size >> 24), shape, descr))
            parts = [part.replace("512 MiB", "536,870,912") for part in parts]
        said = refusal(LOADS, path)
        assert all(part in said for part in parts), said


def write_sparse(path, header, size):
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


@pytest.mark.same_without_jit
def test_a_long_recording_is_read_within_a_gigabyte(tmp_path):
    """Of 50 MB of JSON."""
    row = b"[" + b", ".join(b"%d.0" % (i * 37 % 100_000) for i in range(1 << 14)) + b"]"
    path = tmp_path / "file.json"
    rows = 50_000_000 // len(row)
    path.write_bytes(b'{"logical_count": [' + b",\n".join([row] * rows) + b"]}")
    read = "(lambda path: read_loads(path).load.shape)"
    assert said_of(read, path) == f"read ({rows}, {1 << 14})"


@pytest.mark.same_without_jit
def test_the_state_of_many_layers_is_not_made(tmp_path):
    path = tmp_path / "file.npz"
    sizes = {"num_experts": 1 << 20, "num_replicas": 1 << 20, "num_gpus": 1}
    header = {
        "format": "eplb_np.rebalancer", "version": 1, "dtype": "int64", "num_layers": 1 << 20,
        "moe_layer_ids": [0], "limits": {}, "topology": sizes, "plan_topology": None,
    }  # fmt: skip
    np.savez_compressed(path, header=np.array(json.dumps(header)))
    assert "moe_layer_ids" in refusal(STATE, path)
    header |= {"moe_layer_ids": list(range(1 << 18)), "num_layers": 1 << 18}
    np.savez_compressed(path, header=np.array(json.dumps(header)))
    assert "memory" in refusal(STATE, path)
