"""Checks of sizes, amounts and objects that users pass, made before any work starts."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsFloat, SupportsIndex, TypeVar

import numpy as np

T = TypeVar("T")


def one_line(value: object) -> str:
    """``repr`` of a value for a message: that of an array can span lines."""
    return " ".join(repr(value).split())


def as_size(name: str, value: SupportsIndex, minimum: int = 1) -> int:
    """Return a size as a Python int, or raise ``ValueError`` for anything else."""
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r} is a bool: give an integer, at least {minimum}")
    try:
        size = operator.index(value)
    except TypeError:
        raise ValueError(
            f"{name}={one_line(value)} is not an integer: give an int, at least {minimum}"
        ) from None
    if size < minimum:
        raise ValueError(f"{name}={size} is too small: it must be at least {minimum}")
    return size


def as_amount(name: str, value: SupportsFloat) -> float:
    """Return a finite number >= 0 as a Python float, or raise ``ValueError`` for anything else."""
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise ValueError(f"{name}={one_line(value)} must be a finite number, at least 0")
    return amount


def as_list(name: str, values: Iterable[T], hint: str) -> list[T]:
    """Return a sequence as a list, or raise ``ValueError`` where it cannot be iterated over."""
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name}={one_line(values)} is not a sequence: {hint}") from None


def check_is(name: str, value: object, kind: type, hint: str) -> None:
    """Raise ``ValueError`` unless an object is of the type that is needed."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, not {type(value).__name__}: {hint}")


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
