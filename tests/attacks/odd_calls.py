"""Every public call with every odd value in every place: an answer, or one line of complaint."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from arena import Allowed, Problems, TooSlow, end_limit, limit_call
from plain_check import check_one_line, check_plan

import eplb_np
from eplb_np import MoveLimits, Plan, Rebalancer, Topology
from eplb_np.io.recorded import Recording, recorded_loads

ALLOWED = Allowed(cpu_seconds=40, asleep_seconds=20)
LOAD = np.random.default_rng(5).integers(0, 100, (3, 12)).astype(np.float32)
SIZES = {"num_replicas": 16, "num_gpus": 8, "num_nodes": 2, "num_groups": 4}
TOPOLOGY = Topology(12, 16, 8, 2, 4)
MADE = eplb_np.in_order_plan(3, TOPOLOGY)
COUNTS = LOAD.astype(np.int64)
RECORDED = recorded_loads(Recording(COUNTS, in_order=True))
SLOT_LOAD = eplb_np.split_load(MADE, 8 * COUNTS)


class NoAnswer:
    """Like ``pandas.NA``: every question about it raises ``TypeError``."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]
    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __add__ = __mul__ = __mod__ = __eq__

    def __float__(self) -> float:
        raise TypeError("float() argument must not be NA")

    def __repr__(self) -> str:
        return "<NA>"


class Loud:
    """Its text has several lines."""

    def __repr__(self) -> str:
        return "a\nloud\nobject"


ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 5, 3.5, float("nan"), float("inf"), 1e308, 2**15, -(2**63), "",
    "3", "hybrid", b"3", "two\nlines", [], [[]], [1], [1, 2], [[1], [1, 2]], {}, {"a": 1}, {1, 2},
    object(), NoAnswer(), Loud(), Decimal(4), Fraction(4), 1j, np.nan, np.int8(4), np.uint64(4),
    np.float32(4), np.array(4), np.array([4]), np.array("4"), np.array([], int), np.array([None]),
    np.ones((3, 12)), np.ones((2, 3, 12)), np.full((3, 12), np.nan), np.ma.masked,
    np.ma.masked_array([1, 2], [True, False]), np.datetime64("2020-01-01"), int, len, range(8),
    [0.5] * 8, ["1"] * 8, [None] * 8, [NoAnswer()] * 8, [True] * 8, [False] * 8, [2] * 8,
    [2**70] * 8, [Loud()] * 8, [1, 1], TOPOLOGY, MADE,
)  # fmt: skip

# Nobody can hold so many; where a million is legal, it may take its time.
HUGE = (
    10**9, 2**31, 2**32 + 1, 2**40, 2**63 - 1, 2**63, 2**64, 10**30, 10**400,
    np.int64(2**62), np.uint64(2**64 - 1),
)  # fmt: skip


def use(plan: Any) -> Any:
    rebalancer = Rebalancer(TOPOLOGY, 3)
    rebalancer.use(plan)
    return rebalancer.propose().plan


def use_gpus(active_gpus: Any) -> Any:
    rebalancer = Rebalancer(TOPOLOGY, 3)
    rebalancer.use_gpus(active_gpus)
    return rebalancer.propose().plan


def observe(load: Any) -> Any:
    rebalancer = Rebalancer(TOPOLOGY, 3)
    rebalancer.observe(load)
    return rebalancer.propose().plan


def rebalancer_of(**arguments: Any) -> Any:
    rebalancer = Rebalancer(**arguments)
    layers = 3 if rebalancer.current else arguments["num_layers"]
    rebalancer.observe(np.arange(12.0 * layers).reshape(layers, 12) + 1)
    rebalancer.propose()
    return rebalancer.propose().plan


def mended(**arguments: Any) -> Any:
    limits = MoveLimits(**arguments)
    return eplb_np.make_plan(LOAD, current=MADE, policy="refined", limits=limits)


def topology_of(**arguments: Any) -> Any:
    topology = Topology(**arguments)
    split = "best" if topology.bridges else "even"
    load = np.ones((1, topology.num_experts))
    return eplb_np.make_plan(load, topology, policy="refined", split=split)


def split(plan: Any, expected: Any, counts: Any, evened: Any, out: Any) -> None:
    """Split, and add up what each expert got."""
    slots = eplb_np.Splitter(plan, expected).split(counts, evened=evened, out=out)
    assert (slots >= 0).all()
    for row, experts, given in zip(slots, plan.phy2log, np.asarray(counts), strict=True):
        got = np.bincount(experts, row, plan.topology.num_experts)
        assert np.allclose(got, given.astype(np.float64))


def split_layer(layer: Any, counts: Any) -> Any:
    return eplb_np.Splitter(MADE).split_layer(layer, counts)


def shares(counts: Any) -> None:
    splitter = eplb_np.Splitter(MADE)
    splitter.observe(counts)
    assert np.isclose(splitter.shares.sum(), 3 * 12)


def binding_gpus(counts: Any) -> None:
    assert eplb_np.Splitter(MADE).binding_gpus(counts).any(axis=1).all()


def read_loads(path: Any, **asked: Any) -> None:
    with TemporaryDirectory() as folder:
        given = Path(folder) / "loads.npy" if path is None else path
        np.save(Path(folder) / "loads.npy", np.stack([COUNTS, COUNTS]))
        loads = eplb_np.io.read_loads(given, **asked)
    assert len(loads.load) == len(loads.moe_layer_ids)


def write_plan(path: Any, **asked: Any) -> Any:
    with TemporaryDirectory() as folder:
        given = Path(folder) / "plan.json" if path is None else path
        return eplb_np.io.read_plan(eplb_np.io.write_plan(path=given, **asked).path, num_gpus=8)


def write_loads(path: Any, **asked: Any) -> Any:
    with TemporaryDirectory() as folder:
        given = Path(folder) / "loads.json" if path is None else path
        eplb_np.io.read_loads(eplb_np.io.write_loads(path=given, **asked).path)


def read_plan(path: Any, **asked: Any) -> Any:
    with TemporaryDirectory() as folder:
        given = Path(folder) / "plan.json" if path is None else path
        write = eplb_np.io.write_plan
        write(MADE, Path(folder) / "plan.json", "sglang", num_hidden_layers=4)
        return eplb_np.io.read_plan(given, **asked)


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Topology": (
        topology_of,
        {"num_experts": 12, **SIZES, "gpu_slots": [2] * 8, "gpu_speeds": [1.0] * 8,
         "active_gpus": range(8), "bridges": 0},
    ),
    "MoveLimits": (mended, {"total": 3, "per_gpu": 1, "price": 0.0, "tolerance": 0.0}),
    "make_plan": (
        eplb_np.make_plan,
        {"load": LOAD, **SIZES, "topology": None, "gpu_slots": None, "gpu_speeds": None,
         "active_gpus": None, "policy": "refined", "current": None, "limits": None,
         "dtype": np.int64, "moe_layer_ids": [0, 1, 2], "num_threads": 1, "device": "cpu",
         "split": "even"},
    ),
    "make_plan, for the best split": (
        eplb_np.make_plan,
        {"load": LOAD, "topology": TOPOLOGY, "policy": "refined", "current": MADE, "limits": None,
         "split": "best", "num_threads": 1},
    ),
    "in_order_plan": (
        eplb_np.in_order_plan, {"num_layers": 2, "topology": TOPOLOGY, "dtype": np.int64},
    ),
    "Plan": (
        Plan,
        {"phy2log": MADE.phy2log, "phyrank": MADE.phyrank, "topology": TOPOLOGY, "policy": "mine",
         "moe_layer_ids": [0, 1, 2]},
    ),
    "Plan.moves_from": (MADE.moves_from, {"other": MADE}),
    "Plan.balancedness": (MADE.balancedness, {"load": LOAD, "split": "best"}),
    "Plan.gpu_time": (MADE.gpu_time, {"load": LOAD, "split": "even"}),
    "Plan.crossing": (
        lambda **given: 1.0 - MADE.crossing(**given), {"load": LOAD, "split": "best"},
    ),
    "Plan.weighted_log2phy": (
        MADE.weighted_log2phy, {"load": LOAD, "width": 16, "every_replica": True},
    ),
    "Splitter.split": (
        split, {"plan": MADE, "expected": LOAD, "counts": COUNTS, "evened": True, "out": None},
    ),
    "Splitter.split_layer": (split_layer, {"layer": 1, "counts": COUNTS[1]}),
    "Splitter.observe": (shares, {"counts": COUNTS}),
    "Splitter.binding_gpus": (binding_gpus, {"counts": COUNTS}),
    "split_load": (eplb_np.split_load, {"plan": MADE, "load": LOAD, "evened": False}),
    "make_quotas": (
        eplb_np.make_quotas,
        {"plan": MADE, "slot_load": SLOT_LOAD, "counts": np.stack([COUNTS] * 8, axis=1),
         "layer": None, "rank_gpus": None},
    ),
    "assign": (
        eplb_np.assign,
        {"topk_ids": np.array([[0, 1], [2, -1]]), "quotas": SLOT_LOAD[0],
         "log2phy": MADE.log2phy[0]},
    ),
    "Plan.lower_bound": (MADE.lower_bound, {"load": LOAD}),
    "Rebalancer": (
        rebalancer_of,
        {"topology": TOPOLOGY, "num_layers": 3, "current": None, "limits": None, "dtype": np.int64,
         "moe_layer_ids": [0, 1, 2], "split": "best"},
    ),
    "io.read_loads": (
        read_loads,
        {"path": None, "format": "numpy", "in_order": True, "moe_layer_ids": [0, 1, 2],
         "current": None, "num_ranks": 1, "num_experts": 12},
    ),
    "io.write_loads": (
        write_loads,
        {"path": None, "loads": RECORDED, "format": "sglang", "num_hidden_layers": 4},
    ),
    "io.write_plan": (
        write_plan,
        {"path": None, "plan": MADE, "format": "sglang", "num_hidden_layers": 4, "current": None},
    ),
    "io.read_plan": (
        read_plan,
        {"path": None, "format": "sglang", "num_gpus": 8, "num_nodes": 2, "num_groups": 4,
         "moe_layer_ids": [0, 1, 2]},
    ),
    "Rebalancer.observe": (observe, {"load": LOAD}),
    "Rebalancer.use": (use, {"plan": MADE}),
    "Rebalancer.use_gpus": (use_gpus, {"active_gpus": None}),
    "rebalance_experts": (
        eplb_np.rebalance_experts,
        {"weight": LOAD, **SIZES, "policy": "hybrid", "num_threads": 1},
    ),
    "rebalance_experts_hierarchical": (
        eplb_np.rebalance_experts_hierarchical,
        {"weight": LOAD, "num_physical_experts": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8,
         "num_threads": 1},
    ),
    "replicate_experts": (eplb_np.replicate_experts, {"weight": LOAD, "num_phy": 16}),
    "balanced_packing": (
        eplb_np.balanced_packing, {"weight": LOAD, "num_packs": 4, "refine_steps": 2},
    ),
    "lower_bound": (eplb_np.lower_bound, {"load": LOAD, "topology": TOPOLOGY}),
}  # fmt: skip


def attack(
    call: Callable[..., Any], arguments: dict[str, Any], values: tuple[Any, ...]
) -> Problems:
    """Call with each of the values in each place; note what is neither answer nor complaint."""
    problems: Problems = {}
    assert _call(call, arguments) == ""
    for name, sound in arguments.items():
        if values is HUGE and not isinstance(sound, (int, float)):
            continue
        for value in values:
            said = _call(call, {**arguments, name: value})
            if said:
                text = f"{name} = {repr(value)[:60]!a}: {said}"
                problems.setdefault("wrong", []).append(text)
            if "slow" in said:
                break
    return {kind: texts[:20] for kind, texts in problems.items()}


def _call(call: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What is wrong with how a call ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limit_call()
        try:
            found = call(**arguments)
            end_limit()  # the check takes a second for as many layers as are legal
            if isinstance(found, Plan):
                check_plan(found)
            elif isinstance(found, float):
                assert 0 < found <= 1 + 1e-6
        except (ValueError, FileNotFoundError) as error:
            return check_one_line(error)
        except MemoryError as error:
            says_how_much = re.search(r"\d\.? ([KMGTPE]i?B|bytes)", str(error))
            return "" if says_how_much else f"MemoryError: {error}"
        except TooSlow:
            return "too slow: more than 2 s of CPU time"
        except BaseException as error:  # noqa: BLE001 - which is what is looked for
            return f"{type(error).__name__}: {str(error)[:200]}"
        finally:
            end_limit()
    return ""


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Every call, with odd values and with huge ones."""
    eplb_np.warmup(split="best")  # the children share what is compiled
    kinds = {"odd": ODD, "huge": HUGE}
    return {
        f"{name}, {kind}": lambda call=call, values=values: attack(*call, values)
        for kind, values in kinds.items()
        for name, call in CALLS.items()
    }
