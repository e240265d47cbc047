"""What users pass as sizes, amounts and objects, checked before any work is done."""

from __future__ import annotations

import operator
from typing import SupportsFloat, SupportsIndex

import numpy as np


def as_size(name: str, value: SupportsIndex, minimum: int = 1) -> int:
    """Return a size as a Python int, or say why it is none."""
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r} is not a size: give an integer, at least {minimum}")
    try:
        size = operator.index(value)
    except TypeError:
        raise ValueError(
            f"{name}={value!r} is not an integer: give an int, at least {minimum}"
        ) from None
    if size < minimum:
        raise ValueError(f"{name}={size} is too small: it must be at least {minimum}")
    return size


def as_amount(name: str, value: SupportsFloat) -> float:
    """Return a finite number that is not negative as a Python float, or say what it is instead."""
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise ValueError(f"{name}={value!r}: give a finite number, at least 0")
    return amount


def check_is(name: str, value: object, kind: type, hint: str) -> None:
    """Raise ``ValueError`` for an object of another kind than is needed."""
    if not isinstance(value, kind):
        raise ValueError(
            f"{name} is of type {type(value).__name__}, which is no {kind.__name__}: {hint}"
        )


def check_multiple(
    name: str, value: int, base_name: str, base: int, hint: str | None = None, least: int = 1
) -> None:
    """Raise ``ValueError``, with the nearest sizes that fit, where ``base`` does not divide.

    Sizes below ``least`` are not named: they would not do. ``hint`` is another way out.
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
    """Raise ``ValueError`` where there are fewer replicas than experts."""
    if num_replicas < num_experts:
        raise ValueError(
            f"num_phy={num_replicas} is less than the {num_experts} experts of weight: "
            f"every expert needs a replica, so give num_phy={num_experts} or more"
        )
