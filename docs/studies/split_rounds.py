"""How near the GPU's split is to the best one after a number of rounds, and how long its chain is.

    python docs/studies/split_rounds.py [LOADS ...]

LOADS are files that `eplb-np plan` can read; by default, the load that ships with the package.
Plans are refined, made from 8 windows drawn around the first load, and split for 16 other windows
of it: prefill (200,000 tokens) and decode (4,000 tokens), 8 experts a token. Excess is what the
busiest GPU has above the least that any split allows: over all layers, and in the worst one. Steps
are those between two barriers, of a layer and of the slowest layer of a batch, which is what a
launch waits for. Runs on the CPU, through the code that the GPU runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from ablation import read_or_make
from numpy.typing import NDArray

import eplb_np
from eplb_np.dispatch.cuda_graph import build_round_graphs
from eplb_np.dispatch.cuda_on_cpu import split_in_rounds
from eplb_np.dispatch.cuda_rounds import MOST_ROUNDS
from eplb_np.dispatch.split_cpu import make_split_scratch, split_layers
from eplb_np.dispatch.splitter import Splitter

SHAPES = {  # replicas, GPUs, nodes, groups
    "288/8/4/32": (288, 32, 4, 8),
    "288 global 32": (288, 32),
    "320 global 32": (320, 32),
    "320 global 64": (320, 64),
    "360 global 72": (360, 72),
    "288 global 72": (288, 72),
}
KINDS = {"prefill": (23_000, 200_000), "decode": (9_500, 4_000)}  # concentration, tokens
ROUNDS = (0, 1, 2, 4, 8, MOST_ROUNDS)
EXPERTS_OF_TOKEN = 8


def windows(
    load: NDArray[np.float64], number: int, kind: str, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw windows around a load: shares by Dirichlet's distribution, tokens by a multinomial."""
    concentration, tokens = KINDS[kind]
    share = load / load.sum(axis=1, keepdims=True)
    drawn = rng.gamma(np.maximum(share * concentration, 1e-9), size=(number, *share.shape))
    drawn /= drawn.sum(axis=2, keepdims=True)
    return np.asarray(rng.multinomial(EXPERTS_OF_TOKEN * tokens, drawn))


def main(paths: Sequence[str]) -> None:
    load = np.asarray(read_or_make(paths)[0], np.float64)
    print("| deployment | excess in %, mean (worst layer), after 0, 1, 2, 4, 8 rounds, and all |")
    print("| | rounds, mean / most | steps, mean / slowest layer of a batch / most |")
    for name, shape in SHAPES.items():
        for kind in KINDS:
            rng = np.random.default_rng(0)
            expected = windows(load, 8, kind, rng).sum(axis=0)
            plan = eplb_np.make_plan(
                expected, eplb_np.Topology(load.shape[1], *shape), policy="refined"
            )
            graph = Splitter(plan, expected).graph
            gpus = plan.topology.gpus
            rounds = build_round_graphs(plan.phy2log.astype(np.int64), gpus.first_slot, graph)
            scratch = make_split_scratch(graph, np.int64)
            best, found, steps = [], {most: [] for most in ROUNDS}, []
            slot_load = np.zeros(plan.phy2log.shape, np.int64)
            done = np.zeros((len(load), 3), np.int64)
            for counts in windows(load, 16, kind, rng):
                split_layers(graph, 0, counts, scratch, slot_load)
                best.append(largest(plan, slot_load))
                for most in ROUNDS:
                    split_in_rounds(counts, *rounds, most, slot_load, done)
                    found[most].append(largest(plan, slot_load))
                steps.append(done.copy())
            least = np.array(best)
            cells = [excess(np.array(found[most]), least) for most in ROUNDS]
            took = np.array(steps)
            cells.append(f"{took[:, :, 0].mean():.2f} / {took[:, :, 0].max()}")
            slowest = took[:, :, 1].max(axis=1)
            cells.append(f"{took[:, :, 1].mean():.0f} / {slowest.mean():.0f} / {slowest.max()}")
            print(f"| {name}, {kind} | {' | '.join(cells)} |")


def largest(plan: eplb_np.Plan, slot_load: NDArray[np.int64]) -> NDArray[np.int64]:
    """Load of each layer's busiest GPU."""
    return np.add.reduceat(slot_load, plan.topology.first_slots[:-1], axis=1).max(axis=1)


def excess(found: NDArray[np.int64], least: NDArray[np.int64]) -> str:
    """Percent above the least, over all layers and in the worst one."""
    return f"{100 * (found.sum() / least.sum() - 1):.2f} ({100 * (found / least - 1).max():.1f})"


if __name__ == "__main__":
    main(sys.argv[1:])
