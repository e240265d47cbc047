"""Moves from one plan to another: who fetches which expert from where, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from eplb_np._notebook import as_frame
from eplb_np.topology import Topology

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped,import-not-found,unused-ignore]


class Move(NamedTuple):
    """One fetch of an expert into a slot.

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
    """Fetches that turn one plan into another, in an order in which they can be made.

    Made by `Plan.moves_from`. Iteration yields each fetch as a `Move`, ``moves[i]`` is fetch i, and
    a slice is `Moves` again.

    Parameters
    ----------
    layer : ndarray, shape [M], int64
        Row of the plan, ascending.
    expert : ndarray, shape [M], int64
        Logical expert that is fetched.
    gpu, slot : ndarray, shape [M], int64
        Destination. What the slot held before is overwritten.
    source_gpu, source_slot : ndarray, shape [M], int64
        Source: the nearest slot that holds the expert at that step. The same GPU comes before
        the same node, and the same node before other nodes; ties go to the lower slot. -1 if no
        active GPU holds the expert, so that it must come from storage.
    step : ndarray, shape [M], int64
        Step of each fetch within its layer, from 0. A step is one fetch, or a cycle of fetches
        that overwrite each other's sources. All sources of a cycle must be read before any of
        its slots is written.

    Notes
    -----
    If the steps of a layer are made one after the other, every expert that some active GPU held
    has a copy in some slot at all times. An engine that reads all sources into buffers before it
    writes can make all fetches at once. A slice keeps the order, but not that promise if it leaves
    out fetches that come before its own, or part of a cycle.
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

    @overload
    def __getitem__(self, index: SupportsIndex) -> Move: ...

    @overload
    def __getitem__(self, index: slice) -> Moves: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Move | Moves:
        """Return a fetch, or some of them in the order of a slice."""
        columns = [getattr(self, name) for name in Move._fields]
        if isinstance(index, slice):
            return Moves(*(column[index] for column in columns))
        try:
            place = range(len(self))[index]
        except IndexError:
            raise IndexError(f"move {index} is out of range: there are {len(self)}") from None
        return Move(*(int(column[place]) for column in columns))

    @property
    def num_fetched(self) -> int:
        """Fetches from another GPU or storage; copies within a GPU, which are cheap, do not count.

        That is one for each layer, GPU and expert that the GPU is to hold and does not hold yet.
        `moved_replicas` counts replicas: if a GPU is to hold an expert more than once, and more
        often than before, each further replica counts there, but is copied within the GPU here.
        For plans without an expert twice on a GPU, as the refined policy makes them if it can, the
        two are equal; `moved_replicas` is never less.
        """
        return int((self.source_gpu != self.gpu).sum())

    def to_dataframe(self) -> DataFrame:
        """Make a data frame with a row for each fetch.

        Returns
        -------
        pandas.DataFrame
            Its columns are the fields of `Move`.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        return as_frame({name: getattr(self, name) for name in Move._fields})

    def __repr__(self) -> str:
        return f"Moves({len(self)}, {self.num_fetched} of them from another GPU or storage)"


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
