"""What both recorders of Megatron-LM share: records of a layer in a step, and complete steps.

Letters: S steps, R layers, W counts of a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE, as_size, one_line
from eplb_np._files.numpy_files import LARGEST_ARRAYS

MOST_COUNTS = LARGEST_ARRAYS // 16
"""In float64, half of what is read of an array: to put lines into order takes as much again."""

MOST_ROWS = 1 << 20
"""Steps times layers, each of which also takes a few objects."""

LAST_STEP = 1 << 40

WITHOUT_LOAD = 1 << 21
"""Bytes at the beginning of a file that may all be without load: a second's work."""

NUMBERING = (
    "layers are numbered from 0 within a pipeline stage, as in the files, and those of multi-token "
    "prediction are not among them"
)

Step = tuple[int, int]
"""A step and a layer."""


class StepTable:
    """Counts of layers in steps, in rows as they were first seen."""

    def __init__(self) -> None:
        self._rows: dict[Step, int] = {}
        self._counts: NDArray[np.float64] = np.zeros((0, 0))

    @property
    def width(self) -> int:
        """How many counts a row has."""
        return int(self._counts.shape[1])

    def row(self, key: Step, width: int) -> NDArray[np.float64]:
        """Return the row of a layer in a step, zero at first, to be written at once.

        Rows become longer if they have less than ``width`` counts.
        """
        number = self._rows.setdefault(key, len(self._rows))
        num_rows, old = self._counts.shape
        if number >= num_rows or width > old:
            self._grow(max(num_rows, number + 1), width)
        found: NDArray[np.float64] = self._counts[number]
        return found

    def _grow(self, num_rows: int, width: int) -> None:
        """Make room for rows, and as many again, so that few copies are made."""
        old = self.width
        width = min(max(2 * old, width), LARGEST_SIZE) if width > old else old
        most = min(MOST_ROWS, MOST_COUNTS // width)
        if num_rows > most:
            raise ValueError(
                f"it has more than {most} records with {width} counts each: give fewer steps"
            )
        counts = np.zeros((min(2 * num_rows, most), width))
        counts[: len(self._counts), :old] = self._counts
        self._counts = counts

    def __contains__(self, key: Step) -> bool:
        return key in self._rows

    @property
    def keys(self) -> NDArray[np.int64]:
        """Steps and layers that there are, as ``step * LARGEST_SIZE + layer``, ascending."""
        return packed(self._rows)

    def add(self, other: StepTable, first: int, width: int) -> None:
        """Add the counts of another table, in columns from ``first`` on; rows have ``width``."""
        for key, number in other._rows.items():
            part = self.row(key, width)[first : first + other.width]
            part += other._counts[number]

    def ordered(self, steps: Sequence[int], layers: Sequence[int]) -> NDArray[np.float64]:
        """Return counts [S, R, W] of steps and layers that are all there."""
        numbers = np.array([self._rows[step, layer] for step in steps for layer in layers])
        in_order = bool((numbers == np.arange(len(numbers))).all())
        counts = self._counts[: len(numbers)] if in_order else self._counts[numbers]
        return counts.reshape(len(steps), len(layers), -1)


def packed(keys: Iterable[Step]) -> NDArray[np.int64]:
    """Return steps and layers, ascending, as one number each: `LARGEST_SIZE` layers in a step."""
    return np.sort(np.array([s * LARGEST_SIZE + layer for s, layer in keys], np.int64))


def step_of(record: dict[str, Any], name: str) -> Step:
    """Return step and layer of a record, checked; ``name`` is what the record calls the step."""
    step, layer = (record.get(key) for key in (name, "layer"))
    if step is None or layer is None:
        raise ValueError(f"a record has the keys {one_line(list(record))}, without {name} or layer")
    return as_size(name, step, 0, LAST_STEP), as_size("layer", layer, 0, LARGEST_SIZE - 1)


def is_mtp(record: dict[str, Any]) -> bool:
    """Whether a record is of a block for multi-token prediction, not of the decoder."""
    block = record.get("block", "decoder")
    if not isinstance(block, str) or block not in ("decoder", "mtp"):
        raise ValueError(f"block={one_line(block)} is neither 'decoder' nor 'mtp'")
    return block == "mtp"


class Complete(NamedTuple):
    """What all ranks have recorded."""

    steps: list[int]
    layers: list[int]
    notes: tuple[str, ...]


def complete_steps(ranks: Sequence[NDArray[np.int64]], word: str) -> Complete:
    """Return the steps of which every rank has every layer.

    ``ranks`` has what each rank recorded, as `packed`; ``word`` is what errors call a step. A run
    that is stopped may leave its last steps incomplete: these are left out. Raises ``ValueError``
    if ranks differ in layers, or an earlier step is not complete.
    """
    layers = np.unique(ranks[0] % LARGEST_SIZE)
    for rank, keys in enumerate(ranks):
        found = np.unique(keys % LARGEST_SIZE)
        if not np.array_equal(found, layers):
            raise ValueError(
                f"rank {rank} has {_said(found)}, but rank 0 has {_said(layers)}: they seem to be "
                "of different pipeline stages, each of which numbers its own layers: put the files "
                "of each stage, with ranks from 0 on, into a folder of its own"
            )
    if not len(layers):
        raise ValueError("it has no records of layers of the decoder")
    seen = np.unique(np.concatenate([np.unique(keys // LARGEST_SIZE) for keys in ranks]))
    complete = seen
    for keys in ranks:
        steps, counts = np.unique(keys // LARGEST_SIZE, return_counts=True)
        complete = np.intersect1d(complete, steps[counts == len(layers)], assume_unique=True)
    missing = np.setdiff1d(seen, complete, assume_unique=True)
    last = complete[-1] if len(complete) else seen[-1]
    if len(missing) and missing[0] <= last:
        step = int(missing[0])
        wanted = step * LARGEST_SIZE + layers
        rank, layer = next(
            (rank, int(absent[0] % LARGEST_SIZE))
            for rank, keys in enumerate(ranks)
            if len(absent := np.setdiff1d(wanted, keys))
        )
        raise ValueError(
            f"rank {rank} has no record of layer {layer} in {word} {step}: remove the records of "
            f"that {word}, if they are not needed"
        )
    notes: tuple[str, ...] = ()
    if len(missing):
        notes = (
            f"{len(missing)} of {len(seen)} {word}s, from {missing[0]} on, are not complete, and "
            "are left out",
        )
    return Complete(complete.tolist(), layers.tolist(), notes)


def check_has_load(has_load: bool, place: int) -> None:
    """Raise ``ValueError`` if the beginning of a file, up to a place, is without any load."""
    if not has_load and place > WITHOUT_LOAD:
        raise ValueError(f"its first {WITHOUT_LOAD >> 20} MiB have no load")


def _said(layers: NDArray[np.int64]) -> str:
    if not len(layers):
        return "no layers"
    shown = ", ".join(map(str, layers[:10].tolist()))
    return f"the layers {shown}{', ...' if len(layers) > 10 else ''}"
