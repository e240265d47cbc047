"""What several commands say of their loads and deployments, and lists that they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eplb_np.cli.rows import deployment_of, placement_of
from eplb_np.cli.streams import name_of
from eplb_np.io import RecordedLoads
from eplb_np.topology import Topology

WINDOWS = (
    click.option(
        "--first-window",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="First window that is planned for; the first of all is 0.",
    ),
    click.option(
        "--windows",
        "num_windows",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Windows that planning from scratch sums: the last ones before each.",
    ),
)
"""How a history is replayed."""


def said_steps(recorded: RecordedLoads) -> str:
    """Say how many steps there are, and whether they are a history."""
    if recorded.steps is not None:
        return f"{recorded.num_steps} steps in order: a history, a window each"
    return "one step" if recorded.num_steps == 1 else f"{recorded.num_steps} steps, summed"


def said_loads(name: str, recorded: RecordedLoads) -> str:
    """Say where the loads are from, and what they are of."""
    kind = f" ({recorded.format})" if recorded.format else ""
    num_layers, num_experts = recorded.load.shape
    return f"{name}{kind}: {num_layers} MoE layers of {num_experts} experts"


def said_deployment(topology: Topology) -> str:
    """Say the sizes of a deployment."""
    return f"{deployment_of(topology)}, {placement_of(topology)}"


def check_history(path: Path, recorded: RecordedLoads) -> None:
    """Raise ``ValueError`` unless there is more than one window, in a known order."""
    if recorded.steps is not None:
        return
    if recorded.num_steps > 1:
        why = "the order of its steps is not known: add --in-order if they are in order"
    else:
        why = "it has one step with load, and a replay needs two or more"
    raise ValueError(f"{name_of(path)}: {why}")


def names_of(given: str, option: str) -> tuple[str, ...]:
    """Split a list of names at its commas; each is kept once."""
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    if "" in names:
        raise click.BadParameter(
            f"{given!r}: give names with commas between them", None, None, option
        )
    return names


def list_of_sizes(
    context: click.Context, option: click.Parameter, given: str | None
) -> tuple[int, ...] | None:
    """Read sizes with commas between them, as in ``16,32,72``."""
    if given is None:
        return None
    try:
        return tuple(int(size) for size in given.split(","))
    except ValueError:
        raise click.BadParameter(f"{given!r}: give numbers with commas between them") from None


def windows_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--first-window`` and ``--windows``, as ``first_window, num_windows``."""
    for option in reversed(WINDOWS):
        command = option(command)
    return command
