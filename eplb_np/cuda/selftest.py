"""Check a GPU against the CPU, byte for byte, and measure it: ``python -m eplb_np.cuda.selftest``.

``--small`` makes a few small plans and measures nothing. It is meant for compute-sanitizer, which
makes everything a hundred times slower:

    compute-sanitizer --tool memcheck python -m eplb_np.cuda.selftest --small
    compute-sanitizer --tool racecheck python -m eplb_np.cuda.selftest --small
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np import __version__, cuda, published
from eplb_np._cuda import launch
from eplb_np._cuda.device import DeviceError, require_device, simulated
from eplb_np.cuda.timing import print_split_times, print_times
from eplb_np.dispatch.cuda_on_cpu import split_in_rounds
from eplb_np.dispatch.cuda_rounds import MOST_ROUNDS
from eplb_np.planning import make_plan
from eplb_np.workloads.deployments import DEPLOYMENTS, Deployment

Loads = NDArray[np.float32]

REAL = (
    "288/8/4/32", "288 global 72", "320 global 64", "384 global 128", "160 global 32",
    "448 global 64", "1536/16/4/256", "6144 global 1024",
)  # fmt: skip
MOST_SLOTS = 1 << 15
"""Slots of all layers together. Fewer layers of a real deployment are checked if it has more."""

KINDS_OF_LOADS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]] = {
    "ties": lambda rng, shape: rng.integers(0, 4, shape),
    "zeros": lambda rng, shape: rng.integers(0, 9, shape) * (rng.random((shape[0], 1)) < 0.5),
    "equal": lambda rng, shape: np.full(shape, 7.7),
    "one hot": lambda rng, shape: rng.integers(0, 9, shape) + 1e5 * (rng.random(shape) < 0.05),
    "ten decades": lambda rng, shape: 10.0 ** rng.uniform(-4, 6, shape),
    "subnormal": lambda rng, shape: rng.integers(0, 30, shape) * rng.choice([1e-40, 1e-9]),
    "tenths": lambda rng, shape: rng.integers(0, 40, shape) * 0.1,
    "tokens": lambda rng, shape: np.floor(rng.lognormal(6.0, 1.0, shape)),
    "signed zeros": lambda rng, shape: rng.choice([-0.0, 0.0, 1.0], shape),
}


def random_shapes(num_cases: int, seed: int, largest: int) -> Iterator[tuple[int, str, Deployment]]:
    """Yield the number, kind of load and sizes of random plans of up to ``largest`` experts."""
    names = list(KINDS_OF_LOADS)
    for case in range(num_cases):
        rng = np.random.default_rng([seed, case])
        num_nodes, node_gpus = int(rng.integers(1, 5)), int(rng.integers(1, 9))
        num_groups = int(
            num_nodes * rng.integers(1, 5) if rng.random() < 0.7 else rng.integers(1, 7)
        )
        group_size = int(rng.integers(1, max(2, largest // num_groups + 1)))
        num_gpus = num_nodes * node_gpus
        num_experts = num_groups * group_size
        slots = -(-num_experts // num_gpus) + int(rng.integers(0, 4))
        shape = Deployment(
            int(rng.integers(1, 5)), num_experts, slots * num_gpus, num_groups, num_nodes, num_gpus
        )
        yield case, names[case % len(names)], shape


def check_shape(loads: Loads, shape: Deployment) -> list[str]:
    """Names of the functions whose results on the GPU differ from those on the CPU."""
    sizes = shape[2:]
    wrong = []
    for policy in ("hybrid", "deepseek"):
        if loads.shape[0] * shape.num_experts * (shape.num_replicas - shape.num_experts) < 1 << 27:
            on_gpu = cuda.rebalance_experts(loads, *sizes, policy=policy, on_host=True)
            if not same(on_gpu, published.rebalance_experts(loads, *sizes, policy=policy)):
                wrong.append(f"rebalance_experts, {policy}")
    if shape.num_groups % shape.num_nodes == 0:
        slots = cuda.rebalance_experts_hierarchical(loads, *sizes, on_host=True)
        if not same(slots, published.rebalance_experts_hierarchical(loads, *sizes)):
            wrong.append("rebalance_experts_hierarchical")
    replicas = cuda.replicate_experts(loads, shape.num_replicas, on_host=True)
    if not same(replicas, published.replicate_experts(loads, shape.num_replicas)):
        wrong.append("replicate_experts")
    items = np.resize(loads, (loads.shape[0], shape.num_replicas))
    packs = cuda.balanced_packing(items, shape.num_gpus, on_host=True)
    if not same(packs, published.balanced_packing(items, shape.num_gpus)):
        wrong.append("balanced_packing")
    return wrong


def check_dispatch(loads: Loads, shape: Deployment, rng: np.random.Generator) -> list[str]:
    """Names of the functions that split a batch otherwise than the CPU does."""
    wrong = []
    plan = make_plan(loads, shape.topology, policy="hybrid")
    splitter = cuda.GpuSplitter(plan, loads)
    scale = 1e4 / max(float(loads.max()), 1e-9)
    counts = rng.poisson(loads * scale * rng.lognormal(0.0, 0.5, loads.shape))
    expected = np.empty(plan.phy2log.shape, np.int64)
    done = np.empty((len(counts), 3), np.int64)
    split_in_rounds(counts, *splitter.graphs, MOST_ROUNDS, expected, done)
    if not same([splitter.split(counts, on_host=True)], [expected]):
        wrong.append("GpuSplitter.split")
    layer = int(rng.integers(len(counts)))
    if not same([splitter.split_layer(layer, counts[layer], on_host=True)], [expected[layer]]):
        wrong.append("GpuSplitter.split_layer")
    num_ids = int(rng.integers(1, 40 if simulated() else 20_000))
    ids = rng.integers(-1, shape.num_experts, (num_ids, int(rng.integers(1, 9))))
    chosen = np.bincount(ids[ids >= 0], minlength=shape.num_experts)[None]
    quotas = splitter.split_layer(layer, chosen[0], on_host=True)
    slots = cuda.assign(ids, quotas, plan.log2phy[layer], on_host=True)
    if not same([slots], [assign_in_order(ids, quotas, plan.log2phy[layer])]):
        wrong.append("assign")
    return wrong


def assign_in_order(
    ids: NDArray[Any], quotas: NDArray[np.int64], log2phy: NDArray[Any]
) -> NDArray[Any]:
    """Assign slots as `eplb_np.cuda.assign` does, if the quotas add up to the ids."""
    slots = np.full(ids.size, -1, ids.dtype)
    by_expert = np.argsort(ids, axis=None, kind="stable")[np.count_nonzero(ids < 0) :]
    in_order = log2phy[log2phy >= 0]
    slots[by_expert] = np.repeat(in_order, quotas[in_order])
    return slots.reshape(ids.shape)


def same(on_gpu: Sequence[NDArray[Any]], on_cpu: Sequence[NDArray[Any]]) -> bool:
    """Whether all arrays have the same shape and bytes."""
    return all(
        (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()
        for a, b in zip(on_gpu, on_cpu, strict=True)
    )


def check(cases: Iterator[tuple[int, str, Deployment]], seed: int) -> int:
    """Check cases, print which are wrong, and return how many."""
    failures = 0
    for case, kind, shape in cases:
        rng = np.random.default_rng([seed, case, 1])
        loads = KINDS_OF_LOADS[kind](rng, shape[:2]).astype(np.float32)
        for name in (*check_shape(loads, shape), *check_dispatch(loads, shape, rng)):
            failures += 1
            say(f"WRONG: {name} of case {case} (seed {seed}, {kind}): {shape}")
    return failures


def say(line: str) -> None:
    """Print a line at once: under a sanitizer the next one may take long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 if all results are equal."""
    parser = argparse.ArgumentParser(prog="python -m eplb_np.cuda.selftest", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="random plans to check")
    parser.add_argument("--seed", type=int, default=0, help="of the random plans")
    parser.add_argument("--small", action="store_true", help="at most 20 small plans, no times")
    parser.add_argument("--threads", type=int, help="of each block, a power of two, 32 to 512")
    parser.add_argument("--repeats", type=int, default=100, help="of each measurement")
    options = parser.parse_args(arguments)
    try:
        target = require_device()
    except DeviceError as error:
        say(str(error))
        return 2
    launch.block_threads = options.threads
    small = options.small or simulated()
    say(f"eplb_np {__version__} on {describe(target)}")

    num_cases = min(options.cases, 20) if small else options.cases
    failures = check(random_shapes(num_cases, options.seed, 16 if small else 300), options.seed)
    say(f"{num_cases} random plans: {failures} results differ from the CPU's")
    if not small:
        real = ((1 + i, "tokens", real_shape(name)) for i, name in enumerate(REAL))
        real_failures = check(real, options.seed)
        say(f"{len(REAL)} real shapes: {real_failures} results differ from the CPU's")
        failures += real_failures
        print_times(say, options.repeats)
        print_split_times(say, options.repeats)
    return 1 if failures else 0


def real_shape(name: str) -> Deployment:
    """Return a deployment of the table, with as many layers as `MOST_SLOTS` allows."""
    deployment = DEPLOYMENTS[name]
    layers = min(deployment.num_layers, MOST_SLOTS // deployment.num_replicas)
    return deployment._replace(num_layers=layers)


def describe(target: Any) -> str:
    """Name the GPU, its driver and the implementation of ``numba.cuda``."""
    if simulated():
        return "Numba's simulator"
    device = target.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    major, minor = device.compute_capability
    version = target.cudadrv.driver.driver.get_version()
    implementation = getattr(target, "implementation", "Built-in")
    return (
        f"{name}, compute capability {major}.{minor}, driver for CUDA {version[0]}.{version[1]}, "
        f"numba.cuda {implementation}"
    )


if __name__ == "__main__":
    sys.exit(main())
