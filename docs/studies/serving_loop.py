"""A serving loop in one process: moves carried out on weights, and the same output throughout.

    python docs/studies/serving_loop.py [--overhead]

prints what `docs/serving.md` shows; with ``--overhead``, what the metrics cost. The loads are
drawn, with two changes of workload, and a GPU is lost and comes back. The weights are those of
small experts, in slots as an engine has them.

Letters: L layers, E logical experts, P slots, T tokens, K experts of a token.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import groupby

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

import eplb_np
from eplb_np import Moves, Plan, Proposal, Rebalancer, Topology, workloads
from eplb_np.engines.metrics import RebalancerMetrics

LAYERS, EXPERTS, SLOTS, GPUS, NODES = 4, 64, 80, 16, 2
TOKENS, CHOSEN, WIDTH, HIDDEN = 256, 2, 8, 16
WINDOWS = 24
LOST, LOST_AFTER, BACK_AFTER = 5, 11, 14  # a GPU, and windows
STORAGE = EMPTY = -1


class Engine:
    """The weights of all slots, and how they change; a checkpoint of all experts is in storage."""

    def __init__(self, topology: Topology, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.first_slots = topology.first_slots
        up = rng.normal(size=(LAYERS, EXPERTS, WIDTH, HIDDEN))
        down = rng.normal(size=(LAYERS, EXPERTS, HIDDEN, WIDTH))
        self.storage = [up.astype(np.float32), down.astype(np.float32)]
        # NaN wherever nothing was loaded, so that no output could hide its use.
        self.weights = [
            np.full((LAYERS, SLOTS, *part.shape[2:]), np.nan, np.float32) for part in self.storage
        ]
        self.holds = np.full((LAYERS, SLOTS), EMPTY)

    def load(self, plan: Plan) -> None:
        """Load a whole plan from storage."""
        layer = np.arange(LAYERS)[:, None]
        self.holds[:] = plan.phy2log
        for weights, storage in zip(self.weights, self.storage, strict=True):
            weights[:] = storage[layer, plan.phy2log]

    def carry_out(self, moves: Moves) -> None:
        """Make the moves layer by layer and step by step, without a buffer for more than a step."""
        for (layer, _), step in groupby(moves, key=lambda move: (move.layer, move.step)):
            held = set(self.holds[layer]) - {EMPTY}
            fetches = list(step)
            read = [self._read(layer, move.expert, move.source_slot) for move in fetches]
            for move, parts in zip(fetches, read, strict=True):
                self.holds[layer, move.slot] = move.expert
                for weights, part in zip(self.weights, parts, strict=True):
                    weights[layer, move.slot] = part
            assert held <= set(self.holds[layer]), "a last copy was overwritten"

    def _read(self, layer: int, expert: int, slot: int) -> list[np.ndarray]:
        if slot == STORAGE:
            assert expert not in self.holds[layer], "a GPU holds what comes from storage"
            return [part[layer, expert] for part in self.storage]
        assert self.holds[layer, slot] == expert, "the source holds another expert"
        return [part[layer, slot].copy() for part in self.weights]

    def lose(self, gpu: int) -> None:
        """A GPU is gone with all that it held."""
        slots = slice(*self.first_slots[gpu : gpu + 2])
        self.holds[:, slots] = EMPTY
        for part in self.weights:
            part[:, slots] = np.nan


class Batch:
    """Tokens of one batch, and the experts and gates that a router chose for them in each layer."""

    def __init__(self, share: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.normal(size=(TOKENS, WIDTH)).astype(np.float32)
        # The largest of shares with exponential clocks: K different experts, by their shares.
        clock = rng.exponential(size=(LAYERS, TOKENS, EXPERTS)) / share[:, None]
        self.experts = np.argsort(clock, axis=2)[..., :CHOSEN]
        self.gates = rng.dirichlet(np.ones(CHOSEN), (LAYERS, TOKENS)).astype(np.float32)

    def slots(self, plan: Plan) -> np.ndarray:
        """Slots [L, T, K]: the replicas of an expert take turns."""
        layer = np.arange(LAYERS)[:, None, None]
        turn = np.arange(TOKENS)[:, None] % plan.logcnt[layer, self.experts]
        return plan.log2phy[layer, self.experts, turn]

    def run(self, weights: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Run the layers one after the other, with the weights in the given rows [L, T, K]."""
        hidden = self.tokens
        for layer in range(LAYERS):
            up, down = (part[layer, rows[layer]] for part in weights)
            inner = np.maximum(np.einsum("tw,tkwh->tkh", hidden, up), 0)
            out = np.einsum("tkh,tkhw->tkw", inner, down)
            hidden = hidden + np.einsum("tk,tkw->tw", self.gates[layer], out) / HIDDEN
        return hidden


def serve(metrics: RebalancerMetrics, engine: Engine) -> Iterator[tuple[int, float, Proposal]]:
    """Serve every window, then plan for the next one; yields windows, balancedness, proposals."""
    profiles = workloads.related_profiles(workloads.skewed_load(LAYERS, EXPERTS), 2)
    trace = workloads.scenario_trace("switches", profiles, num_windows=WINDOWS)
    rebalancer = metrics.rebalancer
    engine.load(metrics.propose().plan)
    for window, (load, share) in enumerate(zip(trace.load, trace.mean, strict=True)):
        plan = rebalancer.current
        batch = Batch(share, seed=window)
        expected = batch.run(engine.storage, batch.experts)
        assert np.array_equal(batch.run(engine.weights, batch.slots(plan)), expected)
        seen = plan.balancedness(load)
        metrics.observe(load)
        if window == LOST_AFTER:
            engine.lose(LOST)
            rebalancer.use_gpus([gpu for gpu in range(GPUS) if gpu != LOST])
        if window == BACK_AFTER:
            rebalancer.use_gpus(None)
        proposal = metrics.propose()
        engine.carry_out(proposal.moves)
        assert np.array_equal(engine.holds, proposal.plan.phy2log)
        assert np.array_equal(batch.run(engine.weights, batch.slots(proposal.plan)), expected)
        yield window, seen, proposal


def row(window: int, seen: float, proposal: Proposal) -> str:
    """One line of the table."""
    moves = proposal.moves
    storage = int((moves.source_gpu == STORAGE).sum())
    why = "-" if proposal.stays else proposal.cause
    return (
        f"{window:6}  {seen:6.3f}  {len(moves):7}  {storage:7}  "
        f"{proposal.expected_balancedness:8.3f}  {why}"
    )


def exported(registry: CollectorRegistry) -> list[str]:
    """What a server exports, without explanations, buckets and times of creation."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not ("_bucket" in line or "_created" in line or "#" in line)]


def run() -> tuple[list[str], list[str]]:
    """Serve; return the table and the metrics."""
    topology = Topology(EXPERTS, SLOTS, GPUS, NODES)
    metrics = RebalancerMetrics(Rebalancer(topology, LAYERS), model="tiny")
    table = ["window    seen  fetches  storage  expected  why"]
    table += [row(*served) for served in serve(metrics, Engine(topology))]
    return table, exported(metrics.registry)


def milliseconds(planner: Rebalancer | RebalancerMetrics, loads: np.ndarray) -> list[float]:
    """Median time of `observe` and of `propose`, once something has been planned."""
    rows = []
    for load in loads:
        start = time.perf_counter()
        planner.observe(load)
        middle = time.perf_counter()
        planner.propose()
        rows.append((middle - start, time.perf_counter() - middle))
    return list(1e3 * np.median(rows[2:], axis=0))


def overhead(num_layers: int = 58, num_windows: int = 62) -> list[str]:
    """What the metrics cost on a large model."""
    base = workloads.skewed_load(num_layers, 256)
    loads = workloads.scenario_trace(
        "drift", workloads.related_profiles(base, 2), num_windows=num_windows
    ).load
    lines = ["                    observe  propose"]
    for name, sizes in {"288 global 32": (288, 32), "288/8/4/32": (288, 32, 4, 8)}.items():
        for metrics in (False, True):
            rebalancer = Rebalancer(Topology(256, *sizes), num_layers)
            planner = RebalancerMetrics(rebalancer) if metrics else rebalancer
            times = milliseconds(planner, loads)
            label = f"{name}{', metrics' if metrics else ''}"
            lines.append(f"{label:22}{times[0]:5.2f}{times[1]:9.2f}")
    return lines


if __name__ == "__main__":
    eplb_np.warmup()
    for lines in [overhead()] if sys.argv[1:] == ["--overhead"] else run():
        print(*lines, "", sep="\n")
