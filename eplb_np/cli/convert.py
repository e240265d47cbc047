"""``eplb-np convert``: plans and loads from one format to another, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from eplb_np._files.targets import check_not_read_from
from eplb_np.cli import rows
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.options import (
    Sizes,
    a_file,
    epilog,
    format_option,
    hidden_layers_option,
    in_order_option,
    json_option,
    to_option,
)
from eplb_np.cli.output import print_json, print_rows
from eplb_np.cli.plan_files import (
    OWN,
    check_output,
    format_of,
    ids_of,
    layers_option,
    plan_sizes_options,
    read_plan_file,
    shown_ids,
    write_plan_file,
)
from eplb_np.cli.streams import Input, start_of, stream_beside, write_through, written_name
from eplb_np.io import FORMATS, RecordedLoads, read_loads, write_loads
from eplb_np.io.contents import opened
from eplb_np.io.formats import is_plan
from eplb_np.io.loads import suffix_of_loads
from eplb_np.maps.maps import rank_by_slots
from eplb_np.plan import Plan

SAYS_GPUS = ("vllm-ascend",)
SAYS_LAYERS = ("sglang", "sglang-jax", "tensorrt-llm")
EVERY_LAYER = ("fastdeploy", "sglang", "sglang-jax")
"""Formats of plans whose rows are all decoder layers, so that their number is known."""


class Converted(NamedTuple):
    """What the command prints, as a table or as JSON."""

    input: str
    input_format: str
    holds: str
    layer_ids: Sequence[int]
    num_experts: int
    output: str
    output_format: str
    start: str
    notes: Sequence[str]


class Wanted(NamedTuple):
    """What is to be written, and where."""

    output: Path
    format: str
    hidden_layers: int | None


@click.command(
    "convert",
    short_help="Write a plan or loads in another format.",
    epilog=epilog(
        "eplb-np convert plan.json sglang.json --to sglang --hidden-layers 61",
        "eplb-np convert sglang.json map.yaml --to tensorrt-llm --gpus 32 --layers 3-60",
        "eplb-np convert dump.pt loads.npy --to numpy",
        "cat plan.json | eplb-np convert - - --to vllm-ascend > expert_map.json",
    ),
)
@click.argument("source", metavar="IN", type=a_file)
@click.argument("output", metavar="OUT", type=a_file)
@to_option("writes_any", "Format of OUT; see eplb-np formats.")
@format_option("reads_any", "Format of IN")
@click.option(
    "--plan/--loads", "as_plan", default=None, help="What to take of IN, where it holds both."
)
@in_order_option
@plan_sizes_options
@layers_option
@hidden_layers_option
@json_option
def convert(  # noqa: PLR0913
    source: Path,
    output: Path,
    output_format: str,
    format_name: str | None,
    as_plan: bool | None,
    in_order: bool | None,
    sizes: Sizes,
    layers: tuple[int, ...] | None,
    hidden_layers: int | None,
    as_json: bool,
) -> None:
    """Write the plan or the loads in IN as OUT, in another format.

    The content of IN decides whether it is a plan or loads. - is standard input and, as OUT,
    standard output. What the other format cannot hold is said in notes.
    """
    given = Input(source)
    wanted = Wanted(output, output_format, hidden_layers)
    with one_line():
        check_not_read_from(output, source)
        if as_plan is None:
            with opened(given.file) as contents:
                as_plan = is_plan(contents, format_name)
    if not getattr(FORMATS[output_format], "writes_plans" if as_plan else "writes_loads"):
        raise _cannot_hold(given.name, as_plan, output_format)
    if as_plan:
        plan = read_plan_file(given, sizes, layers, format_name)
        converted = _convert_plan(given, plan, format_of(given, format_name), wanted, layers)
    else:
        with one_line():
            loads = read_loads(given.file, format_name, in_order=in_order, moe_layer_ids=layers)
        converted = _convert_loads(given, loads, wanted)
    to = stream_beside(output)
    if as_json:
        print_json(converted._asdict(), to)
    else:
        print_rows(_rows(converted), converted.notes, to)


def _cannot_hold(name: str, is_plan: bool, output_format: str) -> OneLineError:
    """Return the error of a format for the other kind of content."""
    what, able = ("a plan", "writes_plans") if is_plan else ("loads", "writes_loads")
    known = ", ".join(known for known, row in FORMATS.items() if getattr(row, able))
    other = "--loads if these are loads" if is_plan else "--plan if this is a plan"
    return OneLineError(
        f"{name}: it holds {what}, which {output_format} cannot: give --to {known}, or {other}"
    )


def _convert_plan(
    given: Input, plan: Plan, input_format: str, wanted: Wanted, layers: tuple[int, ...] | None
) -> Converted:
    ids = ids_of(plan)
    hidden_layers = wanted.hidden_layers
    if hidden_layers is None and layers is None and input_format in EVERY_LAYER:
        hidden_layers = plan.num_layers
    with one_line():
        check_output(wanted.output, wanted.format, ids[-1], hidden_layers)
    written = write_plan_file(plan, wanted.output, wanted.format, hidden_layers)
    return Converted(
        input=given.name,
        input_format=input_format,
        holds="plan",
        layer_ids=ids,
        num_experts=plan.topology.num_experts,
        output=written_name(wanted.output),
        output_format=wanted.format,
        start=written.start,
        notes=[*written.notes, *_lost(plan, wanted.format)],
    )


def _lost(plan: Plan, name: str) -> list[str]:
    """Say what the file of a plan does not hold, and its readers must know."""
    if name == OWN:
        return []
    sizes = plan.topology
    ids = ids_of(plan)
    lost = []
    if name not in SAYS_GPUS:
        lost.append(f"the number of GPUs ({sizes.num_gpus})")
    if sizes.num_nodes > 1 or sizes.num_groups > 1:
        lost.append(f"nodes and groups ({sizes.num_nodes} and {sizes.num_groups})")
    if name not in SAYS_LAYERS and ids != tuple(range(len(ids))):
        lost.append(f"the ids of the layers ({shown_ids(ids)})")
    if sizes.gpu_speeds is not None:
        lost.append("the speeds of the GPUs")
    if not np.array_equal(rank_by_slots(plan.phy2log.astype(np.int64)), plan.phyrank):
        lost.append("the ranks of replicas, which are numbered by their slots")
    return [f"not in the file: {', '.join(lost)}"] if lost else []


def _convert_loads(given: Input, loads: RecordedLoads, wanted: Wanted) -> Converted:
    with one_line(NOT_WRITTEN, about=wanted.output):
        written = write_through(
            wanted.output,
            suffix_of_loads(wanted.format),
            lambda path: write_loads(
                loads, path, wanted.format, num_hidden_layers=wanted.hidden_layers
            ),
        )
    notes = list(loads.notes)
    if loads.steps is not None and wanted.format != "numpy":
        notes.append(f"not in the file: the order of the {loads.num_steps} steps, which are summed")
    if loads.phy2log is not None:
        notes.append("not in the file: the map of slots; counts of replicas were added up")
    return Converted(
        input=given.name,
        input_format=loads.format,
        holds="loads",
        layer_ids=loads.moe_layer_ids,
        num_experts=loads.load.shape[1],
        output=written_name(wanted.output),
        output_format=wanted.format,
        start=start_of(written.start, written.path, wanted.output),
        notes=notes,
    )


def _rows(converted: Converted) -> dict[str, str]:
    layers = f"{len(converted.layer_ids)} layers ({shown_ids(converted.layer_ids)})"
    return rows.filled({
        "read": f"{converted.input} ({converted.input_format})",
        "holds": f"{'a plan' if converted.holds == 'plan' else 'loads'} of "
        f"{converted.num_experts} experts in {layers}",
        "written to": f"{converted.output} ({converted.output_format})",
        "start with": converted.start,
    })  # fmt: skip
