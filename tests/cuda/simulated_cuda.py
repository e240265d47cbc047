"""What `test_simulator` runs in Numba's CUDA simulator: one check by name, in this process.

The kernels are plain Python there, and each thread of a block is a thread of Python's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import naive
import naive_split
import numpy as np
from cases import PRECISION_CASES, packing_cases, random_cases, replication_cases
from numba import cuda as numba_cuda
from round_cases import round_cases, split
from support import assert_same, refused

import eplb_np
from eplb_np import cuda
from eplb_np._cuda import launch
from eplb_np.cuda import splitting
from eplb_np.stages.sorting import cuda as sorting

LOADS_AND_LAYOUTS = 13  # in as many cases, every kind of load and every layout occurs


@contextmanager
def in_global_memory() -> Iterator[None]:
    """Run kernels in the form for rows that are too large for shared memory."""
    shared, launch.SHARED_BYTES = launch.SHARED_BYTES, 0
    try:
        yield
    finally:
        launch.SHARED_BYTES = shared


@contextmanager
def sorted_in_network() -> Iterator[None]:
    """Let few keys, too, be sorted as many are."""
    most, sorting.MOST_RANKED = sorting.MOST_RANKED, 0
    try:
        yield
    finally:
        sorting.MOST_RANKED = most


def packing() -> None:
    for case in (*packing_cases(4 * LOADS_AND_LAYOUTS, 50, max_rows=2), *PRECISION_CASES):
        expected = naive.balanced_packing(*case.args)
        assert_same(cuda.balanced_packing(*case.args, on_host=True), expected, case.id)


def replication() -> None:
    for case in replication_cases(3 * LOADS_AND_LAYOUTS, 51, max_rows=2):
        expected = naive.replicate_experts(*case.args)
        assert_same(cuda.replicate_experts(*case.args, on_host=True), expected, case.id)


def plans(policy: str) -> None:
    for case in random_cases(3 * LOADS_AND_LAYOUTS, 52, max_experts=16, max_layers=2):
        expected = naive.rebalance_experts(*case.args, policy=policy)
        planned = cuda.rebalance_experts(*case.args, policy=policy, on_host=True)
        assert_same(planned, expected, case.id)


def hybrid() -> None:
    plans("hybrid")


def deepseek() -> None:
    plans("deepseek")


def hierarchical() -> None:
    for case in random_cases(2 * LOADS_AND_LAYOUTS, 53, max_experts=16, max_layers=2):
        if not case.is_global:
            expected = naive.rebalance_experts_hierarchical(*case.args)
            planned = cuda.rebalance_experts_hierarchical(*case.args, on_host=True)
            assert_same(planned, expected, case.id)


def large_rows() -> None:
    """The same from global memory, where the block's memory is not shared memory."""
    with in_global_memory():
        for case in random_cases(LOADS_AND_LAYOUTS, 54, max_experts=12, max_layers=3):
            for policy in ("hybrid", "deepseek"):
                expected = naive.rebalance_experts(*case.args, policy=policy)
                planned = cuda.rebalance_experts(*case.args, policy=policy, on_host=True)
                assert_same(planned, expected, case.id)
        case = next(packing_cases(1, 55))
        expected = naive.balanced_packing(*case.args)
        assert_same(cuda.balanced_packing(*case.args, on_host=True), expected, case.id)
        case = next(replication_cases(1, 55))
        expected = naive.replicate_experts(*case.args)
        assert_same(cuda.replicate_experts(*case.args, on_host=True), expected, case.id)


def many_keys() -> None:
    """The same where keys are as many as a network sorts."""
    with sorted_in_network():
        for case in random_cases(LOADS_AND_LAYOUTS, 57, max_experts=12, max_layers=2):
            for policy in ("hybrid", "deepseek"):
                expected = naive.rebalance_experts(*case.args, policy=policy)
                planned = cuda.rebalance_experts(*case.args, policy=policy, on_host=True)
                assert_same(planned, expected, case.id)


def real_layers() -> None:
    """One layer of a real deployment, hierarchical and global."""
    load = np.floor(np.random.default_rng(56).lognormal(6.0, 1.0, (1, 256)))
    for sizes in ((288, 8, 4, 32), (288, 1, 1, 72)):
        for policy in ("hybrid", "deepseek"):
            expected = naive.rebalance_experts(load, *sizes, policy=policy)
            planned = cuda.rebalance_experts(load, *sizes, policy=policy, on_host=True)
            assert_same(planned, expected, f"{sizes} {policy}")


LOAD = np.arange(24.0).reshape(2, 12) % 7
SIZES = 16, 4, 2, 4
EXPECTED = naive.rebalance_experts(LOAD, *SIZES)


def arrays_on_the_gpu() -> None:
    """Loads of any real dtype and layout go in, arrays that can be passed on come out."""
    for dtype in (np.float32, np.float64, np.float16, np.int32):
        loads = numba_cuda.to_device(LOAD.astype(dtype))
        planned = cuda.rebalance_experts(loads, *SIZES)
        assert all(hasattr(array, "copy_to_host") for array in planned)
        assert_same([array.copy_to_host() for array in planned], EXPECTED, str(dtype))
    wide = numba_cuda.to_device(np.repeat(LOAD, 2, axis=1).astype(np.float32))
    strided = cuda.rebalance_experts(wide[:, 1::2], *SIZES, on_host=True)
    assert_same(strided, EXPECTED, "strided")


def output_buffers() -> None:
    """Results go where the caller says, in its integer type."""
    loads = numba_cuda.to_device(LOAD.astype(np.float32))
    for policy in ("hybrid", "deepseek"):
        out = [numba_cuda.device_array(e.shape, np.int32) for e in EXPECTED]
        given = cuda.rebalance_experts(loads, *SIZES, policy=policy, out=out, check=False)
        assert all(a is b for a, b in zip(given, out, strict=True))
        expected = naive.rebalance_experts(LOAD, *SIZES, policy=policy)
        width = expected[1].shape[2]
        host = [array.copy_to_host() for array in out]
        assert (host[1][:, :, width:] == -1).all()
        host[1] = host[1][:, :, :width]
        assert_same(host, [e.astype(np.int32) for e in expected], policy)
    planned = cuda.replicate_experts(loads, 16, dtype=np.int32, on_host=True)
    expected = [e.astype(np.int32) for e in naive.replicate_experts(LOAD, 16)]
    assert_same(planned, expected, "int32")

    with refused("out has 2 arrays", "phy2log, log2phy, logcnt"):
        cuda.rebalance_experts(loads, *SIZES, out=out[:2])
    with refused("out's phy2log has shape (2, 12)", "(2, 16)"):
        cuda.rebalance_experts(loads, *SIZES, out=[out[2], out[1], out[0]])
    with refused("out's phy2log is not an array on the GPU"):
        cuda.rebalance_experts(loads, *SIZES, out=EXPECTED)
    with in_global_memory():
        scratch = numba_cuda.device_array(1000, np.int64)
        cuda.rebalance_experts(loads, *SIZES, out=out, scratch=scratch)
        assert_same([out[0].copy_to_host()], [EXPECTED[0].astype(np.int32)], "scratch")
        with refused("scratch has shape (9,)", "int64 on the GPU"):
            cuda.rebalance_experts(loads, *SIZES, out=out, scratch=scratch[:9])
        with refused("scratch is not an array on the GPU"):
            cuda.rebalance_experts(loads, *SIZES, out=out, scratch=np.empty(1000, np.int64))


def bad_input() -> None:
    """Errors say the same as on the CPU, wherever the loads are."""
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of NaN: a GPU has none
    for value in (np.nan, np.inf, -1.0, 1e39):
        load = LOAD.copy()
        load[1, 3] = value
        for place in (np.asarray, numba_cuda.to_device):
            with refused("weight[1, 3]"):
                cuda.rebalance_experts(place(load), *SIZES)
    with refused("weight: the loads of layer 0 add up"):
        cuda.balanced_packing(numba_cuda.to_device(np.full((1, 4), 1e38, np.float32)), 2)
    with refused("num_phy=3", "12 experts"):
        cuda.replicate_experts(numba_cuda.to_device(LOAD), 3)
    with refused("weight has 1 dimension"):
        cuda.replicate_experts(numba_cuda.to_device(LOAD[0]), 13)
    with refused("num_gpus=3 is not a multiple of num_nodes=2"):
        cuda.rebalance_experts(LOAD, 16, 4, 2, 3)
    with refused("policy='refined'", "CPU"):
        cuda.rebalance_experts(LOAD, *SIZES, policy="refined")
    with refused("too many for the GPU's kernels"):
        cuda.replicate_experts(np.ones((1, 100_000)), 200_000)
    # What is not looked through makes a plan of no value, but no crash.
    load = LOAD.astype(np.float32)
    load[0, :4] = np.nan, np.inf, -np.inf, -1
    phy2log = cuda.rebalance_experts(numba_cuda.to_device(load), *SIZES, check=False)[0]
    assert_same([phy2log.copy_to_host()[1]], [EXPECTED[0][1]], "the sound layer")


def plan_objects() -> None:
    """`make_plan` on the GPU makes equal plans that say where they were made."""
    topology = eplb_np.Topology(12, 16, 4, 2, 4)
    on_cpu = eplb_np.make_plan(LOAD, topology, policy="hybrid")
    for device in ("cuda", "auto"):
        for load in (LOAD, LOAD.tolist(), numba_cuda.to_device(LOAD)):
            plan = eplb_np.make_plan(load, topology, policy="hybrid", device=device, dtype=np.int32)
            assert plan.device == "cuda"
            assert plan == eplb_np.make_plan(LOAD, topology, policy="hybrid", dtype=np.int32)
    windows = np.stack([LOAD, LOAD + 1, LOAD * 2])
    plan = eplb_np.make_plan(
        numba_cuda.to_device(windows), topology, policy="hybrid", device="cuda"
    )
    assert plan == eplb_np.make_plan(windows, topology, policy="hybrid")
    refined = eplb_np.make_plan(LOAD, topology, policy="refined", device="auto")
    assert (refined.device, on_cpu.device) == ("cpu", "cpu")


def splits() -> None:
    """All layers, and one of them, as the same steps give on the CPU."""
    for number, case in enumerate(round_cases(25, 58, most_gpus=6)):
        splitter = cuda.GpuSplitter(case.plan, case.load)
        expected, _ = split(case._replace(rounds=splitter.graphs))
        counts = numba_cuda.to_device(case.counts)
        assert_same([splitter.split(counts, on_host=True)], [expected], f"case {number}")
        if number % 5 == 0:
            layer = numba_cuda.to_device(case.counts[1].astype(np.int32))
            one = splitter.split_layer(1, layer, on_host=True)
            assert_same([one], [expected[1]], f"case {number}, one layer")
            with in_global_memory():
                large = cuda.GpuSplitter(case.plan, case.load)
                assert_same(
                    [large.split(counts, on_host=True)], [expected], f"case {number}, large"
                )


def thread_counts() -> None:
    """Splits and slots do not depend on how many threads a block has."""
    threads = launch.SIMULATED_THREADS
    for case in round_cases(6, 60, most_gpus=6):
        splitter = cuda.GpuSplitter(case.plan, case.load)
        counts = numba_cuda.to_device(case.counts)
        num_experts = case.counts.shape[1]
        ids = np.random.default_rng(0).integers(-1, num_experts, (15, 3))
        chosen = np.bincount(ids[ids >= 0], minlength=num_experts)
        found = []
        for launch.SIMULATED_THREADS in (threads, 8, 16):
            quotas = splitter.split_layer(0, chosen, on_host=True)
            slots = cuda.assign(ids, quotas, case.plan.log2phy[0], on_host=True)
            found.append((splitter.split(counts, on_host=True), slots))
        for other in found[1:]:
            assert_same(other, found[0], "other threads")
    launch.SIMULATED_THREADS = threads


def split_arguments() -> None:
    """Results go where the caller says; what does not fit is refused."""
    plan = eplb_np.make_plan(LOAD, eplb_np.Topology(12, 16, 4))
    splitter = cuda.GpuSplitter(plan)
    counts = numba_cuda.to_device(LOAD.astype(np.int64))
    out = numba_cuda.device_array((2, 16), np.int32)
    assert splitter.split(counts, out=out) is out
    expected = splitter.split(LOAD.astype(np.int32), on_host=True)
    assert (expected.sum(axis=1) == LOAD.sum(axis=1)).all()
    assert_same([out.copy_to_host()], [expected.astype(np.int32)], "out")
    row = numba_cuda.device_array(16, np.int64)
    assert splitter.split_layer(1, counts[1], out=row) is row
    assert_same([row.copy_to_host()], [expected[1]], "out of a layer")

    with refused("counts has shape (2, 11)", "[2, 12]"):
        splitter.split(counts[:, :11])
    with refused("counts has dtype float64", "int64 or int32"):
        splitter.split(LOAD)
    with refused("counts has dtype float32", "int64 or int32"):
        splitter.split(numba_cuda.to_device(LOAD.astype(np.float32)))
    with refused("out's slot_load has shape (16,)", "(2, 16)"):
        splitter.split(counts, out=row)
    with refused("layer=2"):
        splitter.split_layer(2, counts[0])
    with refused("expected has shape (1, 12)", "(2, 12)"):
        cuda.GpuSplitter(plan, LOAD[:1])
    with refused("plan must be a Plan"):
        cuda.GpuSplitter(LOAD)
    # Counts that nothing checks make a split of no value, but the kernel ends.
    assert splitter.split(numba_cuda.to_device(-LOAD.astype(np.int64))).shape == (2, 16)


def assigned() -> None:
    """Each id's slot, with ids of several blocks and tiles, padding, and quotas that fall short."""
    for case, most_blocks in ((0, 32), (1, 3), (2, 1), (3, 4), (4, 2)):
        rng = np.random.default_rng([59, case])
        topology = eplb_np.Topology(5, 9, 3)
        log2phy = eplb_np.make_plan(rng.lognormal(size=(1, 5)), topology).log2phy[0]
        ids = rng.integers(-1, 6, (int(rng.integers(5, 25)), 3))
        if case == 4:
            ids = np.minimum(ids, 1)  # many alike in a tile
        quotas = np.zeros(9, np.int64)
        for e in ids[(ids >= 0) & (ids < 5)]:
            quotas[rng.choice(log2phy[e][log2phy[e] >= 0])] += 1
        quotas[log2phy[0][0]] -= case == 3
        splitting.MOST_BLOCKS_OF_IDS = most_blocks
        for dtype in (np.int64, np.int32):
            given = ids.astype(dtype)
            expected = naive_split.assign(given, quotas, log2phy)
            slots = cuda.assign(given, quotas, log2phy, on_host=True)
            assert_same([slots], [expected], f"case {case}")
    splitting.MOST_BLOCKS_OF_IDS = 32

    arrays = [numba_cuda.to_device(a) for a in (ids, quotas, log2phy)]
    out = numba_cuda.device_array(ids.shape, np.int32)
    scratch = numba_cuda.device_array(1000, np.int64)
    assert cuda.assign(*arrays, out=out, scratch=scratch) is out
    expected = naive_split.assign(ids, quotas, log2phy)
    assert_same([out.copy_to_host()], [expected.astype(np.int32)], "out")
    assert cuda.assign(ids[:0], quotas, log2phy).shape == (0, 3)
    with refused("scratch has shape (2,)", "int64 on the GPU"):
        cuda.assign(*arrays, scratch=scratch[:2])
    with refused("topk_ids has shape (3,)", "[any, any]"):
        cuda.assign(ids[0], quotas, log2phy)
    with refused("quotas has dtype float64", "int64 or int32"):
        cuda.assign(ids, quotas.astype(float), log2phy)


def selftest() -> None:
    """The command that checks a real GPU checks this one."""
    from eplb_np.cuda.selftest import main

    assert main(["--small", "--cases", "4"]) == 0


if __name__ == "__main__":
    sys.setswitchinterval(1e-6)  # or a thread that has nothing to do holds all others up
    globals()[sys.argv[1]]()
