"""What splitting batches gains, what a placement made for it gains, and how long a split takes.

    python docs/studies/splitting.py TABLE [--loads FOLDER] [--layers 58]

TABLE is one of `placement`, `late`, `spares`, `workloads`, `moves`, `costs` and `times`. FOLDER
holds recorded loads of several workloads, files that `eplb-np plan` can read; by default, workloads
are synthetic. Of their layers, as many as `--layers` says are taken, at equal distances.

Windows are drawn around a workload, as in `split_rounds.py`: of prefill (200,000 tokens) and of
decode (4,000), 8 experts a token. Every plan is judged on windows that it was not made from.
Balance is deterministic. Times are for one thread on the machine that ran it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from replays import read_profiles
from split_rounds import EXPERTS_OF_TOKEN, KINDS, SHAPES, largest, windows

import eplb_np
from eplb_np.dispatch import Splitter
from eplb_np.dispatch.evened_cpu import split_layer_evenly
from eplb_np.dispatch.split_cpu import make_split_scratch, split_layer
from eplb_np.replay import mending, replay

Loads = NDArray[np.float64]

HISTORY = 8  # windows that a plan is made from
LATER = 4  # windows that it is judged on
BATCHES = 10  # batches of each of them
BATCH_TOKENS = (4_000, 16_000, 64_000, 256_000)
SPARES = (0, 8, 16, 24, 32, 48, 64, 96, 128)
WAYS = ("even", "late", "best")
FEW_SPARES = "288 global 72"
FIXED_SHAPES = ("288 global 32", "360 global 72")
PRICES = (0.0, 0.005, 0.02, 0.05)  # in mean GPU loads


def topology_of(shape: tuple[int, ...], num_experts: int) -> eplb_np.Topology:
    """Topology of replicas, GPUs, nodes and groups; slots need not divide evenly among GPUs."""
    replicas, gpus = shape[:2]
    slots, more = divmod(replicas, gpus)
    uneven = None if more == 0 else [slots + (gpu < more) for gpu in range(gpus)]
    return eplb_np.Topology(num_experts, *shape, gpu_slots=uneven)


def longest(plan: eplb_np.Plan, slot_load: NDArray[Any]) -> float:
    """Load of the busiest GPU, summed over the layers."""
    return float(largest(plan, slot_load).sum())


def balance(plan: eplb_np.Plan, judged: NDArray[np.int64]) -> tuple[float, float]:
    """Balancedness of windows [W, L, E] under the even split and under the best one."""
    splitter = Splitter(plan, judged[0])
    even = sum(float(plan.gpu_load(load).max(axis=1).sum()) for load in judged)
    best = sum(longest(plan, splitter.split(load, evened=False)) for load in judged)
    mean = judged.sum() / plan.topology.num_gpus
    return mean / even, mean / best


def plan_for(history: NDArray[Any], topology: eplb_np.Topology, split: str) -> eplb_np.Plan:
    """Plan with the refined policy on one thread."""
    return eplb_np.make_plan(history, topology, policy="refined", split=split, num_threads=1)


def print_placement(profiles: Loads) -> None:
    """Plan for windows of each workload, and judge on later ones of it."""
    columns = ("deployment", "windows", "even, refined", "even, made for it",
               "best split, refined", "best split, made for it", "nodes' bound", "ms a layer")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|{'--:|' * (len(columns) - 2)}")
    for name, shape in SHAPES.items():
        splits = ("best", "certain") if name == FEW_SPARES else ("best",)
        for kind in KINDS:
            for split in splits:
                rows = [placement_of(profile, shape, kind, split) for profile in profiles]
                cells = [f"{value:.4f}" for value in np.mean([row[:5] for row in rows], axis=0)]
                cells[4] = "" if len(shape) == 2 else cells[4]
                seconds = float(np.median([row[5] for row in rows]))
                label = f'{name}, "certain"' if split == "certain" else name
                print(f"| {label} | {kind} | {' | '.join(cells)} | {1e3 * seconds / profiles.shape[1]:.0f} |", flush=True)


def placement_of(profile: Loads, shape: tuple[int, ...], kind: str, split: str) -> tuple[float, ...]:
    """Even and best split of the refined plan and of one made for the split, bound, seconds."""
    rng = np.random.default_rng(0)
    history = windows(profile, HISTORY, kind, rng)
    judged = windows(profile, LATER, kind, rng)
    topology = topology_of(shape, profile.shape[1])
    refined = balance(plan_for(history, topology, "even"), judged)
    start = time.perf_counter()
    plan = plan_for(history, topology, split)
    seconds = time.perf_counter() - start
    made = balance(plan, judged)
    return refined[0], made[0], refined[1], made[1], bound_of_nodes(plan, judged), seconds


def bound_of_nodes(plan: eplb_np.Plan, judged: NDArray[np.int64]) -> float:
    """Balancedness if every node were perfectly balanced within itself."""
    topology = plan.topology
    node_load = np.stack(
        [
            plan.gpu_load(load).reshape(-1, topology.num_nodes, topology.gpus_per_node).sum(axis=2)
            for load in judged
        ]
    )
    return float(node_load.mean(axis=2).sum() / node_load.max(axis=2).sum())


def late_balance(
    plan: eplb_np.Plan, expected: Loads, profile: Loads, kind: str, tokens: int
) -> dict[str, float]:
    """Balancedness of batches, split evenly, by shares of the batches before, and at its best.

    Batches come in windows of `BATCHES`, each of which has shares of its own.
    """
    rng = np.random.default_rng(1)
    splitter = Splitter(plan, expected)
    even = 1 / np.take_along_axis(plan.logcnt, plan.phy2log, axis=1)
    found = dict.fromkeys(WAYS, 0.0)
    total = 0
    for _ in range(LATER):
        share = rng.gamma(np.maximum(profile * KINDS[kind][0], 1e-9))
        share /= share.sum(axis=1, keepdims=True)
        for _ in range(BATCHES):
            counts = rng.multinomial(EXPERTS_OF_TOKEN * tokens, share)
            of_slot = np.take_along_axis(counts, plan.phy2log, axis=1)
            found["even"] += longest(plan, of_slot * even)
            found["late"] += longest(plan, of_slot * splitter.shares)
            found["best"] += longest(plan, splitter.split(counts, evened=False))
            total += int(counts.sum())
            splitter.observe(counts)
    return {way: total / plan.topology.num_gpus / found[way] for way in WAYS}


def batch_curves(profile: Loads, shape: tuple[int, ...], kind: str) -> dict[str, list[float]]:
    """Balancedness at each of `BATCH_TOKENS`, by plan ("even", "best") and way to split."""
    history = windows(profile, HISTORY, kind, np.random.default_rng(0))
    topology = topology_of(shape, profile.shape[1])
    curves: dict[str, list[float]] = {}
    for split in ("even", "best"):
        plan = plan_for(history, topology, split)
        for tokens in BATCH_TOKENS:
            found = late_balance(plan, history.sum(axis=0), profile, kind, tokens)
            for way in WAYS:
                curves.setdefault(f"{split} {way}", []).append(found[way])
    return curves


def print_late(profiles: Loads) -> None:
    """Print what is left of the gain if shares come late, by the size of batches."""
    ways = {"even": "even split", "late": "late shares", "best": "best split"}
    print(f"| deployment | windows | plan | {' | '.join(ways.values())} |")
    print(f"|---|---|---|{'---|' * len(ways)}")
    for name in FIXED_SHAPES:
        for kind in KINDS:
            curves = [batch_curves(profile, SHAPES[name], kind) for profile in profiles]
            for split, plan in (("even", "refined"), ("best", "made for it")):
                cells = [
                    " / ".join(f"{x:.3f}" for x in np.mean([c[f"{split} {w}"] for c in curves], 0))
                    for w in ways
                ]
                print(f"| {name} | {kind} | {plan} | {' | '.join(cells)} |", flush=True)


def spare_curves(profile: Loads, num_gpus: int, kind: str) -> dict[str, list[float]]:
    """Balancedness at each of `SPARES`, by plan ("even", "best") and split."""
    rng = np.random.default_rng(0)
    history = windows(profile, HISTORY, kind, rng)
    judged = windows(profile, LATER, kind, rng)
    num_experts = profile.shape[1]
    curves: dict[str, list[float]] = {}
    for spare in SPARES:
        topology = topology_of((num_experts + spare, num_gpus), num_experts)
        for split in ("even", "best"):
            even, best = balance(plan_for(history, topology, split), judged)
            curves.setdefault(f"{split} even", []).append(even)
            curves.setdefault(f"{split} best", []).append(best)
    return curves


def print_spares(profiles: Loads) -> None:
    """Print how balance rises with the number of spare slots."""
    ways = {"even even": "refined, even", "even best": "refined, best",
            "best best": "made for it, best"}  # fmt: skip
    print(f"| GPUs | windows | plan, split | {' | '.join(map(str, SPARES))} |")
    print(f"|--:|---|---|{'--:|' * len(SPARES)}")
    for num_gpus in (32, 72):
        for kind in KINDS:
            curves = [spare_curves(profile, num_gpus, kind) for profile in profiles]
            for way, label in ways.items():
                cells = [f"{x:.3f}" for x in np.mean([curve[way] for curve in curves], axis=0)]
                print(f"| {num_gpus} | {kind} | {label} | {' | '.join(cells)} |", flush=True)


def mixed(profiles: Loads) -> NDArray[np.int64]:
    """Two windows of prefill of each workload."""
    rng = np.random.default_rng(0)
    return np.concatenate([windows(profile, 2, "prefill", rng) for profile in profiles])


def balance_of_each(plan: eplb_np.Plan, profiles: Loads) -> NDArray[np.float64]:
    """Even and best split on later windows of each workload, and the worst layer's best, [K, 3]."""
    rng = np.random.default_rng(1)
    rows = []
    for profile in profiles:
        judged = windows(profile, LATER, "prefill", rng)
        splitter = Splitter(plan, judged[0])
        busiest = np.mean([largest(plan, splitter.split(x, evened=False)) for x in judged], axis=0)
        worst = judged.mean(axis=0).sum(axis=1) / plan.topology.num_gpus / busiest
        rows.append((*balance(plan, judged), worst.min()))
    return np.array(rows)


def print_workloads(profiles: Loads) -> None:
    """Plan once for all workloads, and once for all but one, and move nothing."""
    columns = ("deployment", "refined for the mean: even", "best split",
               "made for all: best split", "worst workload", "worst layer",
               "not seen before: best split", "worst workload not seen")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'--:|' * (len(columns) - 1)}")
    for name in ("288 global 32", "320 global 32", "360 global 72", FEW_SPARES, "288/8/4/32"):
        topology = topology_of(SHAPES[name], profiles.shape[2])
        history = mixed(profiles)
        refined = balance_of_each(plan_for(history.sum(axis=0), topology, "even"), profiles)
        made = balance_of_each(plan_for(history, topology, "best"), profiles)
        unseen = []
        for left_out in range(len(profiles)):
            seen = mixed(np.delete(profiles, left_out, axis=0))
            plan = plan_for(seen, topology, "best")
            unseen.append(balance_of_each(plan, profiles[left_out : left_out + 1])[0, 1])
        cells = (*refined.mean(axis=0)[:2], made[:, 1].mean(), made[:, 1].min(), made[:, 2].min(),
                 np.mean(unseen), np.min(unseen))  # fmt: skip
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |", flush=True)


def following(
    rebalancer: eplb_np.Rebalancer,
) -> Callable[[NDArray[np.float32], eplb_np.Plan | None], eplb_np.Plan]:
    """Plan as a `Rebalancer` proposes, for one replay."""
    seen = 0

    def plan(history: NDArray[np.float32], current: eplb_np.Plan | None) -> eplb_np.Plan:
        nonlocal seen
        for window in history[seen:]:
            rebalancer.observe(window)
        seen = len(history)
        return rebalancer.propose().plan

    return plan


def print_moves(profiles: Loads, num_windows: int = 40) -> None:
    """Print balance and moves on traces: mended evenly, mended for the split, and never moved."""
    columns = ("trace", "deployment", "plan", "balancedness", "worst window", "% of slots moved")
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|---|{'--:|' * 3}")
    num_layers, num_experts = profiles.shape[1:]
    known = [profile * 1e6 for profile in profiles]
    for scenario in ("drift", "ramps", "switches", "decode"):
        trace = eplb_np.workloads.scenario_trace(scenario, profiles, num_windows=num_windows)
        for name in FIXED_SHAPES:
            topology = topology_of(SHAPES[name], num_experts)
            mean = float(trace.load[0].sum(axis=1).mean()) / topology.num_gpus

            def rebalancer(
                price: float = 0.0,
                split: str = "best",
                told: Sequence[Loads] = (),
                topology: eplb_np.Topology = topology,
                mean: float = mean,
            ) -> eplb_np.Rebalancer:
                limits = eplb_np.MoveLimits(price=price * mean)
                made = eplb_np.Rebalancer(topology, num_layers, limits=limits, split=split)
                for load in told:
                    made.observe(load)
                return made

            made = plan_for(mixed(profiles), topology, "best")
            rows: list[tuple[str, Any, str]] = [
                ("mended, even split", mending(topology), "even"),
                ("mended, best split", mending(topology), "best"),
            ]
            rows += [
                (f"mended for the best split, price {price:g}", following(rebalancer(price)), "best")
                for price in PRICES
            ]
            rows += [
                ("the same, told the workloads", following(rebalancer(told=known)), "best"),
                ("made for the workloads, never moved", lambda *_, made=made: made, "best"),
            ]
            for label, planner, split in rows:
                result = replay(trace.load, planner, split=split)
                print(
                    f"| {scenario} | {name} | {label} | {result.balancedness:.4f} "
                    f"| {result.window_balancedness.min():.3f} | {100 * result.moved_share:.2f} |",
                    flush=True,
                )


@numba.njit(nogil=True)
def repeat_split(graph: Any, layer: int, counts: Any, scratch: Any, out: Any, times: int) -> None:
    for _ in range(times):
        for batch in range(counts.shape[0]):
            split_layer(graph, layer, counts[batch, layer], scratch, out)


@numba.njit(nogil=True)
def repeat_evened(graph: Any, layer: int, counts: Any, scratch: Any, out: Any, times: int) -> None:
    for _ in range(times):
        for batch in range(counts.shape[0]):
            split_layer_evenly(graph, layer, counts[batch, layer], scratch, out)


def microseconds(plan: eplb_np.Plan, expected: Loads, judged: NDArray[np.int64]) -> list[str]:
    """Median and worst layer, plain and evened out: from compiled code, integers, one thread."""
    graph = Splitter(plan, expected).graph
    scratch = make_split_scratch(graph, np.int64)
    out = np.zeros(plan.phy2log.shape[1], np.int64)
    cells = []
    for repeat in (repeat_split, repeat_evened):
        repeat(graph, 0, judged, scratch, out, 1)
        took = []
        for layer in range(len(plan.phy2log)):
            best = np.inf
            for _ in range(7):
                start = time.perf_counter()
                repeat(graph, layer, judged, scratch, out, 5)
                best = min(best, time.perf_counter() - start)
            took.append(1e6 * best / (5 * len(judged)))
        cells.append(f"{np.median(took):.1f} / {max(took):.1f}")
    return cells


def print_times(profiles: Loads) -> None:
    """Print how long the split of a layer takes."""
    columns = ("deployment", "windows", "refined", "evened out", "made for it", "evened out")
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|{'---|' * 4}")
    for name, shape in SHAPES.items():
        for kind in KINDS:
            rng = np.random.default_rng(0)
            history = windows(profiles[0], HISTORY, kind, rng)
            judged = windows(profiles[0], LATER, kind, rng)
            topology = topology_of(shape, profiles.shape[2])
            cells = []
            for split in ("even", "best"):
                plan = plan_for(history, topology, split)
                cells += microseconds(plan, history.sum(axis=0).astype(np.float64), judged)
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


def print_costs(profiles: Loads) -> None:
    """Print what one layer of one batch costs, called from Python: split, quotas, slots."""
    ranks_tokens = 128  # of each rank
    print("| deployment | split | evened out | quotas | slots of a rank's tokens | own GPU, % |")
    print(f"|---|{'--:|' * 5}")
    rng = np.random.default_rng(0)
    for name in FIXED_SHAPES:
        topology = topology_of(SHAPES[name], profiles.shape[2])
        plan = plan_for(windows(profiles[0], HISTORY, "decode", rng), topology, "best")
        splitter = Splitter(plan, profiles[0])
        share = profiles[0, 0] / profiles[0, 0].sum()
        logits = np.log(share) + rng.gumbel(size=(topology.num_gpus, ranks_tokens, len(share)))
        topk_ids = np.argsort(-logits, axis=2)[:, :, :EXPERTS_OF_TOKEN]
        counts = np.array([np.bincount(ids.ravel(), minlength=len(share)) for ids in topk_ids])
        total = counts.sum(axis=0)
        slot_load = splitter.split_layer(0, total)
        quotas = make_quotas(plan, slot_load, counts, layer=0)
        own = [quotas[r, a:b].sum() for r, (a, b) in enumerate(
            zip(topology.first_slots[:-1], topology.first_slots[1:], strict=True))]  # fmt: skip
        calls: tuple[Callable[[], Any], ...] = (
            lambda: splitter.split_layer(0, total, evened=False),
            lambda: splitter.split_layer(0, total),
            lambda: make_quotas(plan, slot_load, counts, layer=0),
            lambda: assign(topk_ids[0], quotas[0], plan.log2phy[0]),
        )
        cells = [f"{1e6 * fastest(call):.0f}" for call in calls]
        cells.append(f"{100 * np.sum(own) / counts.sum():.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def fastest(call: Callable[[], Any], times: int = 200) -> float:
    """Seconds of the fastest of many calls."""
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


TABLES: dict[str, Callable[[Loads], None]] = {
    "placement": print_placement,
    "late": print_late,
    "spares": print_spares,
    "workloads": print_workloads,
    "moves": print_moves,
    "times": print_times,
    "costs": print_costs,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for recorded or synthetic workloads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--loads", type=Path, help="folder of recorded loads")
    parser.add_argument("--layers", type=int, help="layers to take; by default all")
    options = parser.parse_args(arguments)
    profiles = read_profiles(options.loads).astype(np.float64)
    taken = options.layers or profiles.shape[1]
    layers = np.linspace(0, profiles.shape[1] - 1, taken).round().astype(np.int64)
    profiles = profiles[:, layers]
    profiles /= profiles.sum(axis=2, keepdims=True)
    TABLES[options.table](profiles)


if __name__ == "__main__":
    main()
