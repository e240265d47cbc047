"""``eplb-np compare``: all policies side by side, on one load or on a history."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from eplb_np.cli.described import said_deployment, said_loads, said_steps, windows_options
from eplb_np.cli.errors import one_line
from eplb_np.cli.options import (
    Loads,
    Sizes,
    a_file,
    epilog,
    json_option,
    loads_options,
    sizes_options,
    topology_from,
)
from eplb_np.cli.output import print_json, print_rows, print_table, progress
from eplb_np.cli.plan_files import read_plan_file
from eplb_np.cli.streams import Input, check_one_reader, name_of
from eplb_np.comparison import Comparison, compare, compared_planners
from eplb_np.topology import stored_sizes

AT_MOST = "at most, any plan"


@click.command(
    "compare",
    short_help="Compare policies: balance, duplicates, moves and time.",
    epilog=epilog(
        "eplb-np compare loads.json --gpus 32",
        "eplb-np compare loads.json --current plan.json",
        "eplb-np compare windows.npy --gpus 32 --nodes 4 --groups 8 --json",
    ),
)
@loads_options(required=False)
@sizes_options
@click.option(
    "--current",
    type=a_file,
    metavar="PLAN",
    help="The plan in use: says what each plan moves, and what mending gives.",
)
@windows_options
@json_option
def compare_policies(
    loads: Loads,
    sizes: Sizes,
    current: Path | None,
    first_window: int,
    num_windows: int,
    as_json: bool,
) -> None:
    """Compare all policies on LOADS: balance, duplicates, moves and time, side by side.

    Every policy plans from LOADS, of several steps from their sum, and is judged on it. Beside
    them is the plan that serving stacks start with, the experts in order, and what no plan can
    exceed. Times are those of a second call, when all kernels are ready.

    If LOADS has steps in order, every way to plan is also judged on windows that it has not seen:
    before each window it plans from the windows before it. Without LOADS, the command compares on
    a synthetic load like DeepSeek-V3's.
    """
    with one_line():
        check_one_reader(loads.path, current)
    recorded = loads.read()
    in_use = None
    if current is not None:
        in_use = read_plan_file(Input(current), sizes, recorded.moe_layer_ids)
    with one_line(about=loads.path):
        topology = topology_from(recorded.load.shape[1], sizes, in_use)
        steps = (len(recorded.windows) - first_window) * len(compared_planners(topology))
        with progress("comparing", max(steps, 1)) as step:
            compared = compare(
                recorded.windows,
                topology,
                current=in_use,
                first_window=first_window,
                num_windows=num_windows,
                on_window=lambda: step(1),
            )
    if as_json:
        print_json(
            {
                "loads": loads.name,
                "format": recorded.format,
                "num_steps": recorded.num_steps,
                "topology": stored_sizes(topology),
                "placement": topology.placement,
                "current": None if current is None else name_of(current),
                **as_json_of(compared),
                "notes": list(recorded.notes),
            }
        )
        return
    rows = {
        "loads": said_loads(loads.name, recorded),
        "steps": said_steps(recorded),
        "deployment": said_deployment(topology),
    }
    if said := sizes.said(topology):
        rows["slots"] = said
    if current is not None:
        rows["in use"] = name_of(current)
    left_out = [f"left out: {said}" for said in compared.left_out]
    print_rows(rows, [*recorded.notes, *left_out])
    print_plans(compared)
    if compared.replays:
        print_replays(compared, first_window)


def as_json_of(compared: Comparison) -> dict[str, Any]:
    """Return what a comparison found, as JSON has it."""
    return {
        "plans": [
            {
                "name": row.name,
                "balancedness": row.summary.balancedness,
                "node_share": row.summary.node_share,
                "duplicates": row.summary.duplicates,
                "moved": row.moved,
                "milliseconds": row.milliseconds,
            }
            for row in compared.plans
        ],
        "at_most": compared.at_most,
        "replays": [
            {
                "name": row.name,
                "balancedness": row.replay.balancedness,
                "lowest": float(row.replay.window_balancedness.min()),
                "moved_share": row.replay.moved_share,
                "milliseconds": row.replay.milliseconds,
            }
            for row in compared.replays
        ],
        "replays_at_most": compared.replays_at_most,
        "left_out": list(compared.left_out),
    }


def print_plans(compared: Comparison) -> None:
    """Print the plans for the load."""
    moves = any(row.moved is not None for row in compared.plans)

    def cells(name: str, balancedness: float, others: Sequence[str]) -> list[str]:
        duplicates, moved, milliseconds = others
        return [name, f"{balancedness:.4f}", duplicates, *([moved] if moves else []), milliseconds]

    lines = [
        cells(
            row.name,
            row.summary.balancedness,
            (
                str(row.summary.duplicates),
                "" if row.moved is None else str(row.moved),
                "" if row.milliseconds is None else f"{row.milliseconds:.2f} ms",
            ),
        )
        for row in compared.plans
    ]
    lines.append(cells(AT_MOST, compared.at_most, ("", "", "")))
    header = ["plan", "balancedness", "duplicates", *(["moved"] if moves else []), "time to plan"]
    sys.stdout.write("\n")
    print_table(header, lines)


def print_replays(compared: Comparison, first_window: int) -> None:
    """Print what the ways to plan gave on windows that they had not seen."""
    lines = [
        [
            row.name,
            f"{row.replay.balancedness:.4f}",
            f"{row.replay.window_balancedness.min():.4f}",
            f"{row.replay.moved_share:.2%}",
            f"{row.replay.milliseconds:.2f} ms",
        ]
        for row in compared.replays
    ]
    lines.append([AT_MOST, f"{compared.replays_at_most:.4f}", "", "", ""])
    sys.stdout.write(f"\nOn windows not planned from, {first_window} and later:\n")
    print_table(["planner", "balancedness", "lowest", "moved per replan", "time per replan"], lines)
