"""Times of plans and splits on a GPU, measured by CUDA events and by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from eplb_np._cuda.device import require_device
from eplb_np._cuda.launch import configured
from eplb_np.cuda.planning import rebalance_experts, rebalance_experts_hierarchical
from eplb_np.cuda.splitting import GpuSplitter, assign
from eplb_np.planning import make_plan
from eplb_np.workloads.deployments import DEPLOYMENTS, Deployment

DIFFERENT_LOADS = 8
WARM_UP = 20
BUSY_STEPS = 1 << 21

SHAPES = {
    "58 layers, 288/8/4/32": DEPLOYMENTS["288/8/4/32"],
    "58 layers, 288 global 72": DEPLOYMENTS["288 global 72"],
    "one layer, 288/8/4/32": DEPLOYMENTS["288/8/4/32"]._replace(num_layers=1),
    "one layer, 288 global 72": DEPLOYMENTS["288 global 72"]._replace(num_layers=1),
    "64 x 4096, 6144 global 1024": DEPLOYMENTS["6144 global 1024"],
}
LARGEST_LOG2PHY = 1 << 28  # entries

SPLIT_SHAPES = {
    "288 global 32": DEPLOYMENTS["288 global 32"],
    "288/8/4/32": DEPLOYMENTS["288/8/4/32"],
    "320 global 64": DEPLOYMENTS["320 global 64"],
    "360 global 72": DEPLOYMENTS["360 global 72"],
}
BATCH_TOKENS = 8 * 4096
EXPERTS_OF_TOKEN = 8
"""Ids that `assign` is timed with: 4,096 tokens, 8 experts each."""


def print_times(say: Callable[[str], None], repeats: int) -> None:
    """Print a table of median times over random loads, in microseconds."""
    say("")
    say(
        "| plan | device, slots only | device, with log2phy | from Python, to buffers | to a Plan |"
    )
    say("|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        times = measure(shape, repeats)
        say(f"| {name} | " + " | ".join("-" if t is None else f"{t:.1f}" for t in times) + " |")


def measure(shape: Deployment, repeats: int) -> list[float | None]:
    """Median microseconds for one shape, one number per column of the table."""
    cuda = require_device()
    num_layers, num_experts = shape.num_layers, shape.num_experts
    sizes = shape.sizes
    rng = np.random.default_rng(0)
    host = [
        rng.lognormal(6.0, 1.0, (num_layers, num_experts)).astype(np.float32)
        for _ in range(DIFFERENT_LOADS)
    ]
    loads = [cuda.to_device(load) for load in host]
    slots = [cuda.device_array((num_layers, sizes[0]), np.int64) for _ in range(2)]
    logcnt = cuda.device_array((num_layers, num_experts), np.int64)
    scratch = None
    if num_experts > 1000:
        scratch = cuda.device_array(num_layers * (1 << 17), np.int64)
    options: dict[str, Any] = {"scratch": scratch, "check": False}

    def plan_slots(i: int) -> None:
        rebalance_experts_hierarchical(loads[i], *sizes, out=(*slots, logcnt), **options)

    times: list[float | None] = [device_time(plan_slots, repeats), None, None, None]
    width = sizes[0] - num_experts + 1
    if num_layers * num_experts * width <= LARGEST_LOG2PHY:
        log2phy = cuda.device_array((num_layers, num_experts, width), np.int64)

        def plan_maps(i: int) -> None:
            rebalance_experts(loads[i], *sizes, out=(slots[0], log2phy, logcnt), **options)

        times[1] = device_time(plan_maps, repeats)
        times[2] = host_time(plan_maps, repeats)

    def make_objects(i: int) -> None:
        make_plan(host[i], shape.topology, policy="hybrid", device="cuda")

    times[3] = host_time(make_objects, repeats)
    return times


def print_split_times(say: Callable[[str], None], repeats: int) -> None:
    """Print a table of median times of splits and of `assign`, in microseconds."""
    say("")
    say("| split | 58 layers | one layer | from Python, one layer | assign, device |")
    say("|---|---|---|---|---|")
    for name, shape in SPLIT_SHAPES.items():
        times = measure_splits(shape, repeats)
        say(f"| {name} | " + " | ".join(f"{t:.1f}" for t in times) + " |")


def measure_splits(shape: Deployment, repeats: int) -> list[float]:
    """Median microseconds for one shape, one number per column of the table.

    Batches are drawn around the load that the plan was made from, as decode batches are.
    """
    cuda = require_device()
    rng = np.random.default_rng(0)
    load = rng.lognormal(6.0, 1.0, (shape.num_layers, shape.num_experts))
    plan = make_plan(load, shape.topology, policy="refined")
    splitter = GpuSplitter(plan, load)
    share = load / load.sum(axis=1, keepdims=True)
    drawn = [rng.gamma(9_500 * share) for _ in range(DIFFERENT_LOADS)]
    host = [rng.multinomial(BATCH_TOKENS, d / d.sum(axis=1, keepdims=True)) for d in drawn]
    counts = [cuda.to_device(batch) for batch in host]
    rows = [cuda.to_device(batch[0]) for batch in host]
    slot_load = cuda.device_array(plan.phy2log.shape, np.int64)
    row_load = cuda.device_array(plan.phy2log.shape[1], np.int64)

    def split(i: int) -> None:
        splitter.split(counts[i], out=slot_load)

    def split_layer(i: int) -> None:
        splitter.split_layer(0, rows[i], out=row_load)

    routed = [rng.permutation(np.repeat(np.arange(shape.num_experts), b[0])) for b in host]
    ids = [cuda.to_device(r.reshape(-1, EXPERTS_OF_TOKEN)) for r in routed]
    quotas = [splitter.split_layer(0, row) for row in rows]
    table = cuda.to_device(plan.log2phy[0])
    slots = cuda.device_array(ids[0].shape, np.int64)
    scratch = cuda.device_array(2 * BATCH_TOKENS, np.int64)

    def assign_ids(i: int) -> None:
        assign(ids[i], quotas[i], table, out=slots, scratch=scratch)

    return [
        device_time(split, repeats),
        device_time(split_layer, repeats),
        host_time(split_layer, repeats),
        device_time(assign_ids, repeats),
    ]


def device_time(work: Callable[[int], None], repeats: int) -> float:
    """Median of the time that work takes on the device alone, in microseconds.

    The GPU is kept busy until all work is queued. So the events measure the work, and not how long
    Python takes to launch it.
    """
    from eplb_np._cuda.clock import keep_busy

    cuda = require_device()
    sink = cuda.device_array(1, np.float32)
    for i in range(WARM_UP):
        work(i % DIFFERENT_LOADS)
    cuda.synchronize()
    times: list[float] = []
    while len(times) < repeats:
        events = [(cuda.event(), cuda.event()) for _ in range(min(50, repeats))]
        configured(keep_busy, 1, 1, 0)(sink, BUSY_STEPS)
        for i, (start, end) in enumerate(events):
            start.record()
            work(i % DIFFERENT_LOADS)
            end.record()
        cuda.synchronize()
        times += [1e3 * start.elapsed_time(end) for start, end in events]
    return float(median(times))


def host_time(work: Callable[[int], object], repeats: int) -> float:
    """Median of the time from the call until the device is done, in microseconds."""
    cuda = require_device()
    times = []
    for i in range(WARM_UP + repeats):
        start = time.perf_counter()
        work(i % DIFFERENT_LOADS)
        cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start))
    return median(times[WARM_UP:])
