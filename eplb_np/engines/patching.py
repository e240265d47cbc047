"""Putting a function in the place of an engine's own, in the running process, and taking it out."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from eplb_np._arguments import one_line

NAME = "rebalance_experts"
"""What the engines call the function that plans."""

Planner = Callable[..., Any]


class _Patch(NamedTuple):
    """What is in place of what."""

    original: Planner
    replacement: Planner


_patches: dict[str, _Patch] = {}


def put_in(module: str, make: Callable[[Planner], Planner]) -> None:
    """Replace ``module.rebalance_experts`` by what ``make`` makes, given the engine's own.

    Other modules that have imported the function by its name get the new one too. What was put in
    before is taken out first.
    """
    importlib.import_module(module)  # outside the lines below: the engine may be missing
    take_out(module)
    original = getattr(sys.modules[module], NAME)
    patch = _Patch(original, make(original))
    _swap(patch.original, patch.replacement)
    _patches[module] = patch


def take_out(module: str) -> None:
    """Give the engine its own function back; nothing happens if it has it."""
    patch = _patches.pop(module, None)
    if patch is not None:
        _swap(patch.replacement, patch.original)


def _swap(old: Planner, new: Planner) -> None:
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(NAME) is old:
            setattr(module, NAME, new)


def wanted_by(variable: str) -> str | None:
    """Read whether the environment asks for a hook: "even" or "weighted" tables, or None."""
    value = os.environ.get(variable)
    if value and value not in ("even", "weighted"):
        raise ValueError(f"{variable}={one_line(value)} is unknown: give even or weighted")
    return value or None
