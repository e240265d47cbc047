"""Checks of sizes, amounts and objects that users pass, made before any work starts."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import SupportsFloat, SupportsIndex, TypeVar

import numpy as np

T = TypeVar("T")

LARGEST_SIZE = 1 << 20
"""Layers, experts, slots and GPUs beyond a million are mistakes, which would fill the memory."""

LARGEST_TOTAL = 2.0**127
"""Half of float32's range: below it, no partial sum of a layer's loads can overflow."""

LARGEST_FLOAT = float(np.finfo(np.float64).max)

LONGEST_TEXT = 500
"""Characters of a value in a message."""

ALWAYS_FITS = 1 << 25
"""Numbers of 8 bytes that no machine is asked about."""


def one_line(value: object) -> str:
    """``repr`` of a value for a message: one line, not long, and never an error of its own."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - a broken __repr__, or an int of too many digits
        text = f"<{type(value).__name__}>"
    return _shortened(text)


def said_by(error: Exception) -> str:
    """Return what an error of other code says, as one line that is not long."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a broken __str__
        text = ""
    return _shortened(text or type(error).__name__)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def as_size(
    name: str, value: SupportsIndex, minimum: int = 1, maximum: int | None = LARGEST_SIZE
) -> int:
    """Return a size as a Python int, or raise ``ValueError`` for anything else."""
    size = value if type(value) is int else _as_int(name, value, minimum)
    if size < minimum:
        raise ValueError(f"{name}={one_line(size)} is too small: it must be at least {minimum}")
    if maximum is not None and size > maximum:
        raise ValueError(f"{name}={one_line(size)} is too large: it must be at most {maximum}")
    return size


def _as_int(name: str, value: SupportsIndex, minimum: int) -> int:
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except Exception:  # noqa: BLE001 - objects raise anything here
        raise ValueError(
            f"{name}={one_line(value)} is not an integer: give an int, at least {minimum}"
        ) from None
    raise ValueError(f"{name}={value!r} is a bool: give an integer, at least {minimum}")


def as_number(value: SupportsFloat) -> float | None:
    """Return a real number as a Python float, or None for anything else, such as text."""
    if type(value) is float or type(value) is int:
        return float(value) if abs(value) <= LARGEST_FLOAT else None
    if isinstance(value, (bool, np.bool_, str, bytes)) or value is np.ma.masked:
        return None
    if isinstance(value, np.ndarray) and value.ndim > 0:  # float() takes an array of one, still
        return None
    return float(value)


def as_amount(name: str, value: SupportsFloat) -> float:
    """Return a finite number >= 0 as a Python float, or raise ``ValueError`` for anything else."""
    try:
        amount = as_number(value)
    except Exception:  # noqa: BLE001 - objects raise anything here
        amount = None
    if amount is None or not 0 <= amount < float("inf"):
        raise ValueError(f"{name}={one_line(value)} must be a finite number, at least 0")
    return amount


def as_list(name: str, values: Iterable[T], hint: str, most: int | None = None) -> list[T]:
    """Return a sequence as a list, or raise ``ValueError`` where it cannot be iterated over.

    Of more than ``most`` entries, only the first ``most + 1`` are taken: there may be no end.
    """
    try:
        return list(values if most is None else islice(values, most + 1))
    except Exception:  # noqa: BLE001 - objects raise anything here
        raise ValueError(f"{name}={one_line(values)} is not a sequence: {hint}") from None


def check_memory(what: str, num_numbers: int) -> None:
    """Raise ``ValueError`` if so many numbers of 8 bytes exceed the memory of the machine.

    Most systems promise any memory, and end the process when it is used.
    """
    if num_numbers > ALWAYS_FITS and num_numbers * 8 > _bytes_of_memory():
        raise ValueError(
            f"{what} would need about {num_numbers * 8 / 1e9:,.0f} GB of memory, more than the "
            f"{_bytes_of_memory() / 1e9:,.0f} GB of this machine: give smaller sizes"
        )


@cache
def _bytes_of_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return float("inf")


def check_is(name: str, value: object, kind: type, hint: str) -> None:
    """Raise ``ValueError`` unless an object is of the type that is needed."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, not {type(value).__name__}: {hint}")


def is_one_of(value: object, known: Iterable[str]) -> bool:
    """Whether a value is one of these names. Of odd objects, ``in`` may raise anything."""
    return isinstance(value, str) and value in known


def check_multiple(
    name: str, value: int, base_name: str, base: int, hint: str | None = None, least: int = 1
) -> None:
    """Raise ``ValueError`` with the nearest sizes that fit, unless ``base`` divides ``value``.

    Sizes below ``least`` are not suggested, since they are too small. ``hint`` is another remedy.
    """
    if value % base == 0:
        return
    below = value // base * base
    nearest = " or ".join(str(size) for size in (below, below + base) if size >= max(least, 1))
    raise ValueError(
        f"{name}={value} is not a multiple of {base_name}={base}: "
        f"give {name}={nearest}, or {hint or f'another {base_name}'}"
    )


def check_enough_replicas(num_replicas: int, num_experts: int) -> None:
    """Raise ``ValueError`` if there are fewer replicas than experts."""
    if num_replicas < num_experts:
        raise ValueError(
            f"num_phy={num_replicas} is less than the {num_experts} experts of weight: "
            f"every expert needs a replica, so give num_phy={num_experts} or more"
        )
