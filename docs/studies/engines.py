"""What each serving engine gains: loads as it hands them over, tokens as it dispatches them.

    python docs/studies/engines.py [--loads FOLDER] [--seeds 2] [--windows 19] [--only vLLM]

Draws traces as `replays.py` does; a window stands for 1,000 forward passes. Each engine starts from
its first map and plans when it would, from the windows that it would have seen: by its own policy
(DeepSeek's), and by ours as it is plugged in: without limits, and with at most 10 fetches for each
GPU and plan after the first one. Each window then is judged by a batch of 16,384 tokens drawn from
its shares, which are dispatched as the engine does it, in every sixth layer. Prints a Markdown
table for each engine, of means over the seeds: balancedness, the mean GPU's tokens over the busiest
one's; the percentage of slots for which a plan fetches weights, from the second plan on;
milliseconds to plan all layers.

Balance and moves are deterministic. The times are for the machine that ran it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from replays import read_profiles, topology_of

import eplb_np
from eplb_np import workloads
from eplb_np.engines import fastdeploy, sglang, sglang_jax
from eplb_np.engines.planning import Wishes, plan_for
from eplb_np.engines.tables import Tables, tables_of
from eplb_np.workloads.traces import Scenario

SCENARIOS: tuple[Scenario, ...] = ("switches", "ramps", "drift", "stationary")
JUDGED = ("288/8/4/32", "288 global 32")
NO_LIMITS, LIMITS = eplb_np.MoveLimits(), eplb_np.MoveLimits(per_gpu=10)
TOP_K = 8
NUM_TOKENS = 16384
LAYERS = slice(None, None, 6)  # that are judged

Ints = NDArray[np.int64]
Ask = Callable[[Ints, eplb_np.Topology, Ints], Tables]
"""Plan from windows [W, L, E], for a topology, with the map in use [L, P]."""


def deepseek(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
    return tables_of(eplb_np.make_plan(load.sum(axis=0), topology, policy="deepseek"))


def ours(limits: eplb_np.MoveLimits = NO_LIMITS) -> Ask:
    """Plan as the policies of vLLM and ATOM do."""

    def ask(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
        return tables_of(plan_for(load.sum(axis=0), topology, in_use, Wishes(limits)))

    return ask


def hook_of_sglang(**wishes: Any) -> Ask:
    """Call the hook with the map in use where SGLang keeps it."""

    def ask(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
        held = SimpleNamespace(physical_to_logical_map_cpu=in_use)
        sys.modules[sglang.LOCATION] = SimpleNamespace(  # type: ignore[assignment]
            get_global_expert_location_metadata=lambda: held
        )
        name = "deepseek" if topology.num_nodes == 1 else "deepseek_hierarchical"
        given = (load, topology.num_replicas, topology.num_replicas // topology.num_gpus,
                 topology.num_groups, topology.num_nodes, name)  # fmt: skip
        return Tables(*sglang.rebalance_experts(*given, **wishes))

    return ask


def hook_of_sglang_jax(*, weighted: bool) -> Ask:
    def ask(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
        name = "deepseek" if topology.num_nodes == 1 else "deepseek_hierarchical"
        return Tables(*sglang_jax.rebalance_experts(
            load.sum(axis=0), topology.num_replicas, topology.num_replicas // topology.num_gpus,
            topology.num_groups, topology.num_nodes, name, weighted=weighted,
        ))  # fmt: skip

    return ask


def own_of_fastdeploy(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
    """Plan with a group for each expert, as FastDeploy does."""
    nodes = topology.num_gpus // 8
    sizes = eplb_np.Topology(
        topology.num_experts, topology.num_replicas, topology.num_gpus, nodes, topology.num_experts
    )
    return deepseek(load, sizes, in_use)


def hook_of_fastdeploy(*, weighted: bool) -> Ask:
    def ask(load: Ints, topology: eplb_np.Topology, in_use: Ints) -> Tables:
        return Tables(*(table.astype(np.int64) for table in fastdeploy.rebalance_experts(
            load.sum(axis=0), topology.num_replicas, topology.num_experts,
            topology.num_gpus // 8, topology.num_gpus, weighted=weighted,
        )))  # fmt: skip

    return ask


class Dispatch(NamedTuple):
    """How an engine picks a slot: a near one first, then by token row or at random."""

    name: str
    near: str = "nothing"  # or "GPU", or "static": the GPU, the node, then a slot for each rank
    by_row: bool = False


class Engine(NamedTuple):
    """When an engine plans, from what, and how it dispatches."""

    name: str
    interval: int  # windows from plan to plan; 0 for a plan at start only
    summed: int  # windows that a plan is made from
    ways: dict[str, Ask]
    dispatches: tuple[Dispatch, ...]
    deployments: tuple[str, ...] = JUDGED


ROWS, RANDOM = Dispatch("token row", by_row=True), Dispatch("random")
OURS = {"own": deepseek, "ours": ours(), "limited": ours(LIMITS)}
ENGINES = (
    Engine("vLLM", 3, 1, OURS, (ROWS,)),
    Engine("ATOM", 3, 1, OURS, (Dispatch("own GPU, token row", "GPU", by_row=True),)),
    Engine(
        "SGLang", 1, 1,
        {"own": deepseek, "ours": hook_of_sglang(), "weighted": hook_of_sglang(weighted=True),
         "limited": hook_of_sglang(limits=LIMITS),
         "limited, weighted": hook_of_sglang(limits=LIMITS, weighted=True)},
        (Dispatch("dynamic, no all-to-all", by_row=True), Dispatch("dynamic, all-to-all"),
         Dispatch("static", "static")),
    ),
    Engine(
        "sglang-jax", 0, 1,
        {"own": deepseek, "ours": hook_of_sglang_jax(weighted=False),
         "weighted": hook_of_sglang_jax(weighted=True)},
        (Dispatch("dynamic"),),
    ),
    Engine(
        "FastDeploy", 3, 3,
        {"own": own_of_fastdeploy, "ours": hook_of_fastdeploy(weighted=False),
         "weighted": hook_of_fastdeploy(weighted=True)},
        (RANDOM,), ("288 global 32",),
    ),
)  # fmt: skip


def near_slots(tables: Tables, topology: eplb_np.Topology, how: str) -> Ints:
    """Slot that each rank uses for each expert whatever the token, [L, E, G]; -1 for none."""
    gpus, slots_of_gpu = topology.num_gpus, topology.num_replicas // topology.num_gpus
    gpu = np.where(tables.log2phy < 0, -1, tables.log2phy // slots_of_gpu)
    rng = np.random.default_rng(42)
    near = np.full((*tables.entries.shape, gpus), -1)
    for rank in range(gpus):
        own = gpu == rank
        held = own.any(axis=2)
        first = np.take_along_axis(tables.log2phy, own.argmax(axis=2)[..., None], axis=2)[..., 0]
        near[held, rank] = first[held]
    if how == "static":
        per_node = gpus // topology.num_nodes
        for rank in range(gpus):
            row = near[:, :, rank]
            on_node = (gpu // per_node == rank // per_node) & (gpu >= 0)
            narrows = on_node.any(axis=2) & (on_node.sum(axis=2) < tables.entries)
            choice = np.where(narrows, on_node.argmax(axis=2), rng.permuted(
                np.broadcast_to(np.arange(gpus), (*row.shape, gpus)), axis=2
            )[..., rank] % tables.entries)  # fmt: skip
            slot = np.take_along_axis(tables.log2phy, choice[..., None], axis=2)[..., 0]
            near[:, :, rank] = np.where(row < 0, slot, row)
    return near


def dispatched(counts: Ints, tables: Tables, topology: eplb_np.Topology, how: Dispatch) -> Ints:
    """Tokens of each GPU, [L, G], of a batch with these tokens for each expert, [L, E]."""
    rng = np.random.default_rng(7)
    slots = np.zeros(tables.phy2log.shape, np.int64)
    layers = np.arange(len(slots))[:, None]
    left = counts
    if how.near != "nothing":
        from_rank = rng.multinomial(counts, np.full(topology.num_gpus, 1 / topology.num_gpus))
        near = near_slots(tables, topology, how.near)
        held = near >= 0
        layer = np.broadcast_to(layers[..., None], near.shape)
        np.add.at(slots, (layer[held], near[held]), from_rank[held])
        left = np.where(held, 0, from_rank).sum(axis=2)
    rows, entries = np.full(left.shape, NUM_TOKENS), tables.entries
    for entry in range(tables.log2phy.shape[2]):
        used = entry < entries
        if how.by_row:  # an expert's tokens are rows drawn without replacement
            mine = np.where(used, (NUM_TOKENS - entry - 1) // entries + 1, 0)
            taken = rng.hypergeometric(mine, rows - mine, np.minimum(left, rows))
            rows = rows - mine
        else:
            taken = rng.binomial(left, np.where(used, 1 / np.maximum(entries - entry, 1), 0))
        np.add.at(slots, (np.broadcast_to(layers, left.shape), tables.log2phy[:, :, entry]), taken)
        left = left - taken
    return slots.reshape(len(slots), topology.num_gpus, -1).sum(axis=2)


def fetched_share(old: Ints, new: Ints, topology: eplb_np.Topology) -> float:
    """Share of the slots whose expert was not on their GPU before."""
    gpus = topology.num_gpus
    layer, slot = np.indices(new.shape)
    gpu = slot // (new.shape[1] // gpus)
    held = np.zeros((len(new), gpus, topology.num_experts), bool)
    held[layer, gpu, old] = True
    return float(1 - held[layer, gpu, new].mean())


class Served(NamedTuple):
    """What one way to plan gave on one trace, or on several."""

    balancedness: NDArray[np.float64]  # of each dispatch
    fetched: float  # mean share of a plan, without the first one
    seconds: float  # median of a plan

    @classmethod
    def mean_of(cls, several: Sequence[Served]) -> Served:
        """Mean over traces."""
        balancedness, fetched, seconds = zip(*several, strict=True)
        return cls(np.mean(balancedness, axis=0), float(np.mean(fetched)), float(np.mean(seconds)))


def serve(
    engine: Engine, way: str, trace: workloads.LoadTrace, topology: eplb_np.Topology
) -> Served:
    """Plan when the engine would, and judge every window after the first plan."""
    num_layers = trace.load.shape[1]
    in_use = np.tile(np.arange(topology.num_replicas) % topology.num_experts, (num_layers, 1))
    ask = engine.ways[way if way == "own" else "ours"]
    tables: Tables | None = None
    fetched, seconds = [], []
    mean, busiest = 0.0, np.zeros(len(engine.dispatches))
    first = max(engine.interval, 1)
    for window in range(first, len(trace.load)):
        if tables is None or (engine.interval and (window - first) % engine.interval == 0):
            if tables is not None or not engine.interval:
                ask = engine.ways[way]
            start = time.perf_counter()
            tables = ask(trace.load[window - engine.summed : window], topology, in_use)
            seconds.append(time.perf_counter() - start)
            fetched.append(fetched_share(in_use, tables.phy2log, topology))
            in_use = tables.phy2log
        share = trace.mean[window, LAYERS]
        rng = np.random.default_rng(window)
        counts = rng.multinomial(TOP_K * NUM_TOKENS, share / share.sum(axis=1, keepdims=True))
        judged = Tables(*(table[LAYERS] for table in tables))
        mean += counts.sum() / topology.num_gpus
        for number, dispatch in enumerate(engine.dispatches):
            gpus = dispatched(counts, judged, topology, dispatch)
            busiest[number] += gpus.max(axis=1).sum()
    return Served(mean / busiest, float(np.mean(fetched[1:] or 0)), float(np.median(seconds)))


def print_table(
    engine: Engine, profiles: NDArray[Any], num_seeds: int, num_windows: int,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> None:  # fmt: skip
    """Print the table of one engine: a row for each deployment, trace and dispatch."""
    dispatch = ["dispatch"] * (len(engine.dispatches) > 1)
    planned_again = [way for way in engine.ways if "weighted" not in way and engine.interval]
    timed = [way for way in engine.ways if way not in ("own", "limited", "limited, weighted")]
    head = ["deployment", "trace", *dispatch, *engine.ways]
    head += [f"% fetched, {way}" for way in planned_again] + [f"ms, {way}" for way in timed]
    print(f"| {' | '.join(head)} |")
    texts = 2 + len(dispatch)
    print(f"|{'---|' * texts}{'--:|' * (len(head) - texts)}")
    for deployment in engine.deployments:
        topology = topology_of(deployment, profiles.shape[2])
        for scenario in scenarios:
            traces = [
                workloads.scenario_trace(scenario, profiles, num_windows=num_windows, seed=seed)
                for seed in range(num_seeds)
            ]
            served = {
                way: Served.mean_of([serve(engine, way, trace, topology) for trace in traces])
                for way in engine.ways
            }
            for number, how in enumerate(engine.dispatches):
                cells = [deployment, scenario, *([how.name] if dispatch else [])]
                cells += [f"{result.balancedness[number]:.3f}" for result in served.values()]
                cells += [f"{100 * served[way].fetched:.1f}" for way in planned_again]
                cells += [f"{1e3 * served[way].seconds:.0f}" for way in timed]
                print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=Path, metavar="FOLDER", help="recorded loads")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=19)
    parser.add_argument("--only", choices=[engine.name for engine in ENGINES], metavar="ENGINE")
    options = parser.parse_args(arguments)
    eplb_np.warmup()
    profiles = read_profiles(options.loads)
    for engine in ENGINES:
        if options.only in (None, engine.name):
            print(f"\n{engine.name}\n")
            print_table(engine, profiles, options.seeds, options.windows)


if __name__ == "__main__":
    main()
