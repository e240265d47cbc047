"""Megatron-LM's router trace: the experts of each token, which ``--moe-routing-trace-path`` writes.

After ``megatron/core/transformer/moe/router_trace.py``. Each rank writes of its own tokens. The
file begins anew with each run. Several records of a layer in a step are its microbatches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, one_line
from eplb_np.io.contents import Contents, opened
from eplb_np.io.megatron_steps import (
    NUMBERING,
    Step,
    StepTable,
    check_has_load,
    complete_steps,
    is_mtp,
    packed,
    step_of,
)
from eplb_np.io.ranks import rank_files
from eplb_np.io.recorded import Asked, Recording

RANK = r"router_trace_rank([0-9]+)\.jsonl(\.gz)?"
WORD = "step"
STAGE = "pre_dispatch"


def recognise(contents: Contents) -> bool:
    """Whether this is a folder of traces, or one of them."""
    if contents.kind == "folder":
        return bool(contents.named(RANK))
    return {"step", "layer", "top_indices"} <= contents.first_record.keys()


def read_loads(contents: Contents, asked: Asked) -> Recording:
    """Count the tokens [S, R, E] of each expert, of all ranks together."""
    trace = _Trace(asked.num_experts)
    if contents.kind == "folder":
        recorded = []
        for rank, path in enumerate(rank_files(contents, RANK, asked.num_ranks)):
            with opened(path) as file:
                recorded.append(trace.read(file, rank))
    else:
        recorded = [trace.read(contents, None)]
    complete = complete_steps(recorded, WORD)
    notes = [NUMBERING, *complete.notes]
    if trace.left_out:
        notes.append(f"{trace.left_out} records of multi-token prediction are left out")
    if asked.num_experts is None:
        notes.append(
            f"the largest id of an expert is {trace.num_experts - 1}, so {trace.num_experts} "
            "experts are taken to be all: give num_experts if there are more"
        )
    counts = trace.table.ordered(complete.steps, complete.layers)
    return Recording(
        counts[:, :, : trace.num_experts],
        in_order=True,
        layer_ids=complete.layers,
        name="the trace",
        notes=tuple(notes),
    )


class _Trace:
    """Tokens of each expert, as they are counted."""

    def __init__(self, num_experts: int | None) -> None:
        self.table = StepTable()
        self.num_experts = num_experts or 0
        """As given, or one more than the largest id so far."""
        self.left_out = 0
        """Records of other blocks."""
        self._known = num_experts is not None

    def read(self, file: Contents, rank: int | None) -> NDArray[np.int64]:
        """Count a rank's tokens, and return of which steps and layers, as `packed`."""
        seen: set[Step] = set()
        has_load = False
        for record in file.records():
            said = record.get("rank", rank)
            rank = said if rank is None else rank
            if said != rank:
                raise ValueError(
                    f"it has records of rank {one_line(said)}, not of rank {one_line(rank)}: no "
                    "record must be counted twice"
                )
            if is_mtp(record):
                self.left_out += 1
            else:
                key = step_of(record, WORD)
                seen.add(key)
                has_load = self._count(key, record) or has_load
            check_has_load(has_load, file.place)
        return packed(seen)

    def _count(self, key: Step, record: dict[str, Any]) -> bool:
        """Count the tokens of a record, and tell whether there are any."""
        if record.get("stage", STAGE) != STAGE:
            raise ValueError(f"stage={one_line(record['stage'])} is not {STAGE!r}")
        experts = _ids(record)
        if len(experts) != record.get("num_tokens", len(experts)):
            raise ValueError(
                f"layer {key[1]} of step {key[0]} has {len(experts)} tokens, but num_tokens="
                f"{one_line(record['num_tokens'])}"
            )
        highest = int(experts.max(initial=-1))
        if highest >= (self.num_experts if self._known else LARGEST_SIZE):
            raise ValueError(
                f"layer {key[1]} of step {key[0]} has expert {highest}, but num_experts="
                f"{self.num_experts if self._known else LARGEST_SIZE}"
            )
        self.num_experts = max(self.num_experts, highest + 1)
        counts = np.bincount(experts.ravel())
        row = self.table.row(key, max(self.num_experts, 1))
        row[: len(counts)] += counts
        return bool(experts.size)


def _ids(record: dict[str, Any]) -> NDArray[Any]:
    """Return the experts [tokens, k] of a record."""
    experts = record.get("top_indices")
    if isinstance(experts, list) and not experts:  # of no tokens
        return np.zeros((0, 1), np.int64)
    if not isinstance(experts, np.ndarray) or experts.ndim != 2 or experts.dtype.kind != "i":
        raise ValueError(
            f"'top_indices' of step {one_line(record.get('step'))} is not a table of integers, "
            "[tokens, k]"
        )
    if experts.min(initial=0) < 0:
        raise ValueError(
            f"'top_indices' of step {one_line(record.get('step'))} holds {experts.min()}, which is "
            "not an expert"
        )
    return experts
