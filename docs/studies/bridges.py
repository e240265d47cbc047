"""What bridges would be worth: replicas on another node than their group's.

    python docs/studies/bridges.py [--loads FOLDER] [--every 5] [--rounds 60]

Plans 288/8/4/32 for the best split from 8 windows of a trace, on every fifth layer. Then lets some
redundant slots of each layer hold experts of other nodes' groups, and searches for the best places
by hill climbing, for each number of them anew; every expert keeps a replica at home. Judges the
plans on the 8 windows that follow, and counts the load that crosses: the (token, expert) pairs that
are served outside the node of the expert's group. Splits differ in that; "at least" is a lower
bound for any best split: what exceeds the room of the experts' own nodes.

The search is in plain Python and slow. It shows what there is to gain, not how to plan. The last
table, which `--package` prints alone, is of the plans that the package makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from replays import LOOKBACK, read_profiles, topology_of

import eplb_np
from eplb_np import workloads
from eplb_np.dispatch import Splitter
from eplb_np.forecast import LoadForecast
from eplb_np.workloads.traces import Scenario

DEPLOYMENT = "288/8/4/32"
BRIDGES = (0, 2, 4, 8, 16, 32)
SCENARIOS: tuple[Scenario, ...] = ("stationary", "decode")
NUM_SAMPLES = 12
WIDENING = 1.4  # of the noise: plans made for it hold better on other windows
NUM_CANDIDATES = 32
TRIES = 20

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


class Figures(NamedTuple):
    """Figures of a plan on the windows that follow; shares are of all load."""

    even: float
    best: float
    crossing: float
    least_crossing: float
    bridges: float  # in a layer, on average


def plan_of(rows: Ints, topology: eplb_np.Topology) -> eplb_np.Plan:
    """Make a plan, with ranks in the order of the slots."""
    order = np.argsort(rows, axis=1, kind="stable")
    by_expert = np.take_along_axis(rows, order, axis=1)
    place = np.arange(rows.shape[1])
    new = np.diff(by_expert, axis=1, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    rank = np.empty_like(rows)
    np.put_along_axis(rank, order, place - first, axis=1)
    return eplb_np.Plan(rows, rank, topology, "bridges")


class Bridging:
    """Plans of all layers while bridges are built.

    Letters: L layers, E experts, P slots, D GPUs, S samples.
    """

    def __init__(self, plan: eplb_np.Plan, samples: Doubles, seed: int) -> None:
        self.topology = plan.topology
        self.rows = plan.phy2log.astype(np.int64)  # [L, P]
        self.samples = samples  # [S, L, E]
        self.gpu = plan.topology.gpu_of_slot
        self.node = self.gpu // plan.topology.gpus_per_node  # [P]
        self.home = np.zeros(plan.logcnt.shape, np.int64)  # [L, E], node of the expert's group
        np.put_along_axis(self.home, self.rows, np.broadcast_to(self.node, self.rows.shape), 1)
        self.rng = np.random.default_rng(seed)
        self.time = self.times_of(self.rows, np.arange(len(self.rows)))

    def times_of(self, rows: Ints, layers: Ints) -> Doubles:
        """Mean time of the slowest GPU over the samples, for changed rows of layers."""
        splitter = Splitter(plan_of(rows, self.topology))
        total = np.zeros(len(rows))
        for sample in self.samples:
            slots = splitter.split(sample[layers], evened=False)
            total += np.add.reduceat(slots, self.topology.first_slots[:-1], axis=1).max(axis=1)
        mean: Doubles = total / len(self.samples)
        return mean

    def is_bridge(self, layer: int, row: Ints) -> NDArray[np.bool_]:
        """Which slots hold an expert whose group is on another node."""
        away: NDArray[np.bool_] = self.home[layer, row] != self.node
        return away

    def climb(self, num_bridges: int, num_rounds: int) -> None:
        """Make the best of some random moves in each layer, round after round."""
        for _ in range(num_rounds):
            sample = self.samples[self.rng.integers(len(self.samples))]
            binding = Splitter(plan_of(self.rows, self.topology)).binding_gpus(sample)
            rows, layers = [], []
            for layer in range(len(self.rows)):
                for _ in range(NUM_CANDIDATES):
                    row = self.moved(layer, binding[layer], sample[layer], num_bridges)
                    if row is not None:
                        rows.append(row)
                        layers.append(layer)
            if not rows:
                continue
            tried, layer_of = np.stack(rows), np.array(layers)
            time = self.times_of(tried, layer_of)
            for layer in range(len(self.rows)):
                of_layer = np.flatnonzero(layer_of == layer)
                if of_layer.size > 0:
                    best = of_layer[time[of_layer].argmin()]
                    if time[best] < self.time[layer] * (1 - 1e-7):
                        self.rows[layer], self.time[layer] = tried[best], time[best]

    def moved(
        self, layer: int, binding: NDArray[np.bool_], load: Doubles, num_bridges: int
    ) -> Ints | None:
        """Try a move that takes load out of the binding GPUs, or gives it a way out."""
        row, rng = self.rows[layer], self.rng
        outside = ~binding[self.gpu]
        stuck = np.ones(len(load), bool)
        stuck[row[outside]] = False  # they have a replica elsewhere
        inner = np.flatnonzero(stuck[row])
        weight = load[row[inner]] + 1e-9
        slot = int(rng.choice(inner, p=weight / weight.sum()))
        x = int(row[slot])
        kind = rng.choice(["bridge", "reassign", "swap"])
        if kind == "bridge":
            others = np.flatnonzero(outside & (self.node != self.home[layer, x]))
        else:
            others = np.flatnonzero(self.node == self.node[slot])
        count = np.bincount(row)
        bridge = self.is_bridge(layer, row)
        at_home = np.bincount(row[~bridge], minlength=len(load))
        for other in rng.permutation(others)[:TRIES]:
            z = row[other]
            there = row[self.gpu == self.gpu[other]]
            if x in there:
                continue
            result = row.copy()
            result[other] = x
            if kind == "swap":
                if z in row[self.gpu == self.gpu[slot]]:
                    continue
                result[slot] = z
            elif count[z] < 2 or (not bridge[other] and at_home[z] < 2):
                continue
            if self.is_bridge(layer, result).sum() <= num_bridges:
                return result
        return None

    def judge(self, windows: Doubles) -> Figures:
        """Judge the plans on other loads, [W, L, E]."""
        plan = plan_of(self.rows, self.topology)
        splitter = Splitter(plan)
        bridge = np.stack([self.is_bridge(i, row) for i, row in enumerate(self.rows)])
        num_gpus, num_nodes = self.topology.num_gpus, self.topology.num_nodes
        even = best = crossing = least = 0.0
        for load in windows:
            even += plan.gpu_load(load).max(axis=1).sum()
            slots = splitter.split(load)
            crossing += slots[bridge].sum()
            gpus = np.add.reduceat(slots, self.topology.first_slots[:-1], axis=1)
            longest = gpus.max(axis=1)
            best += longest.sum()
            for node in range(num_nodes):
                own = np.where(self.home == node, load, 0).sum(axis=1)
                least += np.maximum(own - longest * num_gpus / num_nodes, 0).sum()
        total = windows.sum()
        at_once = total / num_gpus
        num_bridges = bridge.sum() / len(bridge)
        return Figures(at_once / even, at_once / best, crossing / total, least / total, num_bridges)


def nodes_bound(bridging: Bridging, windows: Doubles) -> float:
    """Balancedness if each node's GPUs shared all load of its groups evenly."""
    num_gpus, num_nodes = bridging.topology.num_gpus, bridging.topology.num_nodes
    own = np.stack(
        [np.where(bridging.home == node, windows, 0).sum(axis=2) for node in range(num_nodes)]
    )
    longest = own.max(axis=0).sum() * num_nodes / num_gpus
    return float(windows.sum() / num_gpus / longest)


def draw_samples(share: Doubles, noise: float, rng: np.random.Generator) -> Doubles:
    """Loads that may come, [S, L, E], with the forecast as their mean."""
    drawn = rng.gamma(share / (noise * WIDENING**2), size=(NUM_SAMPLES, *share.shape))
    drawn /= drawn.sum(axis=2, keepdims=True)
    mean = drawn.mean(axis=0)
    factor = np.divide(share, mean, out=np.ones_like(share), where=mean > 0)
    result: Doubles = drawn * factor
    return result


def print_table(
    profiles: NDArray[Any], num_rounds: int, bridges: Sequence[int] = BRIDGES, seed: int = 0
) -> None:
    """Print a row for each trace and number of bridges."""
    columns = ("trace", "bridges allowed", "used", "even split", "best split", "nodes' bound")
    print(f"| {' | '.join((*columns, '% crossing', '% at least'))} |")
    print(f"|---|{'--:|' * 7}")
    topology = topology_of(DEPLOYMENT, profiles.shape[2])
    for scenario in SCENARIOS:
        trace = workloads.scenario_trace(scenario, profiles, num_windows=2 * LOOKBACK, seed=seed)
        history = trace.load[:LOOKBACK].astype(np.float32)
        windows = trace.load[LOOKBACK:].astype(np.float64)
        forecast = LoadForecast(*history.shape[1:])
        forecast.observe(history)
        expected = forecast.expected()
        share = np.asarray(expected.load, np.float64)
        share /= share.sum(axis=1, keepdims=True)
        noise = expected.noise or 1.0 / workloads.traces.CONCENTRATION
        plan = eplb_np.make_plan(history, topology, policy="refined", split="best")
        samples = draw_samples(share, noise, np.random.default_rng(seed))
        for number in bridges:
            bridging = Bridging(plan, samples, seed)
            bound = nodes_bound(bridging, windows)
            bridging.climb(number, num_rounds)
            found = bridging.judge(windows)
            cells = (
                scenario,
                str(number),
                f"{found.bridges:.1f}",
                f"{found.even:.3f}",
                f"{found.best:.3f}",
                f"{bound:.3f}",
                f"{100 * found.crossing:.1f}",
                f"{100 * found.least_crossing:.1f}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)


def print_package_table(
    profiles: NDArray[Any], bridges: Sequence[int] = (0, 4, 8, 16), seed: int = 0
) -> None:
    """Print what `make_plan` reaches with bridges."""
    print("| trace | bridges allowed | used | even split | best split | % crossing |")
    print(f"|---|{'--:|' * 5}")
    topology = topology_of(DEPLOYMENT, profiles.shape[2])
    for scenario in SCENARIOS:
        trace = workloads.scenario_trace(scenario, profiles, num_windows=2 * LOOKBACK, seed=seed)
        history = trace.load[:LOOKBACK].astype(np.float32)
        windows = trace.load[LOOKBACK:].astype(np.float64)
        for number in bridges:
            sizes = replace(topology, bridges=number)
            plan = eplb_np.make_plan(history, sizes, policy="refined", split="best")
            found = Bridging(plan, windows[:1], seed).judge(windows)
            crossing = sum(plan.crossing(load) * load.sum() for load in windows) / windows.sum()
            print(
                f"| {scenario} | {number} | {found.bridges:.1f} | {found.even:.3f} | "
                f"{found.best:.3f} | {100 * crossing:.1f} |",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=Path, metavar="FOLDER", help="recorded loads")
    parser.add_argument("--every", type=int, default=5, help="plan every n-th layer only")
    parser.add_argument("--rounds", type=int, default=60, help="of the search, for each row")
    parser.add_argument("--package", action="store_true", help="only what the package plans")
    options = parser.parse_args(arguments)
    profiles = read_profiles(options.loads)[:, :: options.every]
    if not options.package:
        print_table(profiles, options.rounds)
    print_package_table(profiles)


if __name__ == "__main__":
    main()
