"""``eplb-np plan``: from a file of recorded loads to a file with a plan."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from eplb_np import workloads
from eplb_np._files.reading import printable, suffix_of
from eplb_np._files.targets import check_not_read_from, target_of
from eplb_np.cli.errors import NOT_WRITTEN, one_line
from eplb_np.io.loads import RecordedLoad, read_loads, select_moe_layers
from eplb_np.metrics import balancedness, layer_balancedness
from eplb_np.plan import PLAN_FILE, Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import POLICIES, PolicyName, check_policy
from eplb_np.topology import Topology

SHIPPED = "synthetic, like DeepSeek-V3"


@dataclass(frozen=True)
class Summary:
    """Results that the plan command prints, as a table or as JSON."""

    loads: str
    num_layers: int
    moe_layer_ids: list[int]
    dense_layer_ids: list[int]
    num_experts: int
    num_replicas: int
    num_gpus: int
    num_nodes: int
    num_groups: int
    policy: str
    placement: str
    replicas_per_gpu: int
    balancedness_before: float
    balancedness_after: float
    balancedness_at_most: float
    worst_layer_id: int
    worst_layer_balancedness: float
    kernels_ready_seconds: float
    plan_seconds: float
    output: str | None


def _known_policy(context: click.Context, option: click.Parameter, name: str) -> str:
    """Look the policy up when the command runs: the table may have grown by then."""
    try:
        check_policy(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return name


@click.command("plan")
@click.argument("loads", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--replicas", default=288, show_default=True, help="Physical experts per layer.")
@click.option("--gpus", default=32, show_default=True, help="Number of GPUs.")
@click.option("--nodes", default=1, show_default=True, help="Nodes; divides the GPUs.")
@click.option("--groups", default=1, show_default=True, help="Expert groups; divides the experts.")
@click.option(
    "--policy",
    default="hybrid",
    show_default=True,
    help=f"One of {', '.join(POLICIES)}.",
    callback=_known_policy,
    shell_complete=lambda context, option, typed: [p for p in POLICIES if p.startswith(typed)],
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="Plan file: .json or .npz.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def plan_loads(
    loads: Path | None,
    replicas: int,
    gpus: int,
    nodes: int,
    groups: int,
    policy: PolicyName,
    output: Path | None,
    as_json: bool,
) -> None:
    """Plan the MoE layers of LOADS, and print their balance before and after.

    LOADS is a .json ({"logical_count": ...}), .npy or .npz file with an array [layers, experts]
    or [steps, layers, experts]; steps are summed. Layers of zeros are dense, and are left out.
    Without LOADS, the command plans a synthetic load like DeepSeek-V3's.

    Exit codes: 0, done; 1, the output could not be written; 2, bad input or options; 130, stopped
    by Ctrl-C. Errors are one line on standard error.
    """
    with one_line():
        if output is not None:
            suffix_of(output, PLAN_FILE.suffixes)
            target_of(output)
            if loads is not None:
                check_not_read_from(output, loads)
        recorded = read_loads(loads) if loads else select_moe_layers(shipped_load())
    with one_line(about=loads):
        topology = Topology(recorded.load.shape[1], replicas, gpus, nodes, groups)
        plan = partial(
            make_plan,
            recorded.load,
            topology,
            policy=policy,
            moe_layer_ids=recorded.moe_layer_ids,
        )
        start = time.perf_counter()
        plan()  # the first call loads or compiles just the kernels that it needs
        ready = time.perf_counter()
        made = plan()
        done = time.perf_counter()
    if output is not None:
        with one_line(NOT_WRITTEN):
            made.save(output)
    summary = summarize(
        made, recorded, str(loads) if loads else SHIPPED, ready - start, done - ready, output
    )
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        print_summary(summary)


def shipped_load() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Load to plan if none is given; its dense layers are zero, as in recordings."""
    return workloads.deepseek_v3_load(seed=0).astype(np.float64)


def summarize(
    made: Plan,
    recorded: RecordedLoad,
    loads: str,
    kernels_ready_seconds: float,
    plan_seconds: float,
    output: Path | None,
) -> Summary:
    """Measure a plan under the load that it was made from."""
    load = recorded.load
    topology = made.topology
    gpu_load = made.gpu_load(load)
    by_layer = layer_balancedness(gpu_load)
    worst = int(by_layer.argmin())
    before = in_order_plan(made.num_layers, topology)
    mean = float(gpu_load.mean(axis=1).sum())
    return Summary(
        loads=loads,
        num_layers=made.num_layers,
        moe_layer_ids=recorded.moe_layer_ids,
        dense_layer_ids=recorded.dense_layer_ids,
        num_experts=topology.num_experts,
        num_replicas=topology.num_replicas,
        num_gpus=topology.num_gpus,
        num_nodes=topology.num_nodes,
        num_groups=topology.num_groups,
        policy=made.policy,
        placement=made.placement,
        replicas_per_gpu=topology.slots_per_gpu,
        balancedness_before=before.balancedness(load),
        balancedness_after=balancedness(gpu_load),
        balancedness_at_most=mean / float(made.lower_bound(load).sum()),
        worst_layer_id=recorded.moe_layer_ids[worst],
        worst_layer_balancedness=float(by_layer[worst]),
        kernels_ready_seconds=kernels_ready_seconds,
        plan_seconds=plan_seconds,
        output=None if output is None else str(output),
    )


def print_summary(summary: Summary) -> None:
    """Print the summary as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    dense = summary.dense_layer_ids
    layers = f"{summary.num_layers} MoE layers planned"
    if dense:
        layers += f"; {len(dense)} dense (all zero), left out: {', '.join(map(str, dense))}"
    most = f"{summary.replicas_per_gpu}"
    if summary.num_replicas % summary.num_gpus:
        most = f"{summary.num_replicas // summary.num_gpus} or {most}"
    rows = {
        "loads": printable(summary.loads),
        "layers": layers,
        "deployment": (
            f"{summary.num_experts} experts in {summary.num_replicas} slots on "
            f"{summary.num_gpus} GPUs, {most} replicas per GPU"
        ),
        "policy": f"{summary.policy}, {summary.placement} placement",
        "GPU balancedness": (
            f"{summary.balancedness_before:.4f} before (experts in order), "
            f"{summary.balancedness_after:.4f} after, "
            f"at most {summary.balancedness_at_most:.4f} for any plan"
        ),
        "worst layer": f"{summary.worst_layer_id}, at {summary.worst_layer_balancedness:.4f}",
        "time": (
            f"{summary.plan_seconds * 1e3:.2f} ms to plan, "
            f"{summary.kernels_ready_seconds:.2f} s to load or compile the kernels"
        ),
    }
    if summary.num_groups % summary.num_nodes:
        rows["policy"] += f" ({summary.num_nodes} nodes do not divide {summary.num_groups} groups)"
    if summary.output:
        rows["written to"] = printable(summary.output)
    for name, text in rows.items():
        table.add_row(name, text)
    Console(soft_wrap=True, markup=False, emoji=False).print(table)
