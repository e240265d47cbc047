"""What a pickle made, as plain values: lists, tuples and dicts that anybody can walk through."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_np._files.numpy_files import LARGEST_ARRAYS
from eplb_np._files.pickles import Global, Unfinished

MOST_VALUES = 1 << 20
"""Values of a result, each counted as often as it stands there."""

DEEPEST = 64
"""Levels of lists, tuples and dicts in a result."""

TOO_DEEP = f"its pickle holds lists or dicts more than {DEEPEST} deep"


PLAIN = frozenset((int, float, bool, type(None)))
CONTAINERS = frozenset((list, tuple, dict))


_Finished = tuple[Any, Any, int, int, int]
"""What was finished, which nothing else may get the id of; its result; and the number of values in
it, bytes of its arrays and texts, and its levels. No class: that would take twice the time."""


def plain(value: Any) -> Any:
    """Return what `Pickles.load` returned, with everything in it finished.

    The result is of None, bool, int, float, str, bytes and arrays, in lists, tuples and dicts. Who
    walks through it needs no memo: it is not deep, and what stands in it often is not much.
    """
    return _finish(value, {}, 0)[1]


def _finish(value: Any, finished: dict[int, _Finished | None], depth: int) -> _Finished:
    key = id(value)
    if key in finished:
        known = finished[key]
        if known is None:  # still at it
            raise ValueError("its pickle holds a list or dict that is in itself")
        return known
    finished[key] = None
    known = _container(value, finished, depth) if type(value) in CONTAINERS else _leaf(value)
    finished[key] = known
    return known


def _container(value: Any, finished: dict[int, _Finished | None], depth: int) -> _Finished:
    """Finish what is in a list, tuple or dict, and then that: no deeper than a result may be."""
    kind = type(value)
    parts = [*value, *value.values()] if kind is dict else list(value)
    values, size, height = 1 + len(parts), 0, 0
    for i, part in enumerate(parts):
        if type(part) in PLAIN:
            continue
        if not part and type(part) in CONTAINERS:  # there can be most of these
            height = max(height, 1)
            continue
        if depth == DEEPEST:
            raise ValueError(TOO_DEEP)
        _, parts[i], part_values, part_size, part_height = _finish(part, finished, depth + 1)
        values += part_values - 1
        size += part_size
        height = max(height, part_height)
    if height == DEEPEST:
        raise ValueError(TOO_DEEP)
    if values > MOST_VALUES:
        raise ValueError(f"its pickle holds more than {MOST_VALUES} values")
    if size > LARGEST_ARRAYS:
        raise ValueError(
            f"its pickle holds arrays and texts of more than {LARGEST_ARRAYS >> 20} MiB, each "
            "counted as often as it stands there"
        )
    if kind is dict:
        made: Any = dict(zip(parts[: len(value)], parts[len(value) :], strict=True))
    else:
        made = parts if kind is list else tuple(parts)
    return value, made, values, size, height + 1


def _leaf(value: Any) -> _Finished:
    if isinstance(value, Global):
        raise ValueError(f"its pickle holds {value.name} itself: it is not a value")
    made = value.finish() if isinstance(value, Unfinished) else value
    size = made.nbytes if isinstance(made, np.ndarray) else 0
    return value, made, 1, len(made) if type(made) in (str, bytes) else size, 0
