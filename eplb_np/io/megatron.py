"""Megatron-LM: the tokens of each expert that ``--save-tokens-per-expert-interval`` appends.

After ``megatron/training/activation_logging.py``. A line has the tokens that the experts of a rank
received in a layer, microbatch by microbatch. So experts of ranks are put side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import one_line
from eplb_np.io.contents import Contents, opened
from eplb_np.io.megatron_steps import (
    NUMBERING,
    StepTable,
    check_has_load,
    complete_steps,
    is_mtp,
    step_of,
)
from eplb_np.io.ranks import rank_files
from eplb_np.io.recorded import Asked, Recording

FOLDER = "tokens_per_expert"
RANK = r"rank([0-9]+)\.jsonl(\.gz)?"
WORD = "iteration"


def recognise(contents: Contents) -> bool:
    """Whether this is a folder of such files, the one above it, or one of the files."""
    if contents.kind == "folder":
        return bool(contents.named(RANK)) or (contents.path / FOLDER).is_dir()
    return {"iter", "layer", "tpe"} <= contents.first_record.keys()


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Read counts [S, R, E]: experts of ranks side by side, replicas of ranks added up."""
    if contents.kind != "folder":
        return _combined([_Rank(contents)], 1, asked)
    if contents.named(RANK):
        return _combined_files(contents, asked)
    with opened(contents.path / FOLDER) as inner:
        return _combined_files(inner, asked)


def _combined_files(folder: Contents, asked: Asked) -> Recording:
    paths = rank_files(folder, RANK, asked.num_ranks)
    return _combined(map(_read_file, paths), len(paths), asked)


def _read_file(path: Path) -> _Rank:
    with opened(path) as file:
        return _Rank(file)


class _Rank:
    """What a rank recorded."""

    def __init__(self, file: Contents) -> None:
        self.table = StepTable()
        self.left_out = 0
        """Records of other blocks."""
        self.replaced = 0
        """Records of iterations that were recorded again."""
        has_load = False
        for record in file.records():
            if is_mtp(record):
                self.left_out += 1
            else:
                has_load = self._set(record) or has_load
            check_has_load(has_load, file.place)
        if not self.table.width:
            raise ValueError("it has no records of layers of the decoder")

    def _set(self, record: dict[str, Any]) -> bool:
        """Keep a record, and tell whether it has load."""
        key = step_of(record, "iter")
        counts = _sum_of_microbatches(record)
        if self.table.width not in (0, len(counts)):
            raise ValueError(
                f"layer {key[1]} of iteration {key[0]} has {len(counts)} experts, but records "
                f"before have {self.table.width}: keep files of different runs apart"
            )
        # A run goes on from a checkpoint, and records the iterations since then once more.
        self.replaced += key in self.table
        self.table.row(key, len(counts))[:] = counts
        return bool(counts.any())


def _sum_of_microbatches(record: dict[str, Any]) -> NDArray[np.float64]:
    tpe = record.get("tpe")
    if not isinstance(tpe, np.ndarray) or tpe.ndim != 2 or tpe.dtype.kind not in "iu":
        raise ValueError(
            f"'tpe' of iteration {one_line(record.get('iter'))} is not a table of integers, "
            "[microbatches, experts]"
        )
    if tpe.min(initial=0) < 0:
        raise ValueError(f"'tpe' of iteration {one_line(record['iter'])} holds {tpe.min()}")
    total: NDArray[np.float64] = tpe.sum(axis=0, dtype=np.float64)
    return total


def _combined(ranks: Iterable[_Rank], num_ranks: int, asked: Asked) -> Recording:
    total = StepTable()
    recorded = []
    left_out = replaced = width = 0
    ep_size = num_ranks
    for rank, found in enumerate(ranks):
        if rank == 0:
            width = found.table.width
            ep_size = _ep_size(width, num_ranks, asked)
        elif found.table.width != width:
            raise ValueError(
                f"rank {rank} has {found.table.width} experts, but rank 0 has {width}: keep files "
                "of different runs apart"
            )
        recorded.append(found.table.keys)
        left_out += found.left_out
        replaced += found.replaced
        total.add(found.table, rank % ep_size * width, ep_size * width)
    complete = complete_steps(recorded, WORD)
    notes = [NUMBERING, _said_of_ranks(num_ranks, ep_size, width), *complete.notes]
    if left_out:
        notes.append(f"{left_out} records of multi-token prediction are left out")
    if replaced:
        notes.append(
            f"{replaced} records are of an iteration that was recorded again later, after a "
            "restart: the last one counts"
        )
    return Recording(
        total.ordered(complete.steps, complete.layers),
        in_order=True,
        layer_ids=complete.layers,
        name=FOLDER,
        notes=tuple(notes),
    )


def _ep_size(width: int, num_ranks: int, asked: Asked) -> int:
    """Return over how many ranks the experts are spread."""
    if asked.num_experts is None:
        return num_ranks
    ep_size, rest = divmod(asked.num_experts, width)
    if rest or not ep_size or num_ranks % ep_size:
        raise ValueError(
            f"num_experts={asked.num_experts} does not fit {num_ranks} ranks of {width} experts "
            "each: all ranks must hold the experts, or hold them equally often"
        )
    return ep_size


def _said_of_ranks(num_ranks: int, ep_size: int, width: int) -> str:
    if ep_size < num_ranks:
        return (
            f"{num_ranks} ranks are taken for {num_ranks // ep_size} replicas of {ep_size} ranks "
            f"with {width} experts each, and added up"
        )
    return (
        f"{num_ranks} ranks with {width} experts each are taken for one group of "
        f"{num_ranks * width} experts; if some are replicas of others, give num_experts"
    )
