"""``eplb-np plan``: from a file of recorded loads to a file with a plan, new or mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from eplb_np._files.targets import check_not_read_from
from eplb_np.cli import moving, rows
from eplb_np.cli.errors import one_line
from eplb_np.cli.moving import Moved, expert_bytes_option
from eplb_np.cli.options import (
    Loads,
    Sizes,
    a_file,
    epilog,
    hidden_layers_option,
    json_option,
    loads_options,
    output_option,
    policy_option,
    sizes_options,
    to_option,
    topology_from,
    with_options,
)
from eplb_np.cli.output import compiling, print_json, print_rows
from eplb_np.cli.plan_files import check_output, read_plan_file, shown_ids, write_plan_file
from eplb_np.cli.streams import Input, check_one_reader, name_of, stream_beside, written_name
from eplb_np.io import RecordedLoads, WrittenPlan
from eplb_np.mending.limits import MoveLimits
from eplb_np.plan import Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import PlannedSplit, PolicyName, check_planned_split
from eplb_np.summaries import PlanSummary

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Change:
    """The plan in use, and what its mending may take."""

    current: Path | None
    limits: MoveLimits | None
    expert_bytes: int | None


@dataclass(frozen=True)
class Target:
    """Where the plan is written, and as what."""

    output: Path | None
    format: str
    hidden_layers: int | None


@dataclass(frozen=True)
class Made:
    """A plan, the plan before it, and the seconds that planning took."""

    plan: Plan
    before: Plan
    mends: bool
    kernels_ready_seconds: float
    plan_seconds: float


@dataclass(frozen=True)
class Summary:
    """Results that the plan command prints, as a table or as JSON."""

    loads: str
    format: str
    num_steps: int
    forecast: bool
    num_layers: int
    moe_layer_ids: list[int]
    dense_layer_ids: list[int]
    num_experts: int
    num_replicas: int
    num_gpus: int
    num_nodes: int
    num_groups: int
    policy: str
    split: str
    placement: str
    replicas_per_gpu: int
    balancedness_before: float
    balancedness_after: float
    balancedness_at_most: float
    balancedness_of_best_split: float | None
    worst_layer_id: int
    worst_layer_balancedness: float
    node_share: float
    busiest_node: int
    busiest_node_layers: int
    most_replicas: int
    duplicates: int
    current: str | None
    moves: Moved | None
    kernels_ready_seconds: float
    plan_seconds: float
    output: str | None
    output_format: str | None
    start: str | None
    notes: list[str]


def change_options(command: F) -> F:
    """Give a command ``--current`` and its limits, as one argument ``change``."""

    def with_change(
        *args: Any,
        current: Path | None,
        max_moves: int | None,
        max_moves_per_gpu: int | None,
        price: float | None,
        tolerance: float | None,
        expert_bytes: int | None,
        **others: Any,
    ) -> Any:
        limits = (max_moves, max_moves_per_gpu, price, tolerance)
        if current is None and any(given is not None for given in (*limits, expert_bytes)):
            raise click.UsageError(
                "limits and bytes of moves are given, but no plan to move from: give --current"
            )
        change = Change(current, None, expert_bytes)
        if current is not None:
            with one_line():
                limit = MoveLimits(max_moves, max_moves_per_gpu, price or 0.0, tolerance or 0.0)
            change = replace(change, limits=limit)
        return command(*args, change=change, **others)

    return with_options(CHANGE, command, with_change)


CHANGE = (
    click.option(
        "--current",
        type=a_file,
        metavar="PLAN",
        help="The plan in use: it is mended with few moves, and keeps its sizes.",
    ),
    click.option(
        "--max-moves",
        type=click.IntRange(min=0),
        help="Most replicas that all GPUs fetch, in all layers.",
    ),
    click.option(
        "--max-moves-per-gpu",
        type=click.IntRange(min=0),
        help="Most replicas that each GPU fetches.",
    ),
    click.option(
        "--price", type=float, help="Least load that each fetch takes off the busiest GPU."
    ),
    click.option(
        "--tolerance",
        type=float,
        help="Imbalance that is accepted: at 0.05, a layer may take 5 % longer than at best.",
    ),
    expert_bytes_option,
)


def target_options(command: F) -> F:
    """Give a command ``-o --to --hidden-layers``, as one argument ``target``."""

    def with_target(
        *args: Any,
        output: Path | None,
        output_format: str,
        hidden_layers: int | None,
        **others: Any,
    ) -> Any:
        return command(*args, target=Target(output, output_format, hidden_layers), **others)

    options = (
        output_option("Plan file to write; - is standard output."),
        to_option("writes_plans", "Its format.", default="eplb_np"),
        hidden_layers_option,
    )
    return with_options(options, command, with_target)


@click.command(
    "plan",
    short_help="Make a plan from loads, or mend the one in use.",
    epilog=epilog(
        "eplb-np plan loads.json --gpus 32 -o plan.json",
        "eplb-np plan loads.json --gpus 32 --nodes 4 --groups 8 --to sglang -o plan.json",
        "eplb-np plan new.json --current plan.json --max-moves 200 -o plan.json",
        "zcat loads.csv.gz | eplb-np plan - --gpus 16 --json",
    ),
)
@loads_options(required=False)
@sizes_options
@policy_option
@click.option(
    "--split",
    type=click.Choice(get_args(PlannedSplit)),
    default="even",
    show_default=True,
    help="How batches will be split over replicas; for best and certain, by a Splitter.",
)
@change_options
@target_options
@json_option
def plan_loads(
    loads: Loads,
    sizes: Sizes,
    policy: PolicyName,
    split: PlannedSplit,
    change: Change,
    target: Target,
    as_json: bool,
) -> None:
    """Plan the MoE layers of LOADS, and print their balance before and after.

    LOADS is a file or folder that a serving engine recorded, or a table [layers, experts] or
    [steps, layers, experts] of any common kind; - is standard input. Layers of zeros are dense,
    and are left out. From steps in order the next one is forecast; other steps are summed. Without
    LOADS, the command plans a synthetic load like DeepSeek-V3's.
    """
    with one_line():
        check_planned_split(split, policy)
        check_one_reader(loads.path, change.current)
        if target.output is not None:
            # Once more below: which layers there are is known when the loads have been read.
            check_output(target.output, target.format, 0, target.hidden_layers or 1)
            if loads.path is not None:
                check_not_read_from(target.output, loads.path)
    recorded = loads.read()
    hidden_layers = target.hidden_layers
    if hidden_layers is None:
        hidden_layers = recorded.num_hidden_layers
    with one_line():
        if target.output is not None:
            check_output(target.output, target.format, recorded.moe_layer_ids[-1], hidden_layers)
    planner = partial(make_plan, policy=policy, split=split)
    made = _plan(loads, recorded, sizes, planner, change)
    written = None
    if target.output is not None:
        written = write_plan_file(made.plan, target.output, target.format, hidden_layers)
    found = made.plan.summary(recorded.load)
    summary = summarize(made, found, loads, recorded, change, written)
    if split != "even":
        best = made.plan.balancedness(recorded.load, split="best")
        summary = replace(summary, split=split, balancedness_of_best_split=best)
    to = stream_beside(target.output)
    if as_json:
        print_json(asdict(summary), to)
    else:
        print_rows(_rows(summary, made, found, sizes), summary.notes, to)


def _plan(
    loads: Loads,
    recorded: RecordedLoads,
    sizes: Sizes,
    planner: Callable[..., Plan],
    change: Change,
) -> Made:
    """Plan from scratch or from the plan in use, twice: kernels are ready the second time."""
    ids = recorded.moe_layer_ids
    current = None
    if change.current is not None:
        current = read_plan_file(Input(change.current), sizes, ids)
    with one_line(about=loads.path):
        topology = topology_from(recorded.load.shape[1], sizes, current)
        plan = partial(
            planner,
            recorded.windows,
            topology,
            current=current,
            limits=change.limits,
            moe_layer_ids=ids,
        )
        start = time.perf_counter()
        with compiling():
            plan()  # the first call loads or compiles just the kernels that it needs
        ready = time.perf_counter()
        made = plan()
        done = time.perf_counter()
    before = in_order_plan(len(ids), topology) if current is None else current
    return Made(made, before, current is not None, ready - start, done - ready)


def summarize(
    made: Made,
    found: PlanSummary,
    loads: Loads,
    recorded: RecordedLoads,
    change: Change,
    written: WrittenPlan | None,
) -> Summary:
    """Gather what there is to say of a plan under the load that it was made from."""
    plan, topology = made.plan, made.plan.topology
    moves = None
    if made.mends:
        listed = plan.moves_from(made.before)
        moves = moving.measure(listed, made.before, plan, change.expert_bytes)
    return Summary(
        loads=loads.name,
        format=recorded.format,
        num_steps=recorded.num_steps,
        forecast=recorded.steps is not None,
        num_layers=plan.num_layers,
        moe_layer_ids=recorded.moe_layer_ids,
        dense_layer_ids=recorded.dense_layer_ids,
        num_experts=topology.num_experts,
        num_replicas=topology.num_replicas,
        num_gpus=topology.num_gpus,
        num_nodes=topology.num_nodes,
        num_groups=topology.num_groups,
        policy=plan.policy,
        split="even",
        placement=plan.placement,
        replicas_per_gpu=topology.slots_per_gpu,
        balancedness_before=made.before.balancedness(recorded.load),
        balancedness_after=found.balancedness,
        balancedness_at_most=found.at_most,
        balancedness_of_best_split=None,
        worst_layer_id=found.worst_layer_id,
        worst_layer_balancedness=found.worst_layer_balancedness,
        node_share=found.node_share,
        busiest_node=found.busiest_node,
        busiest_node_layers=found.busiest_node_layers,
        most_replicas=found.most_replicas,
        duplicates=found.duplicates,
        current=None if change.current is None else name_of(change.current),
        moves=moves,
        kernels_ready_seconds=made.kernels_ready_seconds,
        plan_seconds=made.plan_seconds,
        output=None if written is None else written_name(written.path),
        output_format=None if written is None else written.format,
        start=None if written is None else written.start,
        notes=[*recorded.notes, *(() if written is None else written.notes)],
    )


def _rows(summary: Summary, made: Made, found: PlanSummary, sizes: Sizes) -> dict[str, str]:
    """Say it, in rows of a table."""
    dense = summary.dense_layer_ids
    layers = f"{summary.num_layers} MoE layers planned"
    if dense:
        layers += f"; {len(dense)} dense (all zero), left out: {shown_ids(dense)}"
    steps = "one step" if summary.num_steps == 1 else f"{summary.num_steps} steps, summed"
    if summary.forecast:
        steps = f"{summary.num_steps} steps in order, from which the next one is forecast"
    start = "the plan in use" if made.mends else "experts in order"
    return rows.filled({
        "loads": summary.loads + (f" ({summary.format})" if summary.format else ""),
        "steps": steps,
        "layers": layers,
        "deployment": rows.deployment(made.plan),
        "slots": "" if made.mends else sizes.said(made.plan.topology),
        "policy": rows.policy(made.plan),
        "plan in use": summary.current or "",
        "GPU balancedness": (
            f"{summary.balancedness_before:.4f} before ({start}), "
            f"{summary.balancedness_after:.4f} after, "
            f"at most {summary.balancedness_at_most:.4f} for any plan"
        ),
        "split": ""
        if summary.balancedness_of_best_split is None
        else f"{summary.balancedness_of_best_split:.4f} where batches are split as they come",
        "worst layer": rows.worst(found),
        "nodes": rows.nodes(made.plan, found),
        "duplicates": rows.duplicates(found.duplicates),
        **({} if summary.moves is None else moving.said(summary.moves, made.plan)),
        "time": (
            f"{summary.plan_seconds * 1e3:.2f} ms to plan, "
            f"{summary.kernels_ready_seconds:.2f} s to load or compile the kernels"
        ),
        "written to": summary.output or "",
        "start with": summary.start or "",
    })  # fmt: skip
