"""``eplb-np diff``: what changes from one plan to another, and what it takes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TextIO

import click
import numpy as np
from numpy.typing import NDArray

from eplb_np import pictures
from eplb_np.cli import moving, rows
from eplb_np.cli.drawing import check_picture, save_picture, theme_option
from eplb_np.cli.errors import OneLineError, one_line
from eplb_np.cli.moving import Moved, expert_bytes_option
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
    read_plan_files,
    shown_ids,
)
from eplb_np.cli.streams import Input, check_one_reader, stream_beside
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan

By = Literal["layer", "gpu", "move"]


@click.command(
    "diff",
    short_help="What changes between two plans, and what it takes.",
    epilog=epilog(
        "eplb-np diff old.json new.json",
        "eplb-np diff old.json new.json loads.json --expert-bytes 44040192",
        "eplb-np diff old.json sglang.json --by layer",
        "eplb-np diff old.json new.json loads.json -o before_and_after.png",
    ),
)
@click.argument("old", type=a_file)
@click.argument("new", type=a_file)
@loads_options(required=False)
@plan_sizes_options
@layers_option
@click.option(
    "--by",
    type=click.Choice(["layer", "gpu", "move"]),
    help="Also list the fetches of each layer, or of each GPU, or every move.",
)
@expert_bytes_option
@output_option("Draw the load of the GPUs before and after: .png or .svg; needs LOADS.")
@theme_option
@json_option
def diff(  # noqa: PLR0913
    old: Path,
    new: Path,
    loads: Loads,
    sizes: Sizes,
    layers: tuple[int, ...] | None,
    by: By | None,
    expert_bytes: int | None,
    output: Path | None,
    theme: pictures.ThemeName,
    as_json: bool,
) -> None:
    """Say what changes from plan OLD to plan NEW, and what has to be fetched for it.

    With LOADS, also how well both balance them. The plans may be of different formats. They must
    have the same layers, experts and slots.

    A fetch brings an expert to a GPU that does not hold it. A second replica on one GPU is copied
    there, which is no fetch, but moved_replicas of the library counts it, too.
    """
    with one_line():
        check_one_reader(old, new, loads.path)
    if output is not None:
        if loads.path is None:
            raise OneLineError("-o draws the load of the GPUs: give LOADS")
        check_picture(output, old, new, loads.path)
    recorded = None if loads.path is None else loads.read()
    ids = layers if recorded is None or layers is not None else recorded.moe_layer_ids
    files = [Input(old), Input(new)]
    before, after = read_plan_files(files, sizes, ids)
    with one_line():
        _check_alike(files, before, after)
        moves = after.moves_from(before)
    moved = moving.measure(moves, before, after, expert_bytes)
    load = None if recorded is None else load_of(recorded, after, loads.name)
    picture: dict[str, str] = {}
    if output is not None and load is not None:
        picture = save_picture(
            output, lambda: pictures.gpu_loads(after, load, before=before, theme=theme)
        )
    to = stream_beside(output)
    tables = {
        "layer": _by_layer(moves, before, after, load),
        "gpu": _by_gpu(moves, after),
        "move": _by_move(moves, after) if by == "move" else [],
    }
    if as_json:
        print_json({
            **asdict(moved),
            **_balance(before, after, load),
            "changed_layers": _changed(moves, after),
            "layers": tables["layer"],
            "gpus": tables["gpu"],
            **({"moves": tables["move"]} if by == "move" else {}),
            "output": picture.get("written to"),
        }, to)  # fmt: skip
        return
    if by is not None:
        _print(tables[by], to)
    names = (files[0].name, files[1].name)
    said = _rows(names, (before, after), moves, moved, load, loads.name)
    print_rows(said | picture, to=to)


def _rows(
    names: tuple[str, str],
    plans: tuple[Plan, Plan],
    moves: Moves,
    moved: Moved,
    load: NDArray[np.float64] | None,
    loads: str,
) -> dict[str, str]:
    before, after = plans
    changed = _changed(moves, after)
    said = {
        "old": f"{names[0]}: {rows.policy(before)}",
        "new": f"{names[1]}: {rows.policy(after)}",
        "deployment": rows.deployment(after),
        "replicas": _recounted(before, after),
        "layers": f"{len(changed)} of {after.num_layers} change"
        + (f": {shown_ids(changed)}" if changed else ""),
        **moving.said(moved, after),
    }
    if load is not None:
        balance = _balance(before, after, load)
        said["loads"] = loads
        said["GPU balancedness"] = (
            f"{balance['balancedness_before']:.4f} before, {balance['balancedness_after']:.4f} "
            f"after, at most {balance['balancedness_at_most']:.4f} for any plan"
        )
        said["nodes"] = rows.nodes(after, after.summary(load))
    return rows.filled(said)


def _check_alike(files: list[Input], before: Plan, after: Plan) -> None:
    """Raise ``ValueError`` if there are no moves from one plan to the other."""
    old, new = before.topology, after.topology
    same = (old.num_experts, old.num_replicas, old.num_gpus, old.gpu_slots) == (
        new.num_experts, new.num_replicas, new.num_gpus, new.gpu_slots
    )  # fmt: skip
    if not same:
        raise ValueError(
            f"{files[1].name} has {rows.deployment(after)}, but {files[0].name} has "
            f"{rows.deployment(before)}: give plans of the same experts and slots"
        )


def _changed(moves: Moves, plan: Plan) -> list[int]:
    """Return the ids of the layers in which a slot changes."""
    ids = ids_of(plan)
    return [ids[row] for row in np.unique(moves.layer).tolist()]


def _recounted(before: Plan, after: Plan) -> str:
    """Say how many experts get more replicas, over all layers."""
    more = int((after.logcnt > before.logcnt).sum())
    fewer = int((after.logcnt < before.logcnt).sum())
    if not more and not fewer:
        return "every expert keeps its number"
    return f"{more} experts get more and {fewer} fewer, over all layers"


def _balance(before: Plan, after: Plan, load: NDArray[np.float64] | None) -> dict[str, float]:
    """Return the balance of both plans."""
    if load is None:
        return {}
    found = after.summary(load)
    return {
        "balancedness_before": before.balancedness(load),
        "balancedness_after": found.balancedness,
        "balancedness_at_most": found.at_most,
    }


def _by_layer(
    moves: Moves, before: Plan, after: Plan, load: NDArray[np.float64] | None
) -> list[dict[str, Any]]:
    """Describe the layers."""
    fetched = moving.by_layer(moves, after)
    table: list[dict[str, Any]] = [
        {"layer": layer, "fetched": number}
        for layer, number in zip(ids_of(after), fetched, strict=True)
    ]
    if load is not None:
        balance = (rows.balance_by_layer(plan, load).tolist() for plan in (before, after))
        for row, old, new in zip(table, *balance, strict=True):
            row |= {"balancedness_before": old, "balancedness_after": new}
    return table


def _by_gpu(moves: Moves, after: Plan) -> list[dict[str, Any]]:
    """Describe the GPUs: what each fetches, and what others fetch from it."""
    fetched = moving.by_gpu(moves, after)
    away = moves.source_gpu[(moves.source_gpu != moves.gpu) & (moves.source_gpu >= 0)]
    sent = np.bincount(away, minlength=len(fetched)).tolist()
    return [
        {
            "GPU": gpu,
            "node": gpu // after.topology.gpus_per_node,
            "fetched": number,
            "sent": sent[gpu],
        }
        for gpu, number in enumerate(fetched)
    ]


def _by_move(moves: Moves, after: Plan) -> list[dict[str, Any]]:
    """Describe every move, in an order in which they can be made."""
    ids = ids_of(after)
    return [{**move._asdict(), "layer": ids[move.layer]} for move in moves]


def _print(table: list[dict[str, Any]], to: TextIO) -> None:
    if not table:
        return
    lines = (
        [f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in table
    )
    print_table([name.replace("_", " ") for name in table[0]], lines, to=to)
    click.echo(file=to)
