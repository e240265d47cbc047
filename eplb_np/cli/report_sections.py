"""The parts of a report: what loads look like, what policies give, what to buy, what to move."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eplb_np import pictures
from eplb_np._files.reading import printable
from eplb_np.cli import moving, rows
from eplb_np.cli.described import said_deployment, said_steps
from eplb_np.cli.html_page import (
    Section,
    bullets,
    commands,
    facts,
    paragraph,
    picture,
    side_by_side,
    table,
)
from eplb_np.cli.moving import Moved, shown_bytes
from eplb_np.cli.plan_files import shown_ids
from eplb_np.cli.report_typed import Typed
from eplb_np.comparison import Comparison
from eplb_np.io import RecordedLoads
from eplb_np.pictures.expert_loads import staying_share
from eplb_np.pictures.replayed import MOST_REPLAYS
from eplb_np.pictures.themes import ThemeName
from eplb_np.plan import Plan
from eplb_np.summaries import PlanSummary
from eplb_np.sweeps.measure import SweptCase
from eplb_np.sweeps.sweeping import Sweep
from eplb_np.topology import Topology

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IN_ORDER = "in-order"
HEAVY_NODE = 1.02
"""Times the mean from which a node's load is worth a sentence."""

HOTTEST = 10
MOST_BUSY_GPUS = 8
MOST_NOTES = 20
LONGEST = 300
"""Characters of what a file may say."""


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a report says."""

    recorded: RecordedLoads
    topology: Topology
    said_slots: str
    before: Plan
    plan: Plan
    summary: PlanSummary
    moved: Moved
    compared: Comparison
    swept: Sweep
    knee: SweptCase
    within: float


def headlines(found: Findings, typed: Typed) -> dict[str, str]:
    """Say what matters, in a few sentences."""
    knee, moved = found.knee, found.moved
    before = 1 / found.before.balancedness(found.recorded.load)
    start = "experts in order" if typed.current is None else "the plan in use"
    move = "Nothing has to be moved."
    if moved.fetched:
        move = (
            f"Move {moved.fetched:,} replicas for it, {moved.share_of_slots:.1%} of all slots, at "
            f"most {moved.most_on_one_gpu} to one GPU."
        )
    said = {
        "balance": (
            f"The busiest GPU carries {before:.2f} times the mean with {start}, and "
            f"{1 / found.summary.balancedness:.2f} times with {said_plan(found, typed)}. No plan "
            f"for these sizes gets below {1 / found.summary.at_most:.2f}."
        ),
        "moves": move,
        "buy": (
            f"Buy {knee.slots_per_gpu} slots of a layer on each of {knee.num_gpus} GPUs: more gain "
            f"less than {found.within:.0%}."
        ),
    }
    share = found.summary.node_share
    if found.plan.placement == "hierarchical" and share > HEAVY_NODE:
        said["nodes"] = (
            f"The busiest node carries {share:.2f} times the mean. No plan can help that while "
            "groups of experts stay on one node."
        )
    return said


def said_plan(found: Findings, typed: Typed) -> str:
    """Say which plan is drawn and moved to: that of ``eplb-np plan``."""
    made = f"a {found.plan.policy} plan" if typed.current is None else "that plan mended"
    return made if found.recorded.steps is None else f"{made}, made for the step to come"


def sections_of(found: Findings, typed: Typed) -> list[Section]:
    """Write the sections."""
    return [
        Section("load", "What the load looks like", _looks(found, typed)),
        Section("policies", "What each policy would give", _policies(found, typed)),
        Section("buy", "What to buy", _to_buy(found, typed)),
        Section("move", "What to move", _to_move(found, typed)),
    ]


def _looks(found: Findings, typed: Typed) -> list[str]:
    recorded = found.recorded
    load, ids = recorded.load, recorded.moe_layer_ids
    said = {
        "steps": said_steps(recorded),
        "layers": f"{len(load)} MoE layers: {shown_ids(ids)}",
        "experts": f"{load.shape[1]} of each layer",
        "load": f"{load.sum():,.0f} in all, {load.sum(axis=1).mean():,.0f} of the mean layer",
    }
    if recorded.dense_layer_ids:
        said["dense layers"] = f"{shown_ids(recorded.dense_layer_ids)}: without load, left out"
    if recorded.steps is not None:
        stays = staying_share(np.asarray(recorded.steps, np.float64))
        said["changes"] = (
            f"{stays.mean():.1%} of the load of a step lies where it lay in the step before, and "
            f"never less than {stays.min():.1%}"
        )
    share = load / load.mean(axis=1, keepdims=True)
    hottest = np.argsort(-share, axis=None, kind="stable")[:HOTTEST].tolist()
    places = [divmod(place, load.shape[1]) for place in hottest]
    return [
        facts({name: _short(text) for name, text in said.items()}),
        _notes(recorded.notes),
        side_by_side(
            _both(lambda theme: pictures.expert_loads(recorded.windows, theme=theme)),
            table(
                "The hottest experts",
                ["layer", "expert", "times the mean", "of its layer"],
                [
                    [
                        str(ids[layer]),
                        str(expert),
                        f"{share[layer, expert]:.2f}",
                        f"{share[layer, expert] / load.shape[1]:.2%}",
                    ]
                    for layer, expert in places
                ],
            ),
        ),
        commands(typed.picture_in_python, "The picture again, in Python:"),
    ]


def _policies(found: Findings, typed: Typed) -> list[str]:
    compared, plan, load = found.compared, found.plan, found.recorded.load
    made = [row.name for row in compared.plans]
    moves = any(row.moved is not None for row in compared.plans)
    lines = [
        [
            row.name,
            f"{1 / row.summary.balancedness:.3f}",
            f"{row.summary.balancedness:.4f}",
            f"{row.summary.node_share:.3f}",
            str(row.summary.duplicates),
            *([str(row.moved)] if moves else []),
            "" if row.milliseconds is None else f"{row.milliseconds:.1f}",
        ]
        for row in compared.plans
    ]
    bound = [f"{1 / compared.at_most:.3f}", f"{compared.at_most:.4f}"]
    of = "the load" if found.recorded.steps is None else "the sum of all steps"
    lines.append(["at best, any plan", *bound, *[""] * (len(lines[0]) - 3)])
    header = ["plan", "busiest GPU", "balancedness", "busiest node", "duplicates"]
    said = {"deployment": said_deployment(found.topology), "slots": found.said_slots}
    said |= {"the plan": said_plan(found, typed), "its nodes": rows.nodes(plan, found.summary)}
    parts = [
        facts(rows.filled(said)),
        table(
            f"Plans for {of}. The busiest GPU and node are in times the mean.",
            [*header, *(["moved"] if moves else []), "ms to plan"],
            lines,
            best=made.index(compared.best.name),
        ),
        _notes(f"left out: {line}" for line in compared.left_out),
    ]
    first = _both(lambda theme: pictures.gpu_loads(plan, load, before=found.before, theme=theme))
    second = _both(lambda theme: pictures.replicas(plan, load, theme=theme))
    lines_to_type = [typed.compare(found.topology)]
    if compared.replays:
        # The others could not be told apart beside the experts in order.
        others = [row for row in compared.replays if row.name != IN_ORDER]
        drawn = {row.name: row.replay for row in others[:MOST_REPLAYS]}
        parts.append(_replays(compared))
        second += _both(lambda theme: pictures.replays(drawn, theme=theme))
        lines_to_type.append(typed.replay(found.topology, list(drawn)))
    return [*parts, side_by_side(first, second), commands(lines_to_type)]


def _replays(compared: Comparison) -> str:
    balance = [row.replay.balancedness for row in compared.replays]
    lines = [
        [
            row.name,
            f"{row.replay.balancedness:.4f}",
            f"{row.replay.window_balancedness.min():.4f}",
            f"{row.replay.moved_share:.2%}",
            f"{row.replay.milliseconds:.1f}",
        ]
        for row in compared.replays
    ]
    lines.append(["at best, any plans", f"{compared.replays_at_most:.4f}", "", "", ""])
    return table(
        "Ways to plan, each judged on steps that it had not seen.",
        ["planner", "balancedness", "lowest", "moved per replan", "ms to plan"],
        lines,
        best=balance.index(max(balance)),
    )


def _to_buy(found: Findings, typed: Typed) -> list[str]:
    swept, knee = found.swept, found.knee
    sized = knee.bytes_per_gpu is not None
    history = knee.next_windows is not None
    header = ["slots per GPU", "redundant", *(["memory per GPU"] if sized else [])]
    header += ["balancedness", "at most"]
    header += ["next steps", "moved per replan"] if history else []
    lines = [
        [
            str(row.slots_per_gpu),
            str(row.num_redundant),
            *([shown_bytes(row.bytes_per_gpu or 0)] if sized else []),
            f"{row.balancedness:.4f}",
            f"{row.at_most:.4f}",
            *([f"{row.next_windows:.4f}", f"{row.moved_share:.2%}"] if history else []),
        ]
        for row in swept.rows
    ]
    size = f", {shown_bytes(knee.bytes_per_gpu)} of weights" if knee.bytes_per_gpu else ""
    judged = "on steps that the plans were not made from" if history else "on the load itself"
    return [
        paragraph(
            f"{knee.slots_per_gpu} slots of a layer on each of {knee.num_gpus} GPUs{size}, with "
            f"the {knee.policy} policy: balancedness {knee.judged:.4f} {judged}. These are the "
            f"fewest slots within {found.within:.0%} of the best."
        ),
        table(
            f"Slots on {knee.num_gpus} GPUs. What to buy is marked.",
            header,
            lines,
            best=swept.rows.index(knee),
        ),
        _both(lambda theme: pictures.sweep_curves(swept, within=found.within, theme=theme)),
        commands([typed.sweep(found.topology)]),
    ]


def _to_move(found: Findings, typed: Typed) -> list[str]:
    plan, mends = found.plan, typed.current is not None
    fetched = moving.by_gpu(plan.moves_from(found.before), plan)
    busy = sorted(range(len(fetched)), key=lambda gpu: -fetched[gpu])[:MOST_BUSY_GPUS]
    start = "the plan in use" if mends else "experts in order, as serving stacks start,"
    parts = [
        paragraph(f"From {start} to {said_plan(found, typed)}:"),
        facts(moving.said(found.moved, plan)),
    ]
    if found.moved.fetched:
        nodes = plan.topology.gpus_per_node
        parts.append(
            table(
                "The GPUs that fetch most",
                ["GPU", "node", "replicas to fetch"],
                [[str(gpu), str(gpu // nodes), str(fetched[gpu])] for gpu in busy],
            )
        )
    parts.append(commands([typed.plan(found.topology), typed.show()]))
    if not mends:
        parts.append(commands(typed.start_in_python, "The plan to start from, in Python:"))
    return [*parts, commands([typed.diff()], "What changes, GPU by GPU with --by gpu:")]


def _both(draw: Callable[[ThemeName], Figure]) -> str:
    return picture(draw("light"), draw("dark"))


def _notes(notes: Iterable[str]) -> str:
    return bullets(_short(note) for note in list(notes)[:MOST_NOTES])


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
