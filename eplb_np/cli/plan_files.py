"""Files of plans that commands are given: read with the sizes that they do not say, and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import LARGEST_SIZE
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.options import Sizes, first_given, with_options
from eplb_np.cli.streams import Input, stand_in, start_of, write_through
from eplb_np.io import RecordedLoads, WrittenPlan, read_plan, write_plan
from eplb_np.io.contents import opened
from eplb_np.io.formats import check_format, find_format
from eplb_np.io.placements import Consumer
from eplb_np.io.plans import check_writable
from eplb_np.plan import Plan

OWN = "eplb_np"

F = TypeVar("F", bound=Callable[..., Any])


def plan_sizes_options(command: F) -> F:
    """Give a command ``--gpus --nodes --groups``, as one argument ``sizes``."""

    def with_sizes(
        *args: Any, gpus: int | None, nodes: int | None, groups: int | None, **others: Any
    ) -> Any:
        return command(*args, sizes=Sizes(None, gpus, nodes, groups), **others)

    return with_options(PLAN_SIZES, command, with_sizes)


PLAN_SIZES = (
    click.option("--gpus", type=int, help="GPUs, where the file of a plan does not say."),
    click.option("--nodes", type=int, help="Nodes; only files of eplb_np say.  [default: 1]"),
    click.option(
        "--groups", type=int, help="Expert groups; only files of eplb_np say.  [default: 1]"
    ),
)


def _as_layer_ids(
    context: click.Context, option: click.Parameter, given: str | None
) -> tuple[int, ...] | None:
    """Read ids of layers, as in ``3-60`` or ``1,3,5-7``."""
    if given is None:
        return None
    ids: set[int] = set()
    for part in given.split(","):
        found = re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if not first <= last <= LARGEST_SIZE:
            raise click.BadParameter(f"{given!r}: give ids, as in 3-60 or 1,3,5-7")
        ids.update(range(first, last + 1))
    return tuple(sorted(ids))


layers_option = click.option(
    "--layers",
    metavar="IDS",
    callback=_as_layer_ids,
    help="MoE layers, as in 3-60.  [default: those of LOADS, else all in the file]",
)


def read_plan_file(
    given: Input,
    sizes: Sizes,
    layer_ids: Sequence[int] | None = None,
    name: str | None = None,
) -> Plan:
    """Read a plan, with sizes that its file does not say, and of it the layers that are wanted.

    Errors are those of the command.
    """
    with one_line():
        return _read(given, sizes, layer_ids, name)


def read_plan_files(
    files: Sequence[Input], sizes: Sizes, layer_ids: Sequence[int] | None = None
) -> list[Plan]:
    """Read plans of one deployment. What the file of one does not say, that of another may.

    Without ``layer_ids``, those of the plan that has the fewest layers are taken.
    """
    with one_line():
        own = next((given for given in files if format_of(given) == OWN), None)
        if own is not None:
            known = _read(own, Sizes(), None).topology
            sizes = Sizes(
                None,
                first_given(sizes.gpus, known.num_gpus),
                first_given(sizes.nodes, known.num_nodes),
                first_given(sizes.groups, known.num_groups),
            )
        plans = [_read(given, sizes, layer_ids) for given in files]
        if len({ids_of(plan) for plan in plans}) > 1:
            # Ids from 0 on are those of a file that may not say any.
            ids = min(map(ids_of, plans), key=lambda ids: (len(ids), ids[0] == 0))
            plans = [_read(given, sizes, ids) for given in files]
        return plans


def format_of(given: Input, name: str | None = None) -> str:
    """Return the name of a plan's format; ``ValueError`` if it is none, or not of that name."""
    with opened(given.file) as contents:
        return find_format(contents, name, "reads_plans")[0]


def ids_of(plan: Plan) -> tuple[int, ...]:
    """Return the ids of a plan's layers."""
    return tuple(plan.moe_layer_ids or ())


def _read(
    given: Input, sizes: Sizes, layer_ids: Sequence[int] | None, name: str | None = None
) -> Plan:
    plan = read_plan(
        given.file,
        name,
        num_gpus=sizes.gpus,
        num_nodes=first_given(sizes.nodes, 1),
        num_groups=first_given(sizes.groups, 1),
        moe_layer_ids=layer_ids,
    )
    topology = plan.topology
    if sizes.gpus not in (None, topology.num_gpus):
        raise ValueError(
            f"{given.name}: it is for {topology.num_gpus} GPUs, not {sizes.gpus}: leave --gpus out"
        )
    # Files of our own say nodes and groups, but somebody may want to see others.
    topology = replace(
        topology,
        num_nodes=first_given(sizes.nodes, topology.num_nodes),
        num_groups=first_given(sizes.groups, topology.num_groups),
    )
    ids = ids_of(plan)
    wanted = ids if layer_ids is None else tuple(layer_ids)
    missing = [layer for layer in wanted if layer not in ids]
    if missing:
        raise ValueError(
            f"{given.name}: it has no layer {missing[0]}; its layers are {shown_ids(ids)}"
        )
    if topology == plan.topology and wanted == ids:
        return plan
    rows = [ids.index(layer) for layer in wanted]
    return Plan(plan.phy2log[rows], plan.phyrank[rows], topology, plan.policy, wanted)


def load_of(recorded: RecordedLoads, plan: Plan, name: str) -> NDArray[np.float64]:
    """Return the load [L, E] of a plan's layers; errors are those of the command."""
    row_of = {layer: row for row, layer in enumerate(recorded.moe_layer_ids)}
    missing = [layer for layer in ids_of(plan) if layer not in row_of]
    if missing:
        raise OneLineError(
            f"{name}: layer {missing[0]} of the plan has no load; those that have are "
            f"{shown_ids(recorded.moe_layer_ids)}"
        )
    experts = recorded.load.shape[1]
    if experts != plan.topology.num_experts:
        raise OneLineError(
            f"{name}: it has {experts} experts, but the plan has {plan.topology.num_experts}: give "
            "loads and plans of one model"
        )
    load: NDArray[np.float64] = recorded.load[[row_of[layer] for layer in ids_of(plan)]]
    return load


def shown_ids(ids: Sequence[int]) -> str:
    """Write ascending ids in short, as in 3-60."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and runs[-1][-1] == i - 1:
            runs[-1][1:] = [i]
        else:
            runs.append([i])
    return ", ".join("-".join(map(str, run)) for run in runs)


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def check_output(output: Path, name: str, last_layer: int, num_hidden_layers: int | None) -> None:
    """Raise what `write_plan_file` would of any plan up to this layer."""
    check_writable(stand_in(output, suffix_for(name)), name, last_layer, num_hidden_layers)


def suffix_for(name: str) -> str:
    """Return the suffix of a format's plans that are written to standard output."""
    consumer: Consumer = check_format(name, "writes_plans").member("CONSUMER")
    return consumer.suffixes[0]


def write_plan_file(
    plan: Plan, output: Path, name: str, num_hidden_layers: int | None
) -> WrittenPlan:
    """Write a plan to a file or to standard output; errors are those of the command."""
    with one_line(NOT_WRITTEN, about=output):
        written = write_through(
            output,
            suffix_for(name),
            lambda path: write_plan(plan, path, name, num_hidden_layers=num_hidden_layers),
        )
    return written._replace(path=output, start=start_of(written.start, written.path, output))
