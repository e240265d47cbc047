"""Files that no reader may wait for, or believe: endless ones, and ones that unpack to far more."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arena import Problems
from mutations import pack
from plain_check import check_one_line
from readers import READERS, TOPOLOGIES

BLOCK = 1 << 24
BOMB_BLOCKS = 160  # of zeros: 2.7 GB
JSON_BYTES = 30 << 20


def npy(shape: str, descr: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def bomb(path: Path, name: str, descr: str = "|i1") -> None:
    """Write an archive with one array of zeros that takes a thousandth of its size."""
    header = npy(f"({BOMB_BLOCKS}, {BLOCK // 64}, 64)", descr)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + block * BOMB_BLOCKS + packer.flush(zlib.Z_FINISH)
    size = len(header) + BLOCK * BOMB_BLOCKS
    # The checksum is wrong, but who finds out has unpacked everything.
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
    local = b"PK\3\4" + fields + name.encode() + packed
    directory = b"PK\1\2" + struct.pack("<H", 20) + fields + bytes(14) + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(local), 0)
    path.write_bytes(local + directory + b"PK\5\6" + end)


def bomb_by_name(path: Path) -> None:
    bomb(path, "logical_count.npy")


def bomb_of_header(path: Path) -> None:
    bomb(path, "header.npy")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def brackets(path: Path) -> None:
    """JSON that makes an object of every third byte."""
    path.write_bytes(b'{"logical_count": [' + b"[]," * (JSON_BYTES // 3) + b"[]]}")


def deep(path: Path) -> None:
    path.write_bytes(b'{"logical_count": ' + b"[" * JSON_BYTES)


def digits(path: Path) -> None:
    path.write_bytes(b'{"logical_count": [[' + b"9" * JSON_BYTES + b"]]}")


def declares_much(path: Path) -> None:
    content = npy("(1099511627776, 4)", "<f8", bytes(4096))
    path.write_bytes(content if path.suffix == ".npy" else pack([("logical_count.npy", content)]))


def declares_a_long_string(path: Path) -> None:
    path.write_bytes(pack([("header.npy", npy("()", "<U1000000000", bytes(4096)))]))


def plan_of_nothing(path: Path) -> None:
    """A small file that says that it is of a huge deployment."""
    sizes = {"num_experts": 4, "num_replicas": 4, "num_gpus": 10**9}
    header = {
        "format": "eplb_np.plan", "version": 1, "dtype": "int64", "moe_layer_ids": [0],
        "policy": "x", "topology": sizes, "phy2log": [[0]], "phyrank": [[0]],
    }  # fmt: skip
    path.write_text(json.dumps(header))


def state_of_nothing(path: Path) -> None:
    """A state of many layers, of which it holds none."""
    header = {
        "format": "eplb_np.rebalancer", "version": 1, "dtype": "int64", "num_layers": 10**8,
        "moe_layer_ids": [0], "limits": {}, "plan_topology": None,
        "topology": {"num_experts": 12, "num_replicas": 16, "num_gpus": TOPOLOGIES[0].num_gpus},
    }  # fmt: skip
    path.write_bytes(pack([("header.npy", _saved(np.array(json.dumps(header))))]))


def _saved(array: np.ndarray) -> bytes:
    with tempfile.TemporaryFile() as file:
        np.save(file, array)
        file.seek(0)
        return file.read()


ANY = tuple(READERS)
NPZ = tuple(name for name in READERS if name.endswith(".npz"))
JSON = tuple(name for name in READERS if name.endswith(".json"))
FILES: dict[Callable[[Path], None], tuple[str, ...]] = {
    fifo: ANY,
    endless: ANY,
    folder: ANY,
    brackets: JSON,
    deep: JSON,
    digits: JSON,
    bomb_by_name: NPZ,
    bomb_of_header: NPZ,
    declares_much: ("read_loads .npy", "read_loads .npz"),
    declares_a_long_string: NPZ,
    plan_of_nothing: ("Plan.load .json",),
    state_of_nothing: ("Rebalancer.load .npz",),
}


def attack(name: str, make: Callable[[Path], None]) -> Problems:
    """Read a file that cannot be what is read."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder_name:
        path = Path(folder_name) / f"hostile{reader.suffix}"
        make(path)
        try:
            found = reader.read(path)
        except Exception as error:  # noqa: BLE001 - judged here
            wrong = check_one_line(error) or ("" if str(path) in str(error) else str(error)[:300])
            return {"wrong": [wrong]} if wrong else {}
    return {"wrong": [f"it returned {str(found)[:100]}"]}


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Every file against every reader that it is for."""
    return {
        f"{make.__name__}, {name}": lambda name=name, make=make: attack(name, make)
        for make, names in FILES.items()
        for name in names
    }
