"""Random deployments, loads and calls: what comes back is a plan, by an independent check."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from arena import Allowed, Problems
from cases import LOADS
from plain_check import check_plan

import eplb_np
from eplb_np import MoveLimits, Rebalancer, Topology

ALLOWED = Allowed(cpu_seconds=60, asleep_seconds=20)
ALLOWED_LONG = Allowed(cpu_seconds=900, asleep_seconds=20, wall_seconds=2000)
Rng = np.random.Generator


def draw(rng: Rng, low: int, high: int) -> int:
    """One of low .. high."""
    return int(rng.integers(low, high, endpoint=True))


def random_topology(rng: Rng, *, plain: bool = False) -> Topology:
    """Even or uneven slots, speeds, GPUs that are gone; as the sizes allow it."""
    while True:
        nodes = draw(rng, 1, 4)
        gpus = nodes * draw(rng, 1, 4)
        groups = draw(rng, 1, 8)
        experts = groups * draw(rng, 1, 6)
        slots = -(-experts // gpus) * gpus + gpus * draw(rng, 0, 3)
        options: dict[str, Any] = {}
        if not plain:
            slots += draw(rng, 0, gpus)
            if rng.random() < 0.5:
                options["gpu_slots"] = rng.multinomial(slots, rng.dirichlet([5.0] * gpus)).tolist()
            if rng.random() < 0.5:
                options["gpu_speeds"] = rng.choice([0.01, 0.5, 1, 1, 3.7, 100], gpus).tolist()
            if rng.random() < 0.5:
                options["active_gpus"] = (rng.random(gpus) < 0.8).tolist()
        try:
            return Topology(experts, slots, gpus, nodes, groups, **options)
        except ValueError:
            continue  # too few slots are left


def random_load(rng: Rng, layers: int, experts: int) -> Any:
    load = LOADS[rng.choice(list(LOADS))](rng, (layers, experts))
    form = rng.choice(["as it is", "list", "fortran", "float16"])
    if form == "list":
        return load.tolist()
    if form == "float16":
        return np.minimum(load, 6e4).astype(np.float16)
    return np.asfortranarray(load) if form == "fortran" else load


def random_limits(rng: Rng) -> MoveLimits:
    return MoveLimits(
        total=None if rng.random() < 0.5 else draw(rng, 0, 12),
        per_gpu=None if rng.random() < 0.5 else draw(rng, 0, 4),
        price=float(rng.choice([0, 0, 1e-3, 10, 1e300])),
        tolerance=float(rng.choice([0, 0, 0.05, 10])),
    )


def plan_from_scratch(rng: Rng) -> None:
    policy = str(rng.choice(["hybrid", "deepseek", "refined"]))
    topology = random_topology(rng, plain=policy != "refined")
    load = random_load(rng, draw(rng, 1, 3), topology.num_experts)
    dtype = rng.choice([np.int64, np.int32])
    ids = None if rng.random() < 0.5 else np.cumsum(rng.integers(1, 9, len(load)))
    plan = eplb_np.make_plan(
        load, topology, policy=policy, dtype=dtype, moe_layer_ids=ids, num_threads=draw(rng, 1, 3)
    )
    assert plan.dtype == dtype
    check_plan(plan, np.asarray(load, np.float64), full=True)
    again = eplb_np.make_plan(load, topology, policy=policy, dtype=dtype, moe_layer_ids=ids)
    assert again == plan


def plan_from_windows(rng: Rng) -> None:
    topology = random_topology(rng)
    layers = draw(rng, 1, 3)
    windows = [random_load(rng, layers, topology.num_experts) for _ in range(draw(rng, 1, 6))]
    windows = [np.asarray(window, np.float64) for window in windows]
    plan = eplb_np.make_plan(np.stack(windows), topology, policy="refined")
    check_plan(plan, windows[-1], full=True)


def mend(rng: Rng) -> None:
    """A plan, mended three times for the same GPUs within the limits."""
    topology = random_topology(rng)
    layers = draw(rng, 1, 3)
    load = np.asarray(random_load(rng, layers, topology.num_experts), np.float64)
    current = eplb_np.make_plan(
        load, topology, policy="refined", dtype=rng.choice([np.int64, np.int32])
    )
    limits = random_limits(rng)
    for _ in range(3):
        window = np.asarray(random_load(rng, layers, topology.num_experts), np.float64)
        plan = eplb_np.make_plan(window, current=current, policy="refined", limits=limits)
        check_plan(plan, window, full=True)
        fetched = (plan.phy2log != current.phy2log) & (plan.phy2log >= 0)
        assert limits.total is None or fetched.sum() <= limits.total
        per_gpu = np.bincount(topology.gpu_of_slot[np.nonzero(fetched)[1]], minlength=1)
        assert limits.per_gpu is None or per_gpu.max() <= limits.per_gpu
        assert len(plan.moves_from(current)) == fetched.sum()
        current = plan


def published(rng: Rng) -> None:
    topology = random_topology(rng, plain=True)
    load = random_load(rng, draw(rng, 1, 9), topology.num_experts)
    sizes = topology.num_replicas, topology.num_groups, topology.num_nodes, topology.num_gpus
    policy = str(rng.choice(["hybrid", "deepseek", "refined"]))
    phy2log, log2phy, logcnt = eplb_np.rebalance_experts(load, *sizes, policy=policy)
    plan = eplb_np.make_plan(load, topology, policy=policy)
    assert phy2log.tolist() == plan.phy2log.tolist()
    assert log2phy.tolist() == plan.log2phy.tolist()
    assert logcnt.tolist() == plan.logcnt.tolist()
    check_plan(plan, np.asarray(load, np.float64), full=True)
    packs = draw(rng, 1, 4)
    items = random_load(rng, 2, packs * draw(rng, 1, 8))
    pack_index, rank = eplb_np.balanced_packing(items, packs, draw(rng, 0, 4))
    for row, ranks in zip(pack_index.tolist(), rank.tolist(), strict=True):
        places = sorted(zip(row, ranks, strict=True))
        assert places == [(p, r) for p in range(packs) for r in range(len(row) // packs)]


def serve(rng: Rng) -> None:
    """A few windows through a `Rebalancer` of any topology."""
    topology = random_topology(rng)
    layers = draw(rng, 1, 2)
    rebalancer = Rebalancer(topology, layers, limits=random_limits(rng))
    for _ in range(4):
        window = np.asarray(random_load(rng, layers, topology.num_experts), np.float64)
        rebalancer.observe(window)
        check_plan(rebalancer.propose().plan, window, full=True)


ATTACKS: tuple[Callable[[Rng], None], ...] = (
    plan_from_scratch, plan_from_windows, mend, published, serve,
)  # fmt: skip


def attack(act: Callable[[Rng], None], number: int, seed: int) -> Problems:
    """Act with random arguments; every warning and every exception is a fault."""
    problems: Problems = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in range(number):
            try:
                act(np.random.default_rng([seed, k]))
            except Exception as error:  # noqa: BLE001 - told by the test
                place = error.__traceback__
                while place is not None and place.tb_next is not None:
                    place = place.tb_next
                where = (
                    f"line {place.tb_lineno} of {place.tb_frame.f_code.co_name}" if place else ""
                )
                text = (
                    f"case {k} of seed {seed}: {type(error).__name__}: {str(error)[:300]}, {where}"
                )
                problems.setdefault("wrong", []).append(text)
    return {kind: texts[:5] for kind, texts in problems.items()}


SPEEDS: tuple[list[float], ...] = (
    [5e-324] * 8, [5e-324, *[1.0] * 7], [1e-310] * 8, [1e-310, 1e300, *[1.0] * 6], [1e300] * 8,
    [1e-300] * 8, [1.7e308, *[1.0] * 7], [1e-200, *[1e200] * 7], [1e-30, *[1e30] * 7],
)  # fmt: skip


def extreme_speeds(speeds: list[float]) -> Problems:
    """Speeds give a plan whose measures are numbers, or are refused with a word about them."""
    load = np.random.default_rng(3).integers(0, 100, (2, 24)).astype(float)
    try:
        plan = eplb_np.make_plan(
            load, num_replicas=32, num_gpus=8, gpu_speeds=speeds, policy="refined"
        )
        check_plan(plan, load, full=True)
        plan = eplb_np.make_plan(load[:, ::-1], current=plan, policy="refined")
        check_plan(plan, load, full=True)
    except ValueError as error:
        return {} if "speed" in str(error) else {"wrong": [str(error)]}
    return {}


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Every kind of attack with random arguments, and the extreme speeds."""
    eplb_np.warmup()
    number = 2000 if long else 60
    random = {act.__name__: lambda act=act: attack(act, number, int(long)) for act in ATTACKS}
    extreme = {str(speeds[:2]): lambda speeds=speeds: extreme_speeds(speeds) for speeds in SPEEDS}
    return random | extreme
