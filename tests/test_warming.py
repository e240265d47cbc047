"""After a warm-up nothing is compiled, whatever is called."""

import importlib
import pkgutil

import numpy as np
from numba.core.registry import CPUDispatcher
from support import needs_jit, output_of, refused

import eplb_np
from eplb_np import MoveLimits, Rebalancer, Topology, workloads
from eplb_np._numba.cache import KernelCache
from eplb_np.dispatch import Splitter, assign, make_quotas


def compiled_signatures() -> dict[str, list]:
    """What every kernel that Python calls has been compiled for so far."""
    found = {}
    for module in pkgutil.walk_packages(eplb_np.__path__, "eplb_np."):
        if "cuda" in module.name or module.name == "eplb_np.__main__":
            continue
        for name, kernel in vars(importlib.import_module(module.name)).items():
            if isinstance(kernel, CPUDispatcher) and isinstance(kernel._cache, KernelCache):
                found[f"{kernel.py_func.__module__}.{name}"] = list(kernel.signatures)
    return found


OF_COUNTS = {
    "eplb_np.dispatch.split_cpu.first_bad_count",
    "eplb_np.dispatch.split_cpu.split_layers",
    "eplb_np.dispatch.evened_cpu.split_layers_evenly",
    "eplb_np.dispatch.evened_cpu.find_binding_gpus",
    "eplb_np.dispatch.quotas_cpu.assign_slots",
}
"""Kernels that are compiled twice: for integers and floats, or for ids of either size."""


@needs_jit
def test_nothing_is_compiled_after_a_warmup() -> None:
    # In a process of its own: other tests call kernels with arrays of other kinds.
    assert output_of("from test_warming import warm_up_and_use; warm_up_and_use()") == ""


def warm_up_and_use() -> None:
    eplb_np.warmup(split="best")
    before = compiled_signatures()
    for name, signatures in before.items():
        assert len(signatures) == 1 + (name in OF_COUNTS), (name, signatures)
    assert set(before) > OF_COUNTS
    assert len(before) >= 20

    loads = workloads.skewed_load(6, 24, num_groups=6).reshape(2, 3, 24)
    topology = Topology(24, 36, 6, 2, 6)
    for policy in ("hybrid", "deepseek", "refined"):
        plan = eplb_np.make_plan(loads.astype(np.int32), topology, policy=policy, dtype=np.int32)
        eplb_np.rebalance_experts(loads[0][:, ::-1], 36, 6, 2, 6, policy=policy, num_threads=2)
        assert plan.log2phy is not None
    eplb_np.replicate_experts(loads[0], 30)
    eplb_np.balanced_packing(loads[0], 4)
    uneven = Topology(24, 37, 6, 2, 6, gpu_speeds=[1, 1, 2, 1, 1, 1], active_gpus=[0, 1, 2, 3, 4])
    other = eplb_np.make_plan(loads, uneven, policy="refined")
    limits = MoveLimits(total=9, per_gpu=3, price=2, tolerance=0.1)
    for current in (plan, other):
        rebalancer = Rebalancer(current.topology, current=current, limits=limits)
        for load in loads:
            rebalancer.observe(load)
        rebalancer.propose()
        eplb_np.make_plan(loads[1], current=current, policy="refined").moves_from(current)
        splitting = Rebalancer(current.topology, current=current, limits=limits, split="best")
        for load in loads:
            splitting.observe(load)
            splitting.propose()
        splitter = Splitter(current, loads[0])
        for load in (loads[0], loads[0] / 3):
            splitter.observe(load)
            splitter.split(load, evened=False)
            assert splitter.binding_gpus(load).any()
            assert splitter.split_layer(0, load[0]).sum() > 0
            assert splitter.shares.sum() > 0
        tokens = np.ones((3, 6, 24), np.int64)
        quotas = make_quotas(current, splitter.split(tokens.sum(axis=1)), tokens)
        for dtype in (np.int32, np.int64):
            ids = np.arange(24, dtype=dtype)[:, None]
            assert (assign(ids, quotas[0, 5], current.log2phy[0]) >= 0).all()
    made = eplb_np.make_plan(loads, topology, policy="refined", split="best")
    eplb_np.make_plan(loads, topology, current=made, policy="refined", split="certain")
    after = compiled_signatures()
    assert after == before, {n: s for n, s in after.items() if len(s) > len(before[n])}


def test_policies_are_checked_before_anything_is_compiled() -> None:
    with refused("'fast' is unknown", "'hybrid'"):
        eplb_np.warmup(["hybrid", "fast"])
