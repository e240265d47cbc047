"""The moves from one plan to another: which slot gets which expert from where, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np.topology import Topology


class Move(NamedTuple):
    """One fetch.

    Parameters
    ----------
    layer, expert, gpu, slot, source_gpu, source_slot, step : int
        As in `Moves`.
    """

    layer: int
    expert: int
    gpu: int
    slot: int
    source_gpu: int
    source_slot: int
    step: int


@dataclass(frozen=True, eq=False)
class Moves:
    """Fetches that turn one plan into another, in the order in which they can be made.

    Made by `Plan.moves_from`. Iterating gives each as a `Move`.

    Parameters
    ----------
    layer : ndarray, shape [M], int64
        Row of the plan, ascending.
    expert : ndarray, shape [M], int64
        The logical expert that is fetched.
    gpu, slot : ndarray, shape [M], int64
        Where to. What the slot held before is overwritten.
    source_gpu, source_slot : ndarray, shape [M], int64
        Where from: the nearest slot that holds the expert at that step, on the same GPU, on the
        same node, or anywhere; a tie goes to the lower slot. -1 if no active GPU holds the
        expert, so that it comes from storage.
    step : ndarray, shape [M], int64
        Step within the layer, from 0. A step is one fetch, or several that overwrite each other's
        sources in a circle; all of those must be read before any is written.

    Notes
    -----
    If the steps of a layer are made one after the other, every expert that some active GPU held
    always has a replica in some slot. An engine that reads everything into buffers before it
    writes anything can make all moves at once.
    """

    layer: NDArray[np.int64]
    expert: NDArray[np.int64]
    gpu: NDArray[np.int64]
    slot: NDArray[np.int64]
    source_gpu: NDArray[np.int64]
    source_slot: NDArray[np.int64]
    step: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of fetches, M."""
        return int(self.layer.size)

    def __iter__(self) -> Iterator[Move]:
        """Iterate over the fetches."""
        columns = (getattr(self, name).tolist() for name in Move._fields)
        return map(Move._make, zip(*columns, strict=True))

    @property
    def num_fetched(self) -> int:
        """Fetches from another GPU or storage; copies within a GPU, which are cheap, do not count.

        Equal to `moved_replicas` unless a GPU is to hold an expert more often than before and
        held it before.
        """
        return int((self.source_gpu != self.gpu).sum())

    def __repr__(self) -> str:
        return f"Moves({len(self)}, of which {self.num_fetched} from another GPU or storage)"


def moves_between(
    old: NDArray[np.signedinteger[Any]], new: NDArray[np.signedinteger[Any]], topology: Topology
) -> Moves:
    """List the moves from ``old`` [L, P] to ``new``, a plan of ``topology``."""
    from eplb_np.moves.ordering import MoveScratch, list_moves

    num_layers, num_slots = new.shape
    table = np.empty((num_layers * num_slots, 5), np.int64)
    count = list_moves(
        np.array(old, np.int64, order="C"),
        np.array(new, np.int64, order="C"),
        topology.gpus,
        topology.gpus_per_node,
        MoveScratch(
            np.empty(num_slots, np.int64),
            np.empty(topology.num_experts, np.int64),
            np.empty(num_slots, np.bool_),
        ),
        table,
    )
    layer, expert, slot, source_slot, step = table[:count].T
    ends = topology.first_slots[1:]
    gpu = np.searchsorted(ends, slot, side="right")
    source_gpu = np.where(source_slot < 0, -1, np.searchsorted(ends, source_slot, side="right"))
    columns = (layer, expert, gpu, slot, source_gpu, source_slot, step)
    return Moves(*(np.ascontiguousarray(column) for column in columns))
