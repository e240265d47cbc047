"""``eplb-np report``: one page of HTML, from recorded loads to what to buy and what to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import click

from eplb_np import __version__
from eplb_np._files.reading import printable
from eplb_np._files.targets import check_not_read_from, target_of, write_to
from eplb_np.cli import moving
from eplb_np.cli.described import said_deployment, said_loads, windows_options
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.html_page import bullets, page, paragraph
from eplb_np.cli.moving import expert_bytes_option
from eplb_np.cli.options import (
    DEFAULT_POLICY,
    Loads,
    Sizes,
    a_file,
    epilog,
    json_option,
    loads_options,
    sizes_options,
    topology_from,
)
from eplb_np.cli.output import print_json, print_rows, progress
from eplb_np.cli.plan_files import read_plan_file
from eplb_np.cli.report_sections import Findings, headlines, sections_of
from eplb_np.cli.report_typed import Typed
from eplb_np.cli.streams import (
    Input,
    check_one_reader,
    is_dash,
    name_of,
    stream_beside,
    write_through,
    written_name,
)
from eplb_np.comparison import compare, compared_planners
from eplb_np.io import RecordedLoads
from eplb_np.pictures.canvas import new_picture
from eplb_np.plan import Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import PolicyName
from eplb_np.sweeps.cases import Grid, grid
from eplb_np.sweeps.measure import as_judging
from eplb_np.sweeps.sweeping import WITHIN, ask, running
from eplb_np.topology import Topology

POLICY = cast(PolicyName, DEFAULT_POLICY)


@click.command(
    "report",
    short_help="Write a page on loads: what policies give, what to buy and to move.",
    epilog=epilog(
        "eplb-np report loads.json --gpus 32 -o report.html",
        "eplb-np report windows.npy --gpus 32 --nodes 4 --groups 8 -o report.html",
        "eplb-np report loads.json --current plan.json --expert-bytes 44040192 -o report.html",
    ),
)
@loads_options()
@sizes_options
@click.option(
    "--current",
    type=a_file,
    metavar="PLAN",
    help="The plan in use, to start from.  [default: experts in order]",
)
@windows_options
@expert_bytes_option
@click.option("-o", "--output", type=a_file, required=True, help="Page of HTML to write.")
@json_option
def report(
    loads: Loads,
    sizes: Sizes,
    current: Path | None,
    first_window: int,
    num_windows: int,
    expert_bytes: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Write one page of HTML on LOADS, with pictures and with the commands for each part.

    It says what the load looks like, what each policy would give (compare), how many slots to buy
    (sweep), and what to move for a new plan (plan, diff). The page needs no other file and no
    network, and has no script: it can be mailed. It follows the reader's choice of light or dark.
    """
    typed = Typed(loads, sizes, current, first_window, num_windows, expert_bytes)
    _check(output, loads.path, current)
    recorded = loads.read()
    in_use = None
    if current is not None:
        in_use = read_plan_file(Input(current), sizes, recorded.moe_layer_ids)
    with one_line(about=loads.path):
        topology = topology_from(recorded.load.shape[1], sizes, in_use)
        cases = grid(
            topology.num_experts,
            (topology.num_gpus,),
            num_nodes=(topology.num_nodes,),
            num_groups=(topology.num_groups,),
            policies=(POLICY,),
        )
        windows = (len(recorded.windows) - first_window) * len(compared_planners(topology))
        steps = max(0, windows) + len(cases.cases) + 1
        with progress("reporting", steps) as step:
            found = _find(typed, recorded, topology, in_use, cases, step)
            html = _page(found, typed)
            step(1)
    with one_line(NOT_WRITTEN, about=output):
        content = html.encode("utf-8", "backslashreplace")
        write_through(
            output, ".html", lambda path: write_to(path, lambda file: file.write(content))
        )
    lines = {
        "loads": said_loads(loads.name, recorded),
        "deployment": said_deployment(topology),
        "slots": sizes.said(topology),
        **headlines(found, typed),
        "written to": written_name(output),
    }
    lines = {name: said for name, said in lines.items() if said}
    to = stream_beside(output)
    if as_json:
        print_json({**lines, "notes": list(recorded.notes)}, to)
    else:
        print_rows(lines, recorded.notes, to)


def _check(output: Path, *sources: Path | None) -> None:
    """Say before anything is read what keeps the page from being made or written."""
    with one_line():
        check_one_reader(*sources)
        if not is_dash(output):
            target_of(output)
            for source in sources:
                if source is not None:
                    check_not_read_from(output, source)
    try:
        new_picture(1.0, "light")
    except ModuleNotFoundError as error:
        raise OneLineError(str(error), NOT_WRITTEN) from None


def _find(
    typed: Typed,
    recorded: RecordedLoads,
    topology: Topology,
    current: Plan | None,
    cases: Grid,
    step: Callable[[int], None],
) -> Findings:
    """Compute all that the page says."""
    compared = compare(
        recorded.windows,
        topology,
        current=current,
        first_window=typed.first_window,
        num_windows=typed.num_windows,
        on_window=lambda: step(1),
    )
    judging = as_judging(typed.first_window, typed.num_windows, typed.expert_bytes)
    with running(ask(recorded.windows, cases, judging)) as run:
        for _ in run.missing():
            step(1)
    swept = run.result()
    ids = tuple(recorded.moe_layer_ids)
    plan = make_plan(
        recorded.windows,
        topology,
        policy=POLICY,
        current=current,
        moe_layer_ids=ids,
    )
    before = current
    if before is None:
        before = replace(in_order_plan(len(ids), topology), moe_layer_ids=ids)
    moves = plan.moves_from(before)
    return Findings(
        recorded=recorded,
        topology=topology,
        said_slots=typed.sizes.said(topology) if current is None else "",
        before=before,
        plan=plan,
        summary=plan.summary(recorded.load),
        moved=moving.measure(moves, before, plan, typed.expert_bytes),
        compared=compared,
        swept=swept,
        knee=swept.knee(within=WITHIN),
        within=WITHIN,
    )


def _page(found: Findings, typed: Typed) -> str:
    path = typed.loads.path or Path()
    short = name_of(path) if is_dash(path) or not path.name else printable(path.name)
    head = [
        paragraph(said_loads(name_of(path), found.recorded)),
        bullets(headlines(found, typed).values()),
    ]
    if is_dash(path):
        head.append(paragraph("In the commands, LOADS is what came from standard input."))
    foot = f"Made by eplb-np {__version__}. The page loads nothing from elsewhere."
    return page(f"Expert loads of {short}", head, sections_of(found, typed), foot)
