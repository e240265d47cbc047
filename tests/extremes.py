"""Plans for loads, speeds, limits and sizes at the ends of what is accepted.

Run as a script, with the first and the last seed, it checks many: with ``NUMBA_BOUNDSCHECK=1``,
a bad index is an error.
"""

import sys

import numpy as np
from plans import random_plan

import eplb_np
from eplb_np import MoveLimits, Plan, Topology
from eplb_np.forecast import Expected
from eplb_np.planning import Wanted, plan_next

LARGEST_SUM = 2.0**127 * (1 - 1e-6)
MAGNITUDES = [0.0, 1e-45, 1e-40, 1e-30, 1e-6, 1.0, 1e6, 1e30, 1e38]
SPEEDS = [2.0**-40, 2.0**-40 * 1000, 1.0, 7.3, 1000.0, 2.0**40 / 1000, 2.0**40]


def extreme_loads(generator, shape: tuple[int, ...]) -> np.ndarray:
    """Loads [W, L, E] of many magnitudes at once, some of which add up to almost 2**127."""
    magnitudes = generator.choice(MAGNITUDES, generator.integers(1, 4))
    load = generator.choice(magnitudes, shape)
    if generator.random() < 0.7:
        load *= generator.lognormal(0, generator.choice([0.1, 3.0]), shape)
    total = load.sum(axis=-1, keepdims=True)
    scale_up = (generator.random(total.shape) < 0.2) & (total > 0)
    factor = np.where((total > LARGEST_SUM) | scale_up, LARGEST_SUM / np.maximum(total, 1e-60), 1.0)
    load = np.minimum(load * factor, 2.0**126)
    return load.astype(np.float32)


def extreme_topology(generator) -> Topology:
    """Any sizes, with speeds at both ends of the range, and GPUs that are gone."""
    num_nodes = int(generator.integers(1, 4))
    num_gpus = num_nodes * int(generator.integers(1, 5))
    num_groups = num_nodes * int(generator.integers(1, 4))
    num_experts = num_groups * int(generator.integers(1, 5))
    slots = -(-num_experts // num_gpus) + generator.integers(0, 4, num_gpus)
    speeds = None
    if generator.random() < 0.8:
        base = generator.choice(SPEEDS)
        factors = [1.0, 1.0, 0.5, 1e-3] if base > 1 else [1.0, 1.0, 2.0, 1e3]
        speeds = np.clip(base * generator.choice(factors, num_gpus), 2.0**-40, 2.0**40).tolist()
    while True:
        try:
            return Topology(
                num_experts, int(slots.sum()), num_gpus, num_nodes, num_groups, slots.tolist(),
                speeds, active_gpus=generator.random(num_gpus) < 0.85,
            )  # fmt: skip
        except ValueError as error:  # too many gone
            if not any(part in str(error) for part in ("slots are missing", "at least one")):
                raise
            slots += 1


def extreme_limits(generator) -> MoveLimits | None:
    return generator.choice(
        [
            None,
            MoveLimits(),
            MoveLimits(total=int(generator.integers(0, 20))),
            MoveLimits(per_gpu=int(generator.integers(0, 4))),
            MoveLimits(total=3, per_gpu=1, price=5e-324),
            MoveLimits(total=9, price=1e308, tolerance=1e308),
            MoveLimits(per_gpu=2, price=float(generator.choice(MAGNITUDES)), tolerance=1e-300),
        ]
    )


def check_plan(plan: Plan, load: np.ndarray) -> None:
    plan.check()
    assert (plan.logcnt > 0).all()
    assert np.isfinite(plan.gpu_load(load)).all()
    assert np.isfinite(plan.gpu_time(load)).all()
    assert np.isfinite(plan.lower_bound(load)).all()
    assert 0 < plan.balancedness(load) <= 1 + 1e-9
    assert 0 < plan.replica_balancedness(load) <= 1 + 1e-9


def check_extremes(seed: int) -> None:
    """Plan from scratch, then mend the plan for other loads, GPUs and limits."""
    generator = np.random.default_rng(seed)
    topology = extreme_topology(generator)
    shape = (int(generator.integers(1, 4)), topology.num_experts)
    load = extreme_loads(generator, shape)
    plan = eplb_np.make_plan(load, topology, policy="refined")
    check_plan(plan, load)
    for _ in range(4):
        there = generator.random(topology.num_gpus) < generator.choice([0.8, 1.0])
        gpus = np.flatnonzero(there) if generator.random() < 0.5 else None
        windows = extreme_loads(generator, (int(generator.integers(1, 5)), *shape))
        if generator.random() < 0.3:
            windows[:] = windows[0]
        limits = extreme_limits(generator)
        try:
            with np.errstate(over="ignore"):  # kernels as Python warn of an infinite price
                plan = eplb_np.make_plan(
                    windows, topology, active_gpus=gpus, current=plan, policy="refined",
                    limits=limits,
                )  # fmt: skip
        except ValueError as error:  # too many gone
            if not any(part in str(error) for part in ("slots are missing", "at least one")):
                raise
            continue
        check_plan(plan, windows[-1])


def check_undecided(seed: int) -> None:
    """Plan for numbers that no caller can give: whatever NaN decides, every expert has a slot."""
    generator = np.random.default_rng(seed)
    topology = extreme_topology(generator)
    shape = (2, topology.num_experts)
    wild = [np.nan, np.inf, 1e308, 1.0, 0.0]
    plan = None
    for _ in range(4):
        chosen = generator.choice(wild, generator.integers(1, 4))
        load = generator.choice(chosen, shape)
        noise, turnover = generator.choice([np.nan, np.inf, 1e308, 0.1], 2).tolist()
        limits = extreme_limits(generator) or MoveLimits()
        wanted = Wanted(topology, "refined", limits, np.dtype(np.int64), (0, 1), "even")
        try:
            with np.errstate(all="ignore"):
                in_use = None if plan is None else plan.phy2log
                plan = plan_next(Expected(load, noise, turnover), in_use, wanted)
        except ValueError as error:  # to compare plans, their times are computed
            if "must be finite" not in str(error):
                raise
            continue
        plan.check()
        assert (plan.logcnt > 0).all()
        if generator.random() < 0.5:
            plan = random_plan(generator, 2, topology)


if __name__ == "__main__":
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            check_extremes(seed)
            check_undecided(seed)
        except BaseException:
            sys.stderr.write(f"seed {seed}\n")
            raise
    sys.stdout.write("sound")
