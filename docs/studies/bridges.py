"""What bridges are worth: replicas on another node than their group's.

    python docs/studies/bridges.py [--loads FOLDER] [--every 5]

Plans 288/8/4/32 for the best split from 8 windows of a trace, on every fifth layer, with several
numbers of bridges. Judges the plans on the 8 windows that follow, and counts the load that crosses:
the (token, expert) pairs that are served outside the node of the expert's group. Splits differ in
that; "at least" is a lower bound for any best split: what exceeds the room of the experts' own
nodes. The nodes' bound is the balancedness of nodes that share no load.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replays import LOOKBACK, read_profiles, topology_of

import eplb_np
from eplb_np import workloads
from eplb_np.maps.homes import away_from_home, home_nodes
from eplb_np.workloads.traces import Scenario

DEPLOYMENT = "288/8/4/32"
BRIDGES = (0, 2, 4, 8, 16, 32)
SCENARIOS: tuple[Scenario, ...] = ("stationary", "decode")


def node_loads(plan: eplb_np.Plan, load: NDArray[Any]) -> NDArray[np.float64]:
    """Load of the groups that are at home on each node, [L, N]."""
    home = home_nodes(plan.phy2log, plan.topology)
    nodes = range(plan.topology.num_nodes)
    return np.stack([np.where(home == node, load, 0.0).sum(axis=1) for node in nodes], axis=1)


def print_table(profiles: NDArray[Any], bridges: Sequence[int] = BRIDGES, seed: int = 0) -> None:
    """Print a row for each trace and number of bridges."""
    columns = ("trace", "bridges allowed", "used", "even split", "best split", "nodes' bound")
    print(f"| {' | '.join((*columns, '% crossing', '% at least'))} |")
    print(f"|---|{'--:|' * 7}")
    topology = topology_of(DEPLOYMENT, profiles.shape[2])
    for scenario in SCENARIOS:
        trace = workloads.scenario_trace(scenario, profiles, num_windows=2 * LOOKBACK, seed=seed)
        history, windows = trace.load[:LOOKBACK], trace.load[LOOKBACK:].astype(np.float64)
        total = windows.sum()
        for number in bridges:
            sizes = replace(topology, bridges=number)
            plan = eplb_np.make_plan(history, sizes, policy="refined", split="best")
            used = away_from_home(plan.phy2log, sizes).sum() / plan.num_layers
            even = best = bound = crossing = least = 0.0
            for load in windows:
                own = node_loads(plan, load)
                longest = plan.gpu_load(load, split="best").max(axis=1)
                even += plan.gpu_load(load).max(axis=1).sum()
                best += longest.sum()
                bound += own.max(axis=1).sum() / sizes.gpus_per_node
                crossing += plan.crossing(load) * load.sum()
                least += np.maximum(own - longest[:, None] * sizes.gpus_per_node, 0).sum()
            ratios = (total / sizes.num_gpus / time for time in (even, best, bound))
            cells = [scenario, str(number), f"{used:.1f}", *(f"{ratio:.3f}" for ratio in ratios)]
            cells += [f"{100 * share / total:.1f}" for share in (crossing, least)]
            print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=Path, metavar="FOLDER", help="recorded loads")
    parser.add_argument("--every", type=int, default=5, help="plan every n-th layer only")
    options = parser.parse_args(arguments)
    print_table(read_profiles(options.loads)[:, :: options.every])


if __name__ == "__main__":
    main()
