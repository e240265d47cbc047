"""Times of plans on a GPU, measured by CUDA events and by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from eplb_np._cuda.device import require_device
from eplb_np._cuda.launch import configured
from eplb_np.cuda.planning import rebalance_experts, rebalance_experts_hierarchical
from eplb_np.planning import make_plan
from eplb_np.topology import Topology

DIFFERENT_LOADS = 8
WARM_UP = 20
BUSY_STEPS = 1 << 21

# Layers, experts, replicas, groups, nodes, GPUs.
SHAPES = {
    "58 layers, 288/8/4/32": (58, 256, 288, 8, 4, 32),
    "58 layers, 288 global 72": (58, 256, 288, 1, 1, 72),
    "one layer, 288/8/4/32": (1, 256, 288, 8, 4, 32),
    "one layer, 288 global 72": (1, 256, 288, 1, 1, 72),
    "64 x 4096, 6144 global 1024": (64, 4096, 6144, 1, 1, 1024),
}
LARGEST_LOG2PHY = 1 << 28  # entries


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


def measure(shape: tuple[int, ...], repeats: int) -> list[float | None]:
    """Median microseconds for one shape, one number per column of the table."""
    cuda = require_device()
    num_layers, num_experts, *sizes = shape
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

    num_replicas, num_groups, num_nodes, num_gpus = sizes
    topology = Topology(num_experts, num_replicas, num_gpus, num_nodes, num_groups)
    times[3] = host_time(lambda i: make_plan(host[i], topology, device="cuda"), repeats)
    return times


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
