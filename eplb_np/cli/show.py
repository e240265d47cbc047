"""``eplb-np show``: a plan as a table, layer by layer or GPU by GPU, or as a picture."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from eplb_np import pictures
from eplb_np.cli import rows
from eplb_np.cli.drawing import check_picture, save_picture, theme_option
from eplb_np.cli.errors import OneLineError, one_line
from eplb_np.cli.options import (
    Loads,
    Sizes,
    a_file,
    epilog,
    json_option,
    loads_options,
    output_option,
)
from eplb_np.cli.output import print_json, print_rows, print_table
from eplb_np.cli.plan_files import (
    ids_of,
    layers_option,
    load_of,
    plan_sizes_options,
    read_plan_file,
    shown_ids,
)
from eplb_np.cli.streams import Input, check_one_reader, name_of, stream_beside
from eplb_np.plan import Plan
from eplb_np.summaries import PlanSummary, count_duplicates

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command(
    "show",
    short_help="Show a plan, by layer or by GPU, or draw it.",
    epilog=epilog(
        "eplb-np show plan.json loads.json",
        "eplb-np show plan.json loads.json --layer 3",
        "eplb-np show plan.json loads.json -o plan.svg",
        "eplb-np show sglang.json --gpus 32 --layers 3-60",
    ),
)
@click.argument("plan", type=a_file)
@loads_options(required=False)
@plan_sizes_options
@layers_option
@click.option("--layer", type=int, help="Show this layer alone, GPU by GPU.")
@output_option("Draw instead: the load of the GPUs, or without LOADS the replicas. .png or .svg.")
@theme_option
@json_option
def show(
    plan: Path,
    loads: Loads,
    sizes: Sizes,
    layers: tuple[int, ...] | None,
    layer: int | None,
    output: Path | None,
    theme: pictures.ThemeName,
    as_json: bool,
) -> None:
    """Show PLAN as a table: a row for each layer, or with --layer for each GPU of one.

    With LOADS, also how PLAN balances them, by layer, GPU and node. PLAN is in any format that
    eplb-np formats lists. With -o it is drawn: the load of each GPU in each layer.
    """
    with one_line():
        check_one_reader(plan, loads.path)
    if output is not None:
        if layer is not None:
            raise OneLineError("-o draws all layers: leave --layer out")
        check_picture(output, plan, loads.path)
    recorded = None if loads.path is None else loads.read()
    ids = layers if recorded is None or layers is not None else recorded.moe_layer_ids
    shown = read_plan_file(Input(plan), sizes, ids)
    load = None if recorded is None else load_of(recorded, shown, loads.name)
    if layer is not None and layer not in ids_of(shown):
        raise OneLineError(f"--layer {layer}: there is none; layers are {shown_ids(ids_of(shown))}")
    found = None if load is None else shown.summary(load)
    said = _rows(shown, found, name_of(plan), None if recorded is None else loads.name)
    if output is not None:
        said |= save_picture(output, lambda: _drawn(shown, load, theme))
    to = stream_beside(output)
    table = _layers(shown, load) if layer is None else _gpus(shown, load, layer)
    if as_json:
        print_json({
            **asdict(shown.topology),
            "policy": shown.policy,
            "placement": shown.placement,
            "summary": None if found is None else asdict(found),
            "layers" if layer is None else "gpus": table,
            "output": said.get("written to"),
        }, to)  # fmt: skip
        return
    if output is None:
        print_table(
            [name.replace("_", " ") for name in table[0]],
            ([_text(value) for value in row.values()] for row in table),
            left=("experts",),
        )
        click.echo()
    print_rows(said, to=to)


def _drawn(plan: Plan, load: NDArray[np.float64] | None, theme: pictures.ThemeName) -> Figure:
    if load is None:
        return pictures.replicas(plan, theme=theme)
    return pictures.gpu_loads(plan, load, theme=theme)


def _rows(plan: Plan, found: PlanSummary | None, name: str, loads: str | None) -> dict[str, str]:
    said = {
        "plan": name,
        "loads": loads or "",
        "layers": f"{plan.num_layers}: {shown_ids(ids_of(plan))}",
        "deployment": rows.deployment(plan),
        "policy": rows.policy(plan),
    }
    if found is not None:
        said |= {
            "GPU balancedness": f"{found.balancedness:.4f}, at most {found.at_most:.4f} for any "
            "plan",
            "worst layer": rows.worst(found),
            "nodes": rows.nodes(plan, found),
        }
    return rows.filled(
        said | {"duplicates": rows.duplicates(count_duplicates(plan.phy2log, plan.topology))}
    )


def _layers(plan: Plan, load: NDArray[np.float64] | None) -> list[dict[str, Any]]:
    """Describe each layer."""
    table: list[dict[str, Any]] = [{"layer": layer} for layer in ids_of(plan)]
    if load is not None:
        balance = rows.balance_by_layer(plan, load)
        time = plan.gpu_time(load)
        # No plan's slowest GPU takes less than the bound.
        best = np.maximum(plan.lower_bound(load), np.finfo(float).tiny)
        for i, row in enumerate(table):
            row["balancedness"] = float(balance[i])
            row["at_most"] = float(min(1.0, balance[i] * time[i].max() / best[i]))
            row["busiest_GPU"] = int(time[i].argmax())
    for i, row in enumerate(table):
        row["most_replicas"] = int(plan.logcnt[i].max())
        row["of_expert"] = int(plan.logcnt[i].argmax())
        row["duplicates"] = count_duplicates(plan.phy2log[i : i + 1], plan.topology)
    return table


def _gpus(plan: Plan, load: NDArray[np.float64] | None, layer: int) -> list[dict[str, Any]]:
    """Describe each GPU of a layer."""
    sizes = plan.topology
    i = ids_of(plan).index(layer)
    table: list[dict[str, Any]] = []
    for gpu, (first, stop) in enumerate(pairwise(sizes.first_slots.tolist())):
        row: dict[str, Any] = {"GPU": gpu}
        if sizes.num_nodes > 1:
            row["node"] = gpu // sizes.gpus_per_node
        table.append(row | {"experts": plan.phy2log[i, first:stop].tolist()})
    if load is not None:
        gpu_load, time = plan.gpu_load(load)[i], plan.gpu_time(load)[i]
        mean = float(gpu_load.sum()) / sizes.active_speed
        for gpu, row in enumerate(table):
            experts = row.pop("experts")
            row["load"] = float(gpu_load[gpu])
            row["times_the_mean"] = _ratio(time[gpu], mean)
            row["experts"] = experts
    return table


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 1.0


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if value < 100 else f"{value:,.0f}"
    if isinstance(value, list):
        return " ".join("-" if expert < 0 else str(expert) for expert in value)
    return str(value)
