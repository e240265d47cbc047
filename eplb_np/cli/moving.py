"""What it takes to go from one plan to another: replicas to fetch, from where, and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from eplb_np.moves.fetches import count_fetches
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan

expert_bytes_option = click.option(
    "--expert-bytes",
    type=click.IntRange(min=1),
    help="Bytes of an expert's weights in one layer, to say how many bytes move.",
)


@dataclass(frozen=True)
class Moved:
    """Fetches from one plan to another, over all layers."""

    moved_replicas: int
    """As the library's `moved_replicas` counts: replicas that a GPU holds more than before."""
    fetched: int
    """As `Moves.num_fetched`: of these, those that come from another GPU or from storage."""
    from_same_node: int
    from_other_nodes: int
    from_storage: int
    copied_within_gpus: int
    """Slots that are filled from their own GPU: duplicates, and replicas in another slot."""
    layers: int
    """Layers in which something is fetched."""
    most_on_one_gpu: int
    busiest_gpu: int
    share_of_slots: float
    bytes: int | None


def measure(moves: Moves, old: Plan, new: Plan, expert_bytes: int | None) -> Moved:
    """Count the moves from a plan to another one."""
    topology = new.topology
    fetched = moves.source_gpu != moves.gpu
    stored = moves.source_gpu < 0
    node, source_node = (
        moves.gpu // topology.gpus_per_node,
        moves.source_gpu // topology.gpus_per_node,
    )
    near = fetched & ~stored & (node == source_node)
    by_gpu = np.bincount(moves.gpu[fetched], minlength=topology.num_gpus)
    return Moved(
        moved_replicas=count_fetches(old.phy2log, new.phy2log, topology.gpu_of_slot),
        fetched=moves.num_fetched,
        from_same_node=int(near.sum()),
        from_other_nodes=int((fetched & ~stored & ~near).sum()),
        from_storage=int(stored.sum()),
        copied_within_gpus=len(moves) - moves.num_fetched,
        layers=len(np.unique(moves.layer[fetched])),
        most_on_one_gpu=int(by_gpu.max()),
        busiest_gpu=int(by_gpu.argmax()),
        share_of_slots=moves.num_fetched / new.phy2log.size,
        bytes=None if expert_bytes is None else moves.num_fetched * expert_bytes,
    )


def said(moved: Moved, new: Plan) -> dict[str, str]:
    """Say it, in rows of a table."""
    if not moved.fetched:
        rows = {"moves": "none: every GPU holds its experts already"}
    else:
        size = "" if moved.bytes is None else f", {shown_bytes(moved.bytes)}"
        rows = {
            "moves": f"{moved.fetched} replicas to fetch, {moved.share_of_slots:.2%} of all slots, "
            f"in {moved.layers} of {new.num_layers} layers{size}",
            "on a GPU": f"{moved.fetched / new.topology.num_gpus:.1f} on the mean GPU, at most "
            f"{moved.most_on_one_gpu} (GPU {moved.busiest_gpu})",
        }
        if new.topology.num_nodes > 1 or moved.from_storage:
            rows["sources"] = (
                f"{moved.from_same_node} from GPUs of the same node, {moved.from_other_nodes} from "
                "other nodes"
            )
        if moved.from_storage:
            rows["sources"] += f", {moved.from_storage} from storage: no GPU holds them any more"
    if moved.copied_within_gpus:
        rows["within GPUs"] = f"{moved.copied_within_gpus} slots are filled from their own GPU"
    second = moved.moved_replicas - moved.fetched
    if second:
        rows["second replicas"] = (
            f"{second} more are second replicas of an expert on its GPU, copied there: "
            f"moved_replicas counts {moved.moved_replicas}"
        )
    return rows


def shown_bytes(size: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def by_layer(moves: Moves, new: Plan) -> list[int]:
    """Count the fetches of each layer."""
    return _counts(moves.layer, moves, new.num_layers)


def by_gpu(moves: Moves, new: Plan) -> list[int]:
    """Count the fetches of each GPU."""
    return _counts(moves.gpu, moves, new.topology.num_gpus)


def _counts(what: Any, moves: Moves, size: int) -> list[int]:
    counts: list[int] = np.bincount(what[moves.source_gpu != moves.gpu], minlength=size).tolist()
    return counts
