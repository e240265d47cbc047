"""What history and mending gain on traces, compared with planning from scratch and the ceiling.

    python docs/studies/replays.py [--loads FOLDER] [--seeds 5] [--windows 64] [--traces ramps]
    python docs/studies/replays.py --lost-gpu | --coming-back | --speeds [--loads FOLDER]

Draws traces of four scenarios around some workloads: the recorded loads in FOLDER (files that
`eplb-np plan` can read) or, by default, synthetic ones. Replays them on three deployments. From the
9th window on, a plan is made before every window and judged on the window itself. Prints a Markdown
table of means over the seeds, with the worst seed in brackets. Points are hundredths of
balancedness above DeepSeek's policy on the last 8 windows, which is what serving stacks do. Times
are medians over windows and seeds; in brackets is the median over seeds of the slowest replan.

With `--lost-gpu` it prints instead what losing a GPU takes, and getting it back; with
`--coming-back`, how many proposals groups need to go back to their nodes within limits; with
`--speeds`, how far above the lower bound plans for GPUs of different speeds end.

Balance and moves are deterministic. The times are for one thread on the machine that ran it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from ablation import read_or_make
from numpy.typing import NDArray

import eplb_np
from eplb_np import workloads
from eplb_np.replay import (
    Planner,
    Replay,
    knowing_the_future,
    mending,
    once,
    replanning,
    replay,
)
from eplb_np.workloads.deployments import DEPLOYMENTS
from eplb_np.workloads.traces import Scenario

LOOKBACK = 8
LOST_GPU = 5
TOTALS = (1000, 2000, 3000, 4000)  # limits on fetches when a GPU is lost
NUM_PROFILES = 6  # as many as there are recordings
SCENARIOS: tuple[Scenario, ...] = ("switches", "drift", "stationary", "decode")
REPLAYED = ("288 global 32", "288 global 72", "288/8/4/32")
MILLISECONDS = 20.0


class Goal(NamedTuple):
    """Goals: the least points above DeepSeek's policy, the most slots moved, in %."""

    points: float
    moved: float


GOALS = {
    scenario: dict(zip(REPLAYED, map(Goal, points, moved), strict=True))
    for scenario, points, moved in (
        ("switches", (1.5, 2.5, 0.5), (2, 5, 2)),
        ("drift", (-0.2, -0.2, -0.2), (2, 6, 2)),
        ("stationary", (0, 0, 0), (1, 4, 1)),
        ("decode", (0, 0, 0), (1, 4, 1)),
    )
}


class Cell(NamedTuple):
    """Replays of one trace on one deployment, by planner."""

    replays: dict[str, Replay]
    switches: tuple[int, ...]

    def points(self, planner: str) -> float:
        """Hundredths of balancedness above DeepSeek's policy."""
        deepseek = self.replays["deepseek"].balancedness
        return 100 * (self.replays[planner].balancedness - deepseek)

    def lost_at_switches(self) -> float:
        """Points lost in the windows in which a new workload begins, which nobody can foresee."""
        mended, ceiling = self.replays["mended"], self.replays["ceiling"]
        first = [switch - LOOKBACK for switch in self.switches]
        longest = mended.longest_time.copy()
        longest[first] = ceiling.longest_time[first]
        return 100 * (float(mended.mean_time.sum() / longest.sum()) - mended.balancedness)

    def moved(self, planner: str) -> float:
        """Percentage of all slots that are fetched at a replan."""
        return 100 * self.replays[planner].moved_share


def read_profiles(folder: Path | None) -> NDArray[np.float64]:
    """Loads of several workloads, [K, L, E]: the recordings in a folder, or synthetic ones."""
    if folder is None:
        return workloads.related_profiles(read_or_make([])[0], NUM_PROFILES)
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".npy", ".npz"))
    return np.stack([load.astype(np.float64) for load in read_or_make([*map(str, paths)])])


def topology_of(deployment: str, num_experts: int) -> eplb_np.Topology:
    """Topology of one of `DEPLOYMENTS`, for that many experts."""
    return replace(DEPLOYMENTS[deployment].topology, num_experts=num_experts)


def from_forecast(topology: eplb_np.Topology) -> Planner:
    """Plan from scratch from the forecast: what history is worth without mending."""

    def plan(history: NDArray[np.float32], current: eplb_np.Plan | None) -> eplb_np.Plan:
        return eplb_np.make_plan(history, topology, policy="refined")

    return plan


def planners(topology: eplb_np.Topology, trace: workloads.LoadTrace) -> dict[str, Planner]:
    """All planners that are compared, by name."""
    return {
        "never": once(topology),
        "deepseek": replanning(topology, "deepseek", LOOKBACK),
        "refined": replanning(topology, "refined", LOOKBACK),
        "forecast": from_forecast(topology),
        "mended": mending(topology),
        "ceiling": knowing_the_future(topology, trace.mean),
    }


def replay_all(topology: eplb_np.Topology, trace: workloads.LoadTrace) -> Cell:
    """Replay a trace with every planner, from the first window that has `LOOKBACK` before it."""
    return Cell(
        {
            name: replay(trace.load, planner, first_window=LOOKBACK)
            for name, planner in planners(topology, trace).items()
        },
        trace.switches,
    )


def table_row(scenario: str, deployment: str, cells: Sequence[Cell]) -> str:
    """Format the replays of several seeds as a row of the table."""
    goal = GOALS[scenario][deployment] if scenario in GOALS else None
    points = [cell.points("mended") for cell in cells]
    moved = [cell.moved("mended") for cell in cells]
    times = [1e3 * cell.replays["mended"].seconds for cell in cells]
    time = float(np.median(times))
    slowest = float(np.median(np.max(times, axis=1)))  # other programs disturb single runs
    missed = {
        "balance": goal is not None and statistics.mean(points) < goal.points,
        "moves": goal is not None and statistics.mean(moved) > goal.moved,
        "time": time > MILLISECONDS,
        "slowest": slowest > MILLISECONDS,
    }

    def mean(values: Iterator[float]) -> float:
        return statistics.mean(values)

    columns = (
        scenario,
        deployment,
        f"{mean(cell.replays['deepseek'].balancedness for cell in cells):.4f}",
        *(
            f"{mean(cell.points(planner) for cell in cells):+.2f}"
            for planner in ("never", "refined", "forecast")
        ),
        f"**{mean(iter(points)):+.2f}** ({min(points):+.2f})",
        f"{mean(cell.lost_at_switches() for cell in cells):.2f}",
        f"{mean(cell.points('ceiling') for cell in cells):+.2f}",
        f"{mean(cell.moved('deepseek') for cell in cells):.0f}",
        f"**{mean(iter(moved)):.2f}** ({max(moved):.2f})",
        f"{goal.points:+.1f}, {goal.moved} %" if goal else "",
        f"{time:.1f} ({slowest:.0f})",
        ", ".join(what for what, is_missed in missed.items() if is_missed) or "-",
    )
    return f"| {' | '.join(columns)} |"


HEADER = (
    "trace",
    "deployment",
    "deepseek",
    "never",
    "refined",
    "forecast",
    "mended",
    "at switches",
    "ceiling",
    "% moved, deepseek",
    "% moved, mended",
    "goal",
    "ms",
    "missed",
)


def print_table(
    profiles: NDArray[Any],
    num_seeds: int,
    num_windows: int,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> None:
    """Replay everything and print a row for each scenario and deployment."""
    eplb_np.warmup()
    print(f"| {' | '.join(HEADER)} |")
    print(f"|{'---|' * 2}{'--:|' * (len(HEADER) - 3)}---|")
    for scenario in scenarios:
        traces = [
            workloads.scenario_trace(scenario, profiles, num_windows=num_windows, seed=seed)
            for seed in range(num_seeds)
        ]
        for deployment in REPLAYED:
            topology = topology_of(deployment, profiles.shape[2])
            cells = [replay_all(topology, trace) for trace in traces]
            print(table_row(scenario, deployment, cells), flush=True)


def placement_of(plan: eplb_np.Plan) -> str:
    """Placement; with one node it is global, as in the names of the deployments."""
    return "global" if plan.topology.num_nodes == 1 else plan.placement


def print_lost_gpu(profiles: NDArray[Any]) -> None:
    """Lose a GPU after ten windows of a steady load, run without it for one, and get it back.

    Totals above what mending fetches without a limit are left out.
    """
    columns = ("deployment", "change", "placement", "placed again", "fetched", "balancedness")
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|---|{'--:|' * 3}")
    trace = workloads.scenario_trace("stationary", profiles, num_windows=13)
    for deployment in (*REPLAYED, "320/8/4/32"):
        topology = topology_of(deployment, profiles.shape[2])
        history, after = trace.load[:10], trace.load[10]
        others = [gpu for gpu in range(topology.num_gpus) if gpu != LOST_GPU]
        plan = eplb_np.make_plan(history, topology, policy="refined")
        repair_only = eplb_np.MoveLimits(total=0)
        options: dict[str, Any] = {"policy": "refined", "active_gpus": others}
        repaired = eplb_np.make_plan(history, current=plan, limits=repair_only, **options)
        mended = eplb_np.make_plan(history, current=plan, **options)
        from_scratch = eplb_np.make_plan(history, topology, **options)
        back = eplb_np.make_plan(history, topology, current=mended, policy="refined")
        changes = {"lost, repaired only": (plan, repaired)}
        for total in TOTALS:
            if total < mended.moves_from(plan).num_fetched:
                limits = eplb_np.MoveLimits(total=total)
                limited = eplb_np.make_plan(history, current=plan, limits=limits, **options)
                changes[f"lost, at most {total}"] = (plan, limited)
        changes["lost, mended"] = (plan, mended)
        if topology.num_nodes > 1 and mended.placement == "hierarchical":
            flat = replace(topology, num_nodes=1, num_groups=1)
            changes["lost, mended globally"] = (
                plan, eplb_np.make_plan(history, flat, current=plan, **options)
            )  # fmt: skip
        changes["lost, planned from scratch"] = (plan, from_scratch)
        changes["back, mended"] = (mended, back)
        print(f"| {deployment} | | {placement_of(plan)} | | | {plan.balancedness(after):.4f} |")
        for change, (old, new) in changes.items():
            moves = new.moves_from(old)
            lost = int((moves.source_gpu < 0).sum())
            balance = new.balancedness(after)
            print(
                f"| {deployment} | {change} | {placement_of(new)} | {lost} | {moves.num_fetched} "
                f"| {balance:.4f} |"
            )


def print_coming_back(profiles: NDArray[Any]) -> None:
    """Serve without a GPU for 30 windows, get it back, and propose until all groups are whole."""
    columns = ("limits", "proposals", "fetched", "balancedness before", "lowest")
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'--:|' * 4}")
    topology = topology_of("288/8/4/32", profiles.shape[2])
    load = workloads.scenario_trace("stationary", profiles, num_windows=2).load[0]
    others = [gpu for gpu in range(topology.num_gpus) if gpu != LOST_GPU]
    for limits in ({"per_gpu": 10}, {"total": 100}, {"per_gpu": 10, "total": 100}, {}):
        rebalancer = eplb_np.Rebalancer(topology, len(load), limits=eplb_np.MoveLimits(**limits))
        rebalancer.observe(load)
        before = rebalancer.propose().plan.balancedness(load)
        rebalancer.use_gpus(others)
        for _ in range(30):
            rebalancer.propose()
        rebalancer.use_gpus(None)
        proposals, fetched, lowest = 0, 0, 1.0
        moving = True
        while moving:
            proposal = rebalancer.propose()
            moving = "groups are still moving" in proposal.reason
            proposals += 1
            fetched += proposal.moves.num_fetched if proposal.moves else 0
            lowest = min(lowest, proposal.plan.balancedness(load))
        name = ", ".join(f"{limit}={number}" for limit, number in limits.items()) or "none"
        print(f"| {name} | {proposals} | {fetched} | {before:.3f} | {lowest:.3f} |")


def print_speeds(profiles: NDArray[Any]) -> None:
    """Plan each workload from scratch for GPUs of different speeds."""
    columns = ("deployment", "speeds", "% above the bound", "worst layer, %")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|--:|--:|")
    for deployment in REPLAYED:
        plain = topology_of(deployment, profiles.shape[2])
        num_gpus = plain.num_gpus
        half = num_gpus // 2
        spread = np.random.default_rng(0).normal(0, 0.1, num_gpus)
        speeds = {
            "all 1": [1.0] * num_gpus,
            "1 and 1.5 in turn": [1.0, 1.5] * half,
            "one of 0.5": [0.5] + [1.0] * (num_gpus - 1),
            "lognormal, 10 %": np.exp(spread).tolist(),
            "first half 1, others 1.5": [1.0] * half + [1.5] * half,
        }
        for name, gpu_speeds in speeds.items():
            topology = replace(plain, gpu_speeds=gpu_speeds)
            plans = [eplb_np.make_plan(load, topology, policy="refined") for load in profiles]
            longest, bound = np.array(
                [
                    (plan.gpu_time(load).max(axis=1), plan.lower_bound(load))
                    for plan, load in zip(plans, profiles, strict=True)
                ]
            ).swapaxes(0, 1)
            above = 100 * (longest.sum() / bound.sum() - 1)
            worst = 100 * ((longest / bound).max() - 1)
            print(f"| {deployment} | {name} | {above:.2f} | {worst:.1f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for recorded or synthetic workloads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=Path, metavar="FOLDER", help="recorded loads")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument(
        "--traces", nargs="+", choices=get_args(Scenario), default=SCENARIOS, metavar="SCENARIO"
    )
    parser.add_argument("--lost-gpu", action="store_true", help="lose a GPU instead")
    parser.add_argument("--coming-back", action="store_true", help="get it back, within limits")
    parser.add_argument("--speeds", action="store_true", help="GPUs of different speeds instead")
    options = parser.parse_args(arguments)
    profiles = read_profiles(options.loads)
    if options.lost_gpu:
        print_lost_gpu(profiles)
    elif options.coming_back:
        print_coming_back(profiles)
    elif options.speeds:
        print_speeds(profiles)
    else:
        print_table(profiles, options.seeds, options.windows, options.traces)


if __name__ == "__main__":
    main()
