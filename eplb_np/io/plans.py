"""Plans as ``.npz`` (no pickle) and JSON files."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eplb_np._files import reading, suffix_of, write_atomically
from eplb_np.plan import Plan
from eplb_np.topology import Topology

FORMAT = "eplb_np.plan"
VERSION = 1
SUFFIXES = (".json", ".npz")
ARRAYS = ("phy2log", "phyrank")
FIELDS = frozenset(["policy", "topology", "dtype", "moe_layer_ids", *ARRAYS])


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file whose suffix says the format."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "policy": plan.policy,
        "placement": plan.placement,
        "topology": dataclasses.asdict(plan.topology),
        "dtype": plan.dtype.name,
        "moe_layer_ids": list(plan.moe_layer_ids or ()),
    }
    arrays = {name: getattr(plan, name) for name in ARRAYS}

    def write_json(file: BinaryIO) -> None:
        rows = {name: array.tolist() for name, array in arrays.items()}
        file.write(json.dumps({**header, **rows}).encode())

    def write_npz(file: BinaryIO) -> None:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

    json_wanted = suffix_of(path, SUFFIXES) == ".json"
    write_atomically(path, write_json if json_wanted else write_npz)


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan that `write_plan` wrote, or raise ``ValueError`` in one line."""
    read = _read_json if suffix_of(path, SUFFIXES) == ".json" else read_npz
    with reading(path, " is not a plan"):
        content = read(path)
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise ValueError(
                f"it says format {content.get('format')!r}, version {content.get('version')!r}; "
                f"needed are {FORMAT!r} and {VERSION}"
            )
        missing = FIELDS.difference(content)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return Plan(
            _as_integers(content["phy2log"], content["dtype"]),
            _as_integers(content["phyrank"], content["dtype"]),
            Topology(**content["topology"]),
            str(content["policy"]),
            content["moe_layer_ids"],
        )


def _as_integers(values: Any, dtype: str) -> NDArray[Any]:
    """Cast what a file holds to the dtype that it states, where that changes no value."""
    given = np.asarray(values)
    array = given.astype(dtype)
    if given.dtype.kind != "i" or (array != given).any():
        raise ValueError(f"its arrays hold other numbers than {dtype}")
    return array


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a JSON {type(content).__name__}, not an object")
    return content


def read_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arrays of an archive, and what its JSON header says beside them."""
    with Path(path).open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is no .npz archive")
        content = {name: archive[name] for name in archive.files}
    if "header" not in content:
        raise ValueError("it has no header")
    return {**json.loads(str(content.pop("header"))), **content}
