"""Plans as ``.npz`` (no pickle) and JSON files."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eplb_np._files import suffix_of, write_atomically
from eplb_np.plan import Plan
from eplb_np.topology import Topology

FORMAT = "eplb_np.plan"
VERSION = 1
SUFFIXES = (".json", ".npz")
ARRAYS = ("phy2log", "phyrank")


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
    read = _read_json if suffix_of(path, SUFFIXES) == ".json" else _read_npz
    try:
        content = read(path)
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise ValueError(
                f"it says format {content.get('format')!r}, version {content.get('version')!r}; "
                f"needed are {FORMAT!r} and {VERSION}"
            )
        dtype = np.dtype(content["dtype"])
        return Plan(
            np.asarray(content["phy2log"], dtype=dtype),
            np.asarray(content["phyrank"], dtype=dtype),
            Topology(**content["topology"]),
            str(content["policy"]),
            content["moe_layer_ids"],
        )
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise ValueError(f"{os.fspath(path)} is not a plan: it has no {error}") from None
    except (ValueError, TypeError, OverflowError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)} is not a plan: {error}") from None


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a JSON {type(content).__name__}, not an object")
    return content


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is no .npz archive")
        content = {name: archive[name] for name in archive.files}
    header = json.loads(str(content.pop("header")))
    return {**header, **content}
