"""What a pickle made, as plain values: lists, tuples and dicts that anybody can walk through."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from eplb_np._files.numpy_files import LARGEST_ARRAYS
from eplb_np._files.pickles import Global, Unfinished

MOST_VALUES = 1 << 20
"""Values of a result, each counted as often as it stands there."""

DEEPEST = 64
"""Levels of lists, tuples and dicts in a result."""

NUMBERS = (int, float, bool, type(None))


class _Finished(NamedTuple):
    """A value, and what a walk through all of it would meet."""

    source: Any
    """What it was made from, held so that nothing else gets its id."""
    value: Any
    values: int
    size: int
    height: int


def plain(value: Any) -> Any:
    """Return what `Pickles.load` returned, with everything in it finished.

    The result is of None, bool, int, float, str, bytes and arrays, in lists, tuples and dicts. Who
    walks through it needs no memo: it is not deep, and what stands in it often is not much.
    """
    return _finish(value, {}, 0).value


def _finish(value: Any, finished: dict[int, _Finished], depth: int) -> _Finished:
    known = finished.get(id(value))
    if known is not None:
        return known
    kind = type(value)
    if kind is dict:
        made, count, size, height = _finish_all([*value, *value.values()], finished, depth)
        result: Any = dict(zip(made[: len(value)], made[len(value) :], strict=True))
    elif kind is list:
        result, count, size, height = _finish_all(value, finished, depth)
    elif kind is tuple:
        made, count, size, height = _finish_all(value, finished, depth)
        result = tuple(made)
    else:
        result, count, size, height = *_leaf(value), 0
    found = finished[id(value)] = _Finished(value, result, count, size, height)
    return found


def _finish_all(
    parts: list[Any] | tuple[Any, ...], finished: dict[int, _Finished], depth: int
) -> tuple[list[Any], int, int, int]:
    made = list(parts)
    count, size, height = 1 + len(made), 0, 0
    for i, part in enumerate(made):
        kind = type(part)
        if kind is str or kind is bytes:
            size += len(part)
        elif kind not in NUMBERS:
            if depth == DEEPEST:
                raise ValueError(f"its pickle holds lists or dicts more than {DEEPEST} deep")
            found = _finish(part, finished, depth + 1)
            made[i] = found.value
            count += found.values - 1
            size += found.size
            height = max(height, found.height)
    if height >= DEEPEST:
        raise ValueError(f"its pickle holds lists or dicts more than {DEEPEST} deep")
    if count > MOST_VALUES:
        raise ValueError(f"its pickle holds more than {MOST_VALUES} values")
    if size > LARGEST_ARRAYS:
        raise ValueError(
            f"its pickle holds arrays and texts of more than {LARGEST_ARRAYS >> 20} MiB, each "
            "counted as often as it stands there"
        )
    return made, count, size, height + 1


def _leaf(value: Any) -> tuple[Any, int, int]:
    """Return a value without parts, a count of one, and its size."""
    if isinstance(value, Global):
        raise ValueError(f"its pickle holds {value.name} itself: it is not a value")
    if isinstance(value, Unfinished):
        value = value.finish()
    if isinstance(value, np.ndarray):
        return value, 1, value.nbytes
    return value, 1, len(value) if type(value) in (str, bytes) else 0
