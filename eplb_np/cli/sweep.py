"""``eplb-np sweep``: how many redundant experts, how many GPUs, which nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from eplb_np._files.reading import printable
from eplb_np._files.targets import check_not_read_from
from eplb_np.cli.described import (
    list_of_sizes,
    names_of,
    said_loads,
    said_steps,
    windows_options,
)
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.moving import shown_bytes
from eplb_np.cli.options import (
    DEFAULT_GPUS,
    DEFAULT_POLICY,
    Loads,
    epilog,
    json_option,
    loads_options,
    output_option,
)
from eplb_np.cli.output import print_json, print_rows, print_table, progress
from eplb_np.cli.streams import is_dash
from eplb_np.policies import POLICIES, PolicyName
from eplb_np.sweeps.cases import grid
from eplb_np.sweeps.measure import SweptCase, as_judging
from eplb_np.sweeps.sweeping import WITHIN, Asked, Running, Sweep, ask, running

WORTH_PROCESSES = 200
"""Plans from which on several processes start by default: each takes a second to start."""


def _sizes_option(name: str, what: str) -> Callable[..., Any]:
    return click.option(name, metavar="SIZES", callback=list_of_sizes, help=what)


@click.command(
    "sweep",
    short_help="Measure balance against memory: what to buy.",
    epilog=epilog(
        "eplb-np sweep loads.json --gpus 16,32,72 --redundant 0,16,32,64",
        "eplb-np sweep windows.npy --gpus 32 --nodes 1,4 --groups 8 -o sweep.jsonl",
        "eplb-np sweep windows.npy --gpus 32 -o sweep.jsonl --dask tcp://scheduler:8786",
    ),
)
@loads_options(required=False)
@_sizes_option("--gpus", f"Numbers of GPUs, as in 16,32,72.  [default: {DEFAULT_GPUS}]")
@_sizes_option("--redundant", "Redundant experts of a layer, as in 0,16,32.")
@_sizes_option(
    "--slots",
    "Slots of a layer on each GPU, instead of --redundant.  "
    "[default: six numbers, from the fewest that hold all experts on]",
)
@_sizes_option("--nodes", "Numbers of nodes, as in 1,4.  [default: 1]")
@_sizes_option("--groups", "Numbers of expert groups.  [default: 1]")
@click.option(
    "--policies",
    default=DEFAULT_POLICY,
    show_default=True,
    metavar="NAMES",
    help=f"Some of {', '.join(POLICIES)}.",
)
@windows_options
@click.option(
    "--expert-bytes",
    type=click.IntRange(min=1),
    help="Bytes of an expert's weights in one layer, to say how much memory slots take.",
)
@click.option(
    "--within",
    type=click.FloatRange(0, 1),
    default=WITHIN,
    show_default=True,
    help="Share of the best balance to give up for less memory.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes.  [default: one for each CPU, or one if there is little to do]",
)
@click.option("--dask", metavar="ADDRESS", help="A Dask scheduler, whose workers do the work.")
@output_option("File of results, one line of JSON a case; what it holds is not done again.")
@json_option
def sweep_sizes(  # noqa: PLR0913
    loads: Loads,
    policies: str,
    first_window: int,
    num_windows: int,
    expert_bytes: int | None,
    within: float,
    jobs: int | None,
    dask: str | None,
    output: Path | None,
    as_json: bool,
    **sizes: tuple[int, ...] | None,
) -> None:
    """Measure balance against memory for many deployments, and say what to buy.

    Every combination of the sizes that fits together is planned from LOADS. If LOADS has steps in
    order, it is judged on windows that it has not seen; else on LOADS itself. What to buy, for each
    number of GPUs, is the least memory that balances nearly as well as the most: see --within.

    With -o, results are written as they come. If the sweep is stopped, by Ctrl-C or otherwise, the
    same command goes on where it was. With --dask, the workers of a cluster that runs already do
    the work; they need the same version of eplb-np.
    """
    with one_line():
        _check_output(output, loads.path)
    recorded = loads.read()
    num_layers, num_experts = recorded.load.shape
    with one_line(about=loads.path):
        cases = grid(
            num_experts,
            sizes["gpus"] or (DEFAULT_GPUS,),
            num_redundant=sizes["redundant"],
            slots_per_gpu=sizes["slots"],
            num_nodes=sizes["nodes"] or (1,),
            num_groups=sizes["groups"] or (1,),
            policies=cast("tuple[PolicyName, ...]", names_of(policies, "--policies")),
        )
        asked = ask(recorded.windows, cases, as_judging(first_window, num_windows, expert_bytes))
    stopped: BaseException | None = None
    with _sweeping(), running(asked, output) as run:
        found = len(asked.cases) - run.num_missing
        try:
            with progress("sweeping", len(asked.cases)) as step:
                step(found)
                for _ in run.missing(jobs or _default_jobs(asked, run), dask):
                    step(1)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            stopped = error
        swept = run.result()
    buy = [swept.knee(within=within, num_gpus=gpus) for gpus in _numbers_of_gpus(swept)]
    if as_json:
        print_json(
            {
                "loads": loads.name,
                "format": recorded.format,
                "num_layers": num_layers,
                "num_experts": num_experts,
                "num_windows": swept.num_windows,
                "complete": stopped is None,
                "rows": [asdict(row) for row in swept.rows],
                "within": within,
                "buy": [asdict(row) for row in buy],
                "left_out": list(swept.left_out),
                "notes": list(recorded.notes),
            }
        )
    elif swept.rows:
        rows = {"loads": said_loads(loads.name, recorded), "steps": said_steps(recorded)}
        if output is not None:
            before = f", of which {found} were there before" if found else ""
            rows["results"] = f"{printable(output)}: {len(swept.rows)} cases{before}"
        print_rows(rows, [*recorded.notes, *(f"left out: {case}" for case in swept.left_out)])
        sys.stdout.write("\n")
        print_sweep(swept, buy, within)
    if stopped is not None:
        sys.stdout.flush()
        kept = "run the same command again with -o FILE, which keeps them"
        if output is not None:
            kept = f"the same command goes on with the others, from {printable(output)}"
        click.echo(
            f"stopped: {len(swept.rows)} of {len(asked.cases)} cases are done; {kept}", err=True
        )
        raise stopped


def _check_output(output: Path | None, source: Path | None) -> None:
    if is_dash(output):
        raise ValueError("-o -: results are kept in a file, from which a sweep goes on: give one")
    if output is not None and source is not None:
        check_not_read_from(output, source)


@contextlib.contextmanager
def _sweeping() -> Iterator[None]:
    """Say in one line what kept cases from being measured, or results from being written."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here
    with one_line(NOT_WRITTEN):
        try:
            yield
        except (ConnectionError, ChildProcessError) as error:
            raise OneLineError(printable(str(error))) from None
        except ModuleNotFoundError as error:
            raise OneLineError(str(error), NOT_WRITTEN) from None


def _default_jobs(asked: Asked, run: Running) -> int:
    history = asked.loads.history
    plans = run.num_missing * (1 if history is None else 1 + len(history))
    return (os.cpu_count() or 1) if plans >= WORTH_PROCESSES else 1


def _numbers_of_gpus(swept: Sweep) -> list[int]:
    return sorted({row.num_gpus for row in swept.rows})


def print_sweep(swept: Sweep, buy: list[SweptCase], within: float) -> None:
    """Print the rows, and below them what to buy."""
    history = swept.num_windows > 1
    sized = any(row.bytes_per_gpu is not None for row in swept.rows)
    header = ["GPUs", "nodes", "groups", "policy", "redundant", "slots per GPU"]
    header += ["memory per GPU"] * sized + ["balancedness", "at most", "duplicates"]
    header += ["next windows", "moved per replan"] * history
    lines = []
    for rows in swept.curves.values():
        for row in rows:
            line = [f"{row.num_gpus}", f"{row.num_nodes}", f"{row.num_groups}", row.policy]
            line += [f"{row.num_redundant}", f"{row.slots_per_gpu}"]
            line += [shown_bytes(row.bytes_per_gpu or 0)] * sized
            line += [f"{row.balancedness:.4f}", f"{row.at_most:.4f}", f"{row.duplicates}"]
            if history:
                line += [f"{row.next_windows:.4f}", f"{row.moved_share:.2%}"]
            lines.append(line)
    print_table(header, lines, left=["policy"])
    what = "balanced on the next windows" if history else "balanced"
    sys.stdout.write("\n")
    print_rows(
        {
            f"on {row.num_gpus} GPUs buy": (
                f"{row.slots_per_gpu} slots per GPU ({row.case}): {row.judged:.4f} {what}, with "
                f"the least memory within {within:.1%} of the best"
            )
            for row in buy
        }
    )
