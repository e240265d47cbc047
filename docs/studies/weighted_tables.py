"""What tables with repeated slots gain where the engine cannot be changed, and what they lose.

    python docs/studies/weighted_tables.py [--loads FOLDER] [--seeds 2] [--windows 40]

Draws traces as `replays.py` does. From the 9th window on, judges the refined plan, made once or
mended before every window, on the window itself: with the even split, with tables of up to 16 and
32 entries for the forecast (`Plan.weighted_log2phy`), with the exact shares of the forecast, and
with the best split of the window, which no forecast reaches. An engine is taken to give each entry
of an expert's row the same number of tokens. Prints a Markdown table of means over the seeds, with
the largest loss of any window that the tables have against the exact shares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from replays import LOOKBACK, read_profiles, topology_of

import eplb_np
from eplb_np import workloads
from eplb_np.dispatch import Splitter
from eplb_np.forecast import LoadForecast
from eplb_np.replay import Planner, mending, once
from eplb_np.workloads.traces import Scenario

SCENARIOS: tuple[Scenario, ...] = ("switches", "ramps", "drift", "stationary", "decode")
JUDGED = ("288 global 32", "288 global 72", "360 global 72", "288/8/4/32")
WIDTHS = (16, 32)
COLUMNS = ("even", *(f"table, {width}" for width in WIDTHS), "exact shares", "best split")

Doubles = NDArray[np.float64]


class Judged(NamedTuple):
    """Times of the windows of one trace: of balanced GPUs [n], of the slowest [columns, n]."""

    mean: Doubles
    longest: Doubles

    @property
    def balancedness(self) -> Doubles:
        """Over all windows, one for each column."""
        result: Doubles = self.mean.sum() / self.longest.sum(axis=1)
        return result

    def largest_loss(self, column: str) -> float:
        """Largest loss of balancedness against the exact shares in any window."""
        exact = self.mean / self.longest[COLUMNS.index("exact shares")]
        loss = exact - self.mean / self.longest[COLUMNS.index(column)]
        return float(loss.max())


def topology_named(name: str, num_experts: int) -> eplb_np.Topology:
    """Topology of a deployment; that with 360 slots is not in the package's table."""
    if name == "360 global 72":
        return eplb_np.Topology(num_experts, 360, 72)
    return topology_of(name, num_experts)


def shares_of_table(plan: eplb_np.Plan, table: NDArray[np.signedinteger[Any]]) -> Doubles:
    """Share of its expert's load that each slot gets, [L, P], if entries get the same number."""
    num_layers, num_slots = plan.phy2log.shape
    layer, expert, _ = np.nonzero(table >= 0)
    slot = table[table >= 0]
    part = 1.0 / (table >= 0).sum(axis=-1)
    share = np.bincount(layer * num_slots + slot, part[layer, expert], num_layers * num_slots)
    return share.reshape(num_layers, num_slots)


def longest_time(plan: eplb_np.Plan, share: Doubles, load: Doubles) -> float:
    """Time of the slowest GPU, summed over the layers."""
    slots = share * np.take_along_axis(load, plan.phy2log, axis=1)
    gpus = np.add.reduceat(slots, plan.topology.first_slots[:-1], axis=1)
    return float(gpus.max(axis=1).sum())


def judge(trace: workloads.LoadTrace, planner: Planner) -> Judged:
    """Judge all columns on every window from `LOOKBACK` on."""
    forecast = LoadForecast(*trace.load.shape[1:])
    history = trace.load.astype(np.float32)
    forecast.observe(history[: LOOKBACK - 1])
    plan: eplb_np.Plan | None = None
    mean, longest = [], []
    for window in range(LOOKBACK, len(history)):
        forecast.observe(history[window - 1 : window])
        plan = planner(history[:window], plan)
        expected = forecast.expected().load.astype(np.float64)
        load = trace.load[window].astype(np.float64)
        tables = [plan.weighted_log2phy(expected, width) for width in WIDTHS]
        shares = [
            1.0 / np.take_along_axis(plan.logcnt, plan.phy2log, axis=1),
            *(shares_of_table(plan, table) for table in tables),
            Splitter(plan, expected).shares,
        ]
        mean.append(load.sum() / plan.topology.num_gpus)
        best = plan.gpu_load(load, split="best").max(axis=1).sum()
        longest.append([*(longest_time(plan, share, load) for share in shares), best])
    return Judged(np.array(mean), np.array(longest).T)


def print_table(
    profiles: NDArray[Any], num_seeds: int, num_windows: int, judged: Sequence[str] = JUDGED
) -> None:
    """Print a row for each trace, deployment and way to plan."""
    losses = [f"largest loss, {width}" for width in WIDTHS]
    print(f"| {' | '.join(('trace', 'deployment', 'plan', *COLUMNS, *losses))} |")
    print(f"|---|---|---|{'--:|' * (len(COLUMNS) + len(losses))}")
    for scenario in SCENARIOS:
        traces = [
            workloads.scenario_trace(scenario, profiles, num_windows=num_windows, seed=seed)
            for seed in range(num_seeds)
        ]
        for name in judged:
            topology = topology_named(name, profiles.shape[2])
            for kind, planner_of in (("never moved", once), ("mended", mending)):
                runs = [judge(trace, planner_of(topology)) for trace in traces]
                cells = np.mean([run.balancedness for run in runs], axis=0)
                lost = [
                    max(run.largest_loss(f"table, {width}") for run in runs) for width in WIDTHS
                ]
                figures = [f"{cell:.3f}" for cell in cells] + [f"{loss:.4f}" for loss in lost]
                print(f"| {' | '.join((scenario, name, kind, *figures))} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=Path, metavar="FOLDER", help="recorded loads")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=40)
    options = parser.parse_args(arguments)
    print_table(read_profiles(options.loads), options.seeds, options.windows)


if __name__ == "__main__":
    main()
