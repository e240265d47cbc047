"""``eplb-np plan``: from a file of recorded loads to a file with a plan."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click

from eplb_np._files.targets import check_not_read_from
from eplb_np.cli.errors import NOT_WRITTEN, one_line
from eplb_np.cli.options import (
    Loads,
    Sizes,
    epilog,
    hidden_layers_option,
    json_option,
    loads_options,
    output_option,
    policy_option,
    sizes_options,
    to_option,
    topology_from,
)
from eplb_np.cli.output import compiling, print_json, print_rows
from eplb_np.io import RecordedLoads, WrittenPlan, write_plan
from eplb_np.io.plans import check_writable
from eplb_np.metrics import balancedness, layer_balancedness
from eplb_np.plan import Plan
from eplb_np.planning import in_order_plan, make_plan
from eplb_np.policies import PolicyName


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
    output_format: str | None
    start: str | None
    notes: list[str]


@click.command(
    "plan",
    epilog=epilog(
        "eplb-np plan loads.json --gpus 32 -o plan.json",
        "eplb-np plan loads.json --gpus 32 --nodes 4 --groups 8 --to sglang -o plan.json",
        "cat loads.npy | eplb-np plan - --gpus 16 --json",
    ),
)
@loads_options(required=False)
@sizes_options
@policy_option
@output_option("Plan file to write.")
@to_option("writes_plans", "Its format.", default="eplb_np")
@hidden_layers_option
@json_option
def plan_loads(
    loads: Loads,
    sizes: Sizes,
    policy: PolicyName,
    output: Path | None,
    output_format: str,
    hidden_layers: int | None,
    as_json: bool,
) -> None:
    """Plan the MoE layers of LOADS, and print their balance before and after.

    LOADS is a file or folder that a serving engine recorded, or a table [layers, experts] or
    [steps, layers, experts] of any common kind; - is standard input. Layers of zeros are dense,
    and are left out. From steps in order the next one is forecast; other steps are summed. Without
    LOADS, the command plans a synthetic load like DeepSeek-V3's.
    """
    with one_line():
        if output is not None:
            # Once more below: which layers there are is known when the loads have been read.
            check_writable(output, output_format, 0, hidden_layers or 1)
            if loads.path is not None:
                check_not_read_from(output, loads.path)
    recorded = loads.read()
    if hidden_layers is None:
        hidden_layers = recorded.num_hidden_layers
    with one_line():
        if output is not None:
            check_writable(output, output_format, recorded.moe_layer_ids[-1], hidden_layers)
    with one_line(about=loads.path):
        topology = topology_from(recorded.load.shape[1], sizes)
        plan = partial(
            make_plan,
            recorded.windows,
            topology,
            policy=policy,
            moe_layer_ids=recorded.moe_layer_ids,
        )
        start = time.perf_counter()
        with compiling():
            plan()  # the first call loads or compiles just the kernels that it needs
        ready = time.perf_counter()
        made = plan()
        done = time.perf_counter()
    written = None
    if output is not None:
        with one_line(NOT_WRITTEN, about=output):
            written = write_plan(made, output, output_format, num_hidden_layers=hidden_layers)
    summary = summarize(made, recorded, loads.name, ready - start, done - ready, written)
    if as_json:
        print_json(asdict(summary))
    else:
        print_summary(summary, sizes.said(topology))


def summarize(
    made: Plan,
    recorded: RecordedLoads,
    loads: str,
    kernels_ready_seconds: float,
    plan_seconds: float,
    written: WrittenPlan | None,
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
        format=recorded.format,
        num_steps=recorded.num_steps,
        forecast=recorded.steps is not None,
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
        output=None if written is None else str(written.path),
        output_format=None if written is None else written.format,
        start=None if written is None else written.start,
        notes=[*recorded.notes, *(() if written is None else written.notes)],
    )


def print_summary(summary: Summary, sizes_said: str) -> None:
    """Print the summary as a table."""
    dense = summary.dense_layer_ids
    layers = f"{summary.num_layers} MoE layers planned"
    if dense:
        layers += f"; {len(dense)} dense (all zero), left out: {', '.join(map(str, dense))}"
    most = f"{summary.replicas_per_gpu}"
    if summary.num_replicas % summary.num_gpus:
        most = f"{summary.num_replicas // summary.num_gpus} or {most}"
    steps = "one step" if summary.num_steps == 1 else f"{summary.num_steps} steps, summed"
    if summary.forecast:
        steps = f"{summary.num_steps} steps in order, from which the next one is forecast"
    rows = {
        "loads": summary.loads + (f" ({summary.format})" if summary.format else ""),
        "steps": steps,
        "layers": layers,
        "deployment": (
            f"{summary.num_experts} experts in {summary.num_replicas} slots on "
            f"{summary.num_gpus} GPUs, {most} replicas per GPU"
        ),
        "replicas": sizes_said,
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
        rows["written to"] = summary.output
    if summary.start:
        rows["start with"] = summary.start
    print_rows({name: text for name, text in rows.items() if text}, summary.notes)
