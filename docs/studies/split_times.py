"""How long splits take, a plan made for them, and what follows from a split.

    python docs/studies/split_times.py times|costs [--loads FOLDER] [--layers 58]

Options and windows are those of `splitting.py`. `times` are those of compiled code in a loop, of
the first workload; `costs` those of calls from Python. One thread; the machine is the one that ran
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from split_rounds import EXPERTS_OF_TOKEN, KINDS, SHAPES, windows
from splitting import FIXED_SHAPES, HISTORY, LATER, Loads, main, plan_for, topology_of

import eplb_np
from eplb_np import Splitter, assign, make_quotas
from eplb_np.kernels import make_split_scratch, split_layer, split_layer_evenly

RANK_TOKENS = 128  # of each rank, in `costs`


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
    """Print how long the split of a layer takes, and a plan made for it."""
    plan_for(
        windows(profiles[0, :1], 2, "prefill", np.random.default_rng(0)),
        topology_of((320, 32), profiles.shape[2]),
        "best",
    )  # compiles or loads the kernels
    columns = ("deployment", "windows", "refined", "evened out", "made for it", "evened out",
               "ms a layer to plan")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|{'---|' * 4}--:|")
    for name, shape in SHAPES.items():
        for kind in KINDS:
            rng = np.random.default_rng(0)
            history = windows(profiles[0], HISTORY, kind, rng)
            judged = windows(profiles[0], LATER, kind, rng)
            topology = topology_of(shape, profiles.shape[2])
            cells = []
            for split in ("even", "best"):
                start = time.thread_time()  # of this thread alone, whatever else runs
                plan = plan_for(history, topology, split)
                milliseconds = 1e3 * (time.thread_time() - start) / len(history[0])
                cells += microseconds(plan, history.sum(axis=0).astype(np.float64), judged)
            cells.append(f"{milliseconds:.0f}")
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


def print_costs(profiles: Loads) -> None:
    """Print what one layer of one batch costs, called from Python: split, quotas, slots."""
    print("| deployment | split | evened out | quotas | slots of a rank's tokens | own GPU, % |")
    print(f"|---|{'--:|' * 5}")
    for name in FIXED_SHAPES:
        print(f"| {name} | {' | '.join(costs(profiles[0], SHAPES[name]))} |", flush=True)


def costs(profile: Loads, shape: tuple[int, ...]) -> list[str]:
    """Microseconds of calls for a batch of `RANK_TOKENS`, and the share that stays on its GPU."""
    rng = np.random.default_rng(0)
    topology = topology_of(shape, profile.shape[1])
    plan = plan_for(windows(profile, HISTORY, "decode", rng), topology, "best")
    splitter = Splitter(plan, profile)
    num_gpus, num_experts = topology.num_gpus, topology.num_experts
    scores = np.log(profile[0] + 1e-12) + rng.gumbel(size=(num_gpus, RANK_TOKENS, num_experts))
    topk_ids = np.argsort(-scores, axis=2)[:, :, :EXPERTS_OF_TOKEN]
    counts = np.array([np.bincount(ids.ravel(), minlength=num_experts) for ids in topk_ids])
    total = counts.sum(axis=0)
    slot_load = splitter.split_layer(0, total)
    quotas = make_quotas(plan, slot_load, counts, layer=0)
    gpu_of_slot = topology.gpu_of_slot
    own = sum(int(quotas[rank, gpu_of_slot == rank].sum()) for rank in range(num_gpus))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: splitter.split_layer(0, total, evened=False),
        lambda: splitter.split_layer(0, total),
        lambda: make_quotas(plan, slot_load, counts, layer=0),
        lambda: assign(topk_ids[0], quotas[0], plan.log2phy[0]),
    )
    cells = [f"{1e6 * fastest(call):.0f}" for call in calls]
    return [*cells, f"{100 * own / int(counts.sum()):.1f}"]


def fastest(call: Callable[[], Any], times: int = 2000) -> float:
    """Seconds of the fastest of many calls."""
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main({"times": print_times, "costs": print_costs})
