"""Damage to files: of their bytes, of what a zip archive holds, of array headers, of JSON."""

from __future__ import annotations

import ast
import io
import json
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

Rng = random.Random

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, float("nan"), float("inf"), float("-inf"), 1e308,
    2**31, 2**63, 2**64, 10**30, 10**400, "", "text", "two\nlines", "\x1b[31m", "int32", "float16",
    "object", "U99", [], {}, [[]], [None], [0, 1, 2], ["0"], {"a": 1}, [[[[[[1]]]]]], [True] * 8,
)  # fmt: skip

SHAPES = (
    (), (0,), (-1,), (1,), (2**20, 2**20), (2**62, 4), (2**63,), (3, 0), (1, 1, 1, 1), (True,),
    ("2",), (2.0,), (None,),
)  # fmt: skip

DTYPES = (
    "<i4", "<i8", ">i8", "<u8", "|i1", "|b1", "<f2", "<f8", "<f16", "<c16", "|O", "<U5", "|S8",
    "|V8", "<M8[s]", [("a", "<i4")], "<i3", "", None, "<i8,<i8", "|V0", "<U0",
)  # fmt: skip


def flip_bits(content: bytes, rng: Rng) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(content: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(content))
    size = rng.choice([1, 4, 32])
    return (
        content[:start] + rng.choice([b"\0", b"\xff", b"9", b"["]) * size + content[start + size :]
    )


def cut(content: bytes, rng: Rng) -> bytes:
    return content[: rng.randrange(len(content))]


def splice(content: bytes, rng: Rng) -> bytes:
    """Two pieces of the file, put together."""
    return content[: rng.randrange(len(content))] + content[rng.randrange(len(content)) :]


def repeat(content: bytes, rng: Rng) -> bytes:
    """A piece of the file, twice or more often."""
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:stop] + content[start:stop] * rng.choice([1, 3]) + content[stop:]


BYTES = (flip_bits, overwrite, cut, splice, repeat)


def damage_bytes(content: bytes, rng: Rng) -> bytes:
    return rng.choice(BYTES)(content, rng) if content else content


def damage_npy(content: bytes, rng: Rng) -> bytes:
    """An array's file whose header declares something else."""
    if content[:6] != b"\x93NUMPY" or rng.random() < 0.3:
        return damage_bytes(content, rng)
    size = int.from_bytes(content[8:10], "little")
    header = ast.literal_eval(content[10 : 10 + size].decode("latin1"))
    what = rng.choice(["shape", "descr", "fortran_order", "swapped", "version", "text"])
    if what == "shape":
        header["shape"] = rng.choice(SHAPES)
    elif what == "descr":
        header["descr"] = rng.choice(DTYPES)
    elif what == "fortran_order":
        header["fortran_order"] = rng.choice([not header["fortran_order"], 1, None, "no"])
    elif what == "swapped":
        header["shape"] = header["shape"][::-1]
    text = repr(header)
    if what == "text":
        text = rng.choice(
            ["", "(" * 500, "{'a': 1L}", text.replace(",", "L,"), text * 3, "9" * 9000]
        )
    version = rng.choice([b"\2\0", b"\3\0", b"\7\7"]) if what == "version" else content[6:8]
    encoded = text.encode() + b"\n"
    length = len(encoded).to_bytes(4 if what == "version" else 2, "little")
    return content[:6] + version + length + encoded + content[10 + size :]


def damage_json(content: bytes, rng: Rng) -> bytes:
    """JSON in which a value, or a key, is another."""
    value = json.loads(content)
    path = _random_place(value, rng)
    what = rng.choice(["replace", "replace", "drop", "rename", "double"])
    new = rng.choice(ODD)
    if not path:
        return json.dumps(new).encode()
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if what == "drop":
        del parent[path[-1]]
    elif what == "rename" and isinstance(parent, dict):
        parent[rng.choice(["", "x" * 999, "self", "__class__"])] = parent.pop(path[-1])
    elif what == "double" and isinstance(parent, dict):
        parent["a double"] = new
        text = json.dumps(value).replace('"a double"', json.dumps(path[-1]))
        return text.encode()
    else:
        parent[path[-1]] = new
    return json.dumps(value).encode()


def _random_place(value: Any, rng: Rng) -> list[Any]:
    """Keys that lead to some value: near the root as likely as in the depth."""
    path: list[Any] = []
    while isinstance(value, (dict, list)) and value and (not path or rng.random() < 0.75):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        path.append(rng.choice(keys))
        value = value[path[-1]]
    return path


def damage_zip(content: bytes, rng: Rng) -> bytes:
    """An archive that is sound, but for what it holds."""
    members = unpack(content)
    i, k = rng.randrange(len(members)), rng.randrange(len(members))
    (name, inside), (other, _) = members[i], members[k]
    what = rng.choice(
        ["inside", "inside", "json", "json", "json", "swap", "drop", "again", "rename"]
    )
    if what == "json":
        return change_json(content, lambda text: damage_json(text, rng))
    if what == "inside":
        members[i] = (name, damage_npy(inside, rng))
    elif what == "swap":
        members[i], members[k] = (name, members[k][1]), (other, members[i][1])
    elif what == "drop":
        del members[i]
    elif what == "again":
        members.append((name, members[k][1]))
    else:
        members[i] = (
            rng.choice(["../" + name, name[:-4], name.upper(), "/", "header.npy"]),
            inside,
        )
    return pack(members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))


def change_json(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the JSON in a file of the package's own, of either kind."""
    if content[:1] == b"{":
        return change(content)
    members = [
        (name, damage_header(inside, change) if name == "header.npy" else inside)
        for name, inside in unpack(content)
    ]
    return pack(members)


def unpack(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def pack(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, inside in members:
            archive.writestr(name, inside)
    return file.getvalue()


def damage_header(npy: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the JSON text that a one-string array holds."""
    match = re.search(rb"'<U(\d+)'", npy)
    size = int.from_bytes(npy[8:10], "little")
    if match is None:
        return npy
    text = npy[10 + size :].decode("utf-32-le", "replace")
    try:
        changed = change(text.encode())
    except ValueError:
        return npy
    encoded = changed.decode("utf-8", "replace").encode("utf-32-le")
    header = ascii({"descr": f"<U{len(encoded) // 4}", "fortran_order": False, "shape": ()}) + "\n"
    return npy[:8] + len(header).to_bytes(2, "little") + header.encode() + encoded
