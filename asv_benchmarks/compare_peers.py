"""Compare the speed of eplb_np with other planners: one run, one process, one table.

    python asv_benchmarks/compare_peers.py --loads FOLDER [--rounds 60] [--markdown]

The contenders take turns in random order within each round, so that changes in the machine's speed
affect all alike. Each turn is one untimed and one timed call, on the load of the round. Slow
contenders take part in fewer rounds. All times are in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.common import DEPLOYMENTS
from peers import deepseek_python, numpy_batched, priority_queues

try:
    import eplb_np
except ImportError:
    eplb_np = None

Planner = Callable[..., object]
Times = dict[str, list[float]]
Table = list[list[str]]

BASELINES = ("hybrid", "hybrid l2p")  # the ratios are to these columns
SECONDS_PER_CELL = 1.5
MIN_ROUNDS = 3
SLEEP_SECONDS = 0.1
SLEEPING_CALLS = 30


class Case(NamedTuple):
    """One problem: all that a plan needs except the load."""

    name: str
    num_layers: int
    num_experts: int
    num_replicas: int
    num_groups: int
    num_nodes: int
    num_gpus: int

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, experts."""
        return self.num_layers, self.num_experts

    @property
    def topology(self) -> tuple[int, int, int, int]:
        """Replicas, groups, nodes, GPUs: the arguments that follow the load."""
        return self.num_replicas, self.num_groups, self.num_nodes, self.num_gpus


MAIN = [
    Case(name, *DEPLOYMENTS[f"DeepSeek-V3 {name}"])
    for name in ("288/8/4/32", "288 global 72", "288 global 32")
]
GROWTH = [  # pairs: a problem, and 16 times its experts, replicas and GPUs
    (MAIN[0], Case("16x: 4608/8/4/512", 58, 4096, 4608, 8, 4, 512)),
    (MAIN[1], Case("16x: 4608 global 1152", 58, 4096, 4608, 1, 1, 1152)),
]
LARGE = Case("64x4096, 6144 global 1024", *DEPLOYMENTS["large 6144 global 1024"])
SMALL = Case("1x64, 72 global 8", *DEPLOYMENTS["one layer 72 global 8"])

# The example in the README of deepseek-ai/EPLB.
EXAMPLE = Case("example", 2, 12, 16, 4, 2, 8)
EXAMPLE_LOAD = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
EXAMPLE_PHY2LOG = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def planners() -> dict[str, Planner | None]:
    """Every column of the table; None where eplb_np lacks the function.

    "l2p": ``log2phy`` is made too, as by ``eplb_np.rebalance_experts``. The other columns of
    eplb_np are ``make_plan``. ``deepseek_python`` always makes it, as published.
    """
    columns: dict[str, Planner | None] = {
        "deepseek_python": deepseek_python.rebalance_experts,
        "numpy_batched": partial(numpy_batched.rebalance_experts, with_log2phy=False),
        "numpy_batched l2p": numpy_batched.rebalance_experts,
        "C++": partial(priority_queues.rebalance_experts, with_log2phy=False),
        "C++ l2p": priority_queues.rebalance_experts,
    }
    has_plan = hasattr(eplb_np, "make_plan")
    has_triple = hasattr(eplb_np, "rebalance_experts")
    for policy in ("hybrid", "deepseek"):
        one = {"policy": policy, "num_threads": 1}
        two = {"policy": policy, "num_threads": 2}
        columns[policy] = partial(make_plan, **one) if has_plan else None
        columns[f"{policy} 2T"] = partial(make_plan, **two) if has_plan else None
        triple = partial(eplb_np.rebalance_experts, **one) if has_triple else None
        columns[f"{policy} l2p"] = triple
    return columns


def make_plan(
    load: np.ndarray, replicas: int, groups: int, nodes: int, gpus: int, **options: object
) -> object:
    """Call ``eplb_np.make_plan`` with the arguments in the order of ``rebalance_experts``."""
    return eplb_np.make_plan(
        load, num_replicas=replicas, num_groups=groups, num_nodes=nodes, num_gpus=gpus, **options
    )


def without(columns: dict[str, Planner | None], *names: str) -> dict[str, Planner | None]:
    """Leave some columns empty."""
    return columns | dict.fromkeys(names)


# ---------------------------------------------------------------------------------------------
# Loads
# ---------------------------------------------------------------------------------------------


def recorded_loads(folder: Path) -> list[np.ndarray]:
    """Read every file of ``{"logical_count": [layers][experts]}``."""
    counts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not counts:
        raise SystemExit(f"no .json file in {folder}")
    return [moe_layers(np.array(count["logical_count"])) for count in counts]


def moe_layers(load: np.ndarray) -> np.ndarray:
    """Leave the dense layers out, whose load is zero."""
    return load[load.any(axis=1)].astype(np.float32)


def synthetic_loads(case: Case, number: int = 6) -> list[np.ndarray]:
    """Draw seeded loads, if possible from the package's own model of DeepSeek-V3."""
    workloads = getattr(eplb_np, "workloads", None)
    if case.shape == MAIN[0].shape and hasattr(workloads, "deepseek_v3_load"):
        return [moe_layers(workloads.deepseek_v3_load(seed=seed)) for seed in range(number)]
    seeded = (np.random.default_rng(seed) for seed in range(number))
    return [rng.lognormal(5, 1, case.shape).astype(np.float32) for rng in seeded]


# ---------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------


def require(condition: bool, name: str, case: Case, claim: str) -> None:
    """Stop the script if a plan is not what it should be."""
    if not condition:
        raise SystemExit(f"{name}, {case.name}: {claim} does not hold")


def check_plan(plan: tuple, name: str, case: Case) -> None:
    """Check what every plan must satisfy, whatever the policy."""
    phy2log, log2phy, logcnt = plan
    layers = np.arange(case.num_layers)[:, None]
    counted = np.zeros(case.shape, np.int64)
    np.add.at(counted, (layers, phy2log), 1)
    require(phy2log.shape == (case.num_layers, case.num_replicas), name, case, "the shape")
    require(np.array_equal(counted, logcnt), name, case, "logcnt counts the slots")
    require(logcnt.min() >= 1, name, case, "every expert has a slot")
    if log2phy is not None:
        layer, expert, rank = np.nonzero(log2phy >= 0)
        own = phy2log[layer, log2phy[layer, expert, rank]] == expert
        require(own.all(), name, case, "log2phy points at the expert's slots")
        slots = np.sort(np.where(log2phy < 0, case.num_replicas, log2phy).reshape(len(layers), -1))
        every_slot = slots[:, : case.num_replicas] == np.arange(case.num_replicas)
        require(every_slot.all(), name, case, "log2phy names every slot")
    group = phy2log // (case.num_experts // case.num_groups)
    node = np.arange(case.num_replicas) * case.num_nodes // case.num_replicas
    home = np.full((case.num_layers, case.num_groups), -1)
    home[layers, group] = node
    require((home[layers, group] == node).all(), name, case, "a group stays on one node")


def check_planners(columns: dict[str, Planner | None], loads: dict[Case, list[np.ndarray]]) -> None:
    """Check that all plans are valid, and that all planners make the same deepseek plans."""
    problems = [(EXAMPLE, np.array(EXAMPLE_LOAD))]
    problems += [(case, load) for case in MAIN for load in loads[case]]
    for case, load in problems:
        reference = deepseek_python.rebalance_experts(load, *case.topology)
        for name, planner in columns.items():
            if planner is None:
                continue
            plan = planner(load, *case.topology)
            plan = plan if isinstance(plan, tuple) else (plan.phy2log, None, plan.logcnt)
            check_plan(plan, name, case)
            if not name.startswith("hybrid"):
                same = [
                    mine is None or np.array_equal(mine, theirs)
                    for mine, theirs in zip(plan, reference, strict=True)
                ]
                require(all(same), name, case, "the plan of deepseek_python")
            if case is EXAMPLE and not name.startswith("hybrid"):
                require(np.array_equal(plan[0], EXAMPLE_PHY2LOG), name, case, "the known answer")


# ---------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------


def time_call(planner: Planner, case: Case, load: np.ndarray) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    planner(load, *case.topology)
    return (time.perf_counter() - start) * 1e3


def take_turns(
    columns: dict[str, Planner | None], case: Case, loads: list[np.ndarray], rounds: int
) -> Times:
    """Measure all contenders side by side."""
    contenders = {name: planner for name, planner in columns.items() if planner}
    every = {}  # rounds from one turn of a contender to its next
    for name, planner in contenders.items():
        time_call(planner, case, loads[0])
        affordable = SECONDS_PER_CELL * 1e3 / time_call(planner, case, loads[0]) / 2
        every[name] = max(1, rounds // max(MIN_ROUNDS, int(affordable)))
    times: Times = {name: [] for name in contenders}
    rng = np.random.default_rng(0)
    for turn in range(rounds):
        for name in rng.permutation(list(contenders)):
            if turn % every[name] == 0:
                time_call(contenders[name], case, loads[(turn - 1) % len(loads)])
                times[name].append(time_call(contenders[name], case, loads[turn % len(loads)]))
    return times


def sleep_between(planner: Planner, case: Case, loads: list[np.ndarray]) -> list[float]:
    """Measure calls made every 100 ms, as in a server."""
    times = []
    for turn in range(SLEEPING_CALLS):
        time.sleep(SLEEP_SECONDS)
        times.append(time_call(planner, case, loads[turn % len(loads)]))
    return times


# ---------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------


def row(case: str, what: str, columns: dict[str, Planner | None], values: dict[str, float]) -> list:
    """One line: three digits, a dash where nothing was measured."""
    numbers = [f"{values[name]:#.3g}".rstrip(".") if name in values else "-" for name in columns]
    return [case, what, *numbers]


def ratios(values: dict[str, float], base: dict[str, float]) -> dict[str, float]:
    """Divide column by column, for columns that both have."""
    return {name: values[name] / base[name] for name in values if name in base}


def medians(times: Times) -> dict[str, float]:
    """Median of each column."""
    return {name: float(np.median(column)) for name, column in times.items()}


def case_rows(case: Case, columns: dict[str, Planner | None], times: Times) -> Table:
    """Median, minimum and ratios of the medians to eplb_np."""
    median = medians(times)
    rows = [
        row(case.name, "median ms", columns, median),
        row("", "min ms", columns, {name: min(column) for name, column in times.items()}),
    ]
    for name in BASELINES:
        if name in median:
            base = dict.fromkeys(median, median[name])
            rows.append(row("", f"ratio to {name}", columns, ratios(median, base)))
    return rows


def print_table(header: list[str], rows: Table, markdown: bool) -> None:
    """Print with aligned columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left, between, right = ("| ", " | ", " |") if markdown else ("", "  ", "")
    rule = ["-" * width for width in widths]
    if markdown:
        rule[2:] = [line[:-1] + ":" for line in rule[2:]]
    for line in [header, rule, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        print(left + between.join(cells) + right)


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=Path, help="folder of recorded loads (58 x 256), JSON")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()

    busy = os.getloadavg()[0]
    columns = planners()
    loads = {
        case: recorded_loads(options.loads) if options.loads else synthetic_loads(case)
        for case in MAIN
    }
    check_planners(columns, loads)

    rows: Table = []
    for case in MAIN:
        times = take_turns(columns, case, loads[case], options.rounds)
        rows += case_rows(case, columns, times)

    # The growth pairs and the rest are always synthetic: nobody has recorded 4096 experts.
    # Without log2phy, which is [L, E, P - E + 1] in the hybrid policy: gigabytes.
    quick = without(columns, "deepseek_python", *(name for name in columns if "l2p" in name))
    for small, large in GROWTH:
        before = take_turns(quick, small, synthetic_loads(small), options.rounds)
        after = take_turns(quick, large, synthetic_loads(large, 3), options.rounds // 2)
        rows += case_rows(large, columns, after)
        rows.append(row("", "times the small", columns, ratios(medians(after), medians(before))))
    times = take_turns(quick, LARGE, synthetic_loads(LARGE, 3), options.rounds // 2)
    rows += case_rows(LARGE, columns, times)
    times = take_turns(columns, SMALL, synthetic_loads(SMALL), 10 * options.rounds)
    rows += case_rows(SMALL, columns, times)

    server = {name: columns[name] for name in ("C++", "hybrid", "hybrid 2T") if columns[name]}
    hot = take_turns(server, MAIN[0], loads[MAIN[0]], options.rounds)
    asleep = {name: sleep_between(call, MAIN[0], loads[MAIN[0]]) for name, call in server.items()}
    rows += case_rows(MAIN[0]._replace(name=f"every 100 ms, {MAIN[0].name}"), columns, asleep)
    rows.append(row("", "times hot loop", columns, ratios(medians(asleep), medians(hot))))

    kind = "recorded" if options.loads else "synthetic"
    machine = f"{os.cpu_count()} CPUs, load average {busy:.1f} before the start"
    print(f"Loads: {kind}; {options.rounds} rounds; {machine}.\n")
    print_table(["case", "figure", *columns], rows, options.markdown)


if __name__ == "__main__":
    main()
