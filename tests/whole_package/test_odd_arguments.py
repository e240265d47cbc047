"""Whatever is passed to a public function: an answer, or a ``ValueError`` of one line."""

import itertools
import resource
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import eplb_np
from eplb_np import MoveLimits, Plan, Rebalancer, Topology, replay, workloads

LOAD = np.random.default_rng(5).integers(1, 100, (2, 8)).astype(np.float32)
TRACE = np.random.default_rng(6).integers(1, 100, (4, 2, 8)).astype(np.float32)
TOPOLOGY = Topology(8, 12, 4)
MADE = eplb_np.in_order_plan(2, TOPOLOGY)
MOVED = eplb_np.make_plan(LOAD, TOPOLOGY)


class NoAnswer:
    """Like ``pandas.NA``: any question about it is an error."""

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other):
        return self

    __hash__ = None
    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __mod__ = __eq__


def broken(*names, error=RuntimeError):
    """An object of which some methods fail, with more than one line."""

    def fail(self, *args, **options):
        raise error("two\nlines")

    return type("Broken", (), dict.fromkeys(names, fail))()


class Sequence:
    """One that says that it is short, and has no end."""

    def __len__(self):
        return 4

    def __iter__(self):
        return itertools.count()


class Interface:
    """An array of which nothing can be read."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("no device")

    __array_interface__ = __array_struct__ = __cuda_array_interface__


ODD = {
    "None": lambda: None, "a bool": lambda: True, "zero": lambda: 0, "negative": lambda: -1,
    "NaN": lambda: float("nan"), "infinite": lambda: float("inf"), "1e308": lambda: 1e308,
    "a large size": lambda: 2**20 + 1, "int64": lambda: 2**63 - 1, "uint64": lambda: 2**64,
    "10**30": lambda: 10**30, "10**400": lambda: 10**400, "10**5000": lambda: 10**5000,
    "-10**5000": lambda: -(10**5000), "a digit": lambda: "3", "text": lambda: "two\nlines",
    "bytes": lambda: b"3", "empty": list, "nested": lambda: [[]], "ragged": lambda: [[1], [1, 2]],
    "a dict": lambda: {"a": 1}, "a set": lambda: {1, 2}, "an object": object,
    "no answer": NoAnswer, "no answers": lambda: [NoAnswer()] * 4, "Decimal": lambda: Decimal(4),
    "Decimals": lambda: [Decimal(1)] * 4, "a signaling NaN": lambda: Decimal("sNaN"),
    "Fraction": lambda: Fraction(7, 2), "complex": lambda: 1j, "a 0-d array": lambda: np.array(4),
    "an array of one": lambda: np.array([4]), "a 0-d float": lambda: np.array(0.5),
    "a 0-d string": lambda: np.array("4"), "objects": lambda: np.array([None, 1]),
    "masked": lambda: np.ma.masked, "masked array": lambda: np.ma.masked_array([1, 2], [1, 0]),
    "a date": lambda: np.datetime64("2020-01-01"), "float16": lambda: np.float16(4),
    "longdouble": lambda: np.longdouble("1e4000"), "a type": lambda: int, "a function": lambda: len,
    "an iterator": lambda: iter([1, 2]), "without end": itertools.count, "Sequence": Sequence,
    "a long range": lambda: range(10**12), "a range": lambda: range(4), "bools": lambda: [True] * 4,
    "large": lambda: [2**70] * 4, "Interface": Interface, "loads": lambda: LOAD,
    "not loads": lambda: LOAD * np.nan, "windows": lambda: TRACE, "a topology": lambda: TOPOLOGY,
    "a plan": lambda: MADE, "limits": MoveLimits, "complex array": lambda: LOAD * 1j,
    "float64": lambda: LOAD.astype(float) * 1e300, "strings": lambda: LOAD.astype(str),
    "repr": lambda: broken("__repr__"), "str": lambda: broken("__str__", "__repr__"),
    "index": lambda: broken("__index__"), "float": lambda: broken("__float__", "__int__"),
    "array": lambda: broken("__array__"), "length": lambda: broken("__len__", "__getitem__"),
    "iter": lambda: broken("__iter__"), "eq": lambda: broken("__eq__", "__ne__"),
    "overflow": lambda: broken("__index__", "__float__", "__array__", error=OverflowError),
    "ValueError": lambda: broken("__index__", "__float__", "__array__", error=ValueError),
    "memory": lambda: broken("__index__", "__float__", error=MemoryError),
}  # fmt: skip


def rebalanced(**arguments):
    rebalancer = Rebalancer(**arguments)
    rebalancer.observe(np.ones((rebalancer._num_layers, 8)))
    return rebalancer.propose()


def replayed(make):
    return lambda **arguments: replay.replay(TRACE, make(**arguments), first_window=2)


def of_rebalancer(name):
    return lambda value: getattr(Rebalancer(TOPOLOGY, 2, current=MADE), name)(value)


SIZES = {"num_replicas": 12, "num_gpus": 4, "num_nodes": 1, "num_groups": 1}
SHAPE = {"num_layers": 2, "num_experts": 8}
CALLS = {
    "Topology": (Topology, {
        "num_experts": 8, **SIZES, "gpu_slots": [3] * 4, "gpu_speeds": [1.0] * 4,
        "active_gpus": [0, 1, 2],
    }),
    "MoveLimits": (MoveLimits, {"total": 1, "per_gpu": 1, "price": 0.0, "tolerance": 0.0}),
    "make_plan": (eplb_np.make_plan, {
        "load": LOAD, **SIZES, "gpu_slots": None, "gpu_speeds": None, "active_gpus": None,
        "policy": "refined", "current": None, "limits": None, "dtype": None,
        "moe_layer_ids": None, "num_threads": 1,
        "device": "cpu",
    }),
    "make_plan's topology": (eplb_np.make_plan, {"load": LOAD, "topology": TOPOLOGY}),
    "mending": (eplb_np.make_plan, {
        "load": LOAD, "current": MADE, "limits": MoveLimits(3), "policy": "refined",
    }),
    "in_order_plan": (eplb_np.in_order_plan, {
        "num_layers": 2, "topology": TOPOLOGY, "dtype": "int64",
    }),
    "Plan": (Plan, {
        "phy2log": MADE.phy2log, "phyrank": MADE.phyrank, "topology": TOPOLOGY, "policy": "mine",
        "moe_layer_ids": [0, 1], "device": "cpu",
    }),
    "Plan.moves_from": (MADE.moves_from, {"other": MOVED}),
    "Plan.gpu_load": (MADE.gpu_load, {"load": LOAD}),
    "Plan.gpu_time": (MADE.gpu_time, {"load": LOAD}),
    "Plan.balancedness": (MADE.balancedness, {"load": LOAD}),
    "Plan.replica_balancedness": (MADE.replica_balancedness, {"load": LOAD}),
    "Plan.lower_bound": (MADE.lower_bound, {"load": LOAD}),
    "Plan.save": (MADE.save, {"path": "no such folder/plan.npz"}),
    "Plan.load": (Plan.load, {"path": "no such folder/plan.npz"}),
    "Rebalancer": (rebalanced, {
        "topology": TOPOLOGY, "num_layers": 2, "current": None, "limits": None, "dtype": None,
        "moe_layer_ids": None,
    }),
    "observe": (of_rebalancer("observe"), {"value": LOAD}),
    "use": (of_rebalancer("use"), {"value": MADE}),
    "use_gpus": (of_rebalancer("use_gpus"), {"value": [0, 1, 2]}),
    "save": (of_rebalancer("save"), {"value": "no such folder/state.npz"}),
    "rebalance_experts": (eplb_np.rebalance_experts, {
        "weight": LOAD, **SIZES, "policy": "hybrid", "num_threads": 1,
    }),
    "hierarchical": (eplb_np.rebalance_experts_hierarchical, {
        "weight": LOAD, "num_physical_experts": 12, "num_groups": 1, "num_nodes": 1, "num_gpus": 4,
        "num_threads": 1,
    }),
    "replicate_experts": (eplb_np.replicate_experts, {"weight": LOAD, "num_phy": 12}),
    "balanced_packing": (eplb_np.balanced_packing, {
        "weight": LOAD, "num_packs": 4, "refine_steps": 2,
    }),
    "lower_bound": (eplb_np.lower_bound, {"load": LOAD, "topology": TOPOLOGY}),
    "replica_load": (eplb_np.replica_load, {
        "phy2log": MADE.phy2log, "logcnt": MADE.logcnt, "load": LOAD,
    }),
    "gpu_load": (eplb_np.gpu_load, {
        "phy2log": MADE.phy2log, "logcnt": MADE.logcnt, "load": LOAD, "num_gpus": 4,
    }),
    "balancedness": (eplb_np.balancedness, {"loads": LOAD}),
    "layer_balancedness": (eplb_np.layer_balancedness, {"loads": LOAD}),
    "moved_replicas": (eplb_np.moved_replicas, {
        "old_phy2log": MADE.phy2log, "new_phy2log": MOVED.phy2log, "num_gpus": 4,
    }),
    "warmup": (eplb_np.warmup, {"policies": []}),
    "replay": (replay.replay, {
        "load": TRACE, "planner": replay.once(TOPOLOGY), "first_window": 1,
    }),
    "replanning": (replayed(replay.replanning), {
        "topology": TOPOLOGY, "policy": "hybrid", "num_windows": 3,
    }),
    "replay's mending": (replayed(replay.mending), {"topology": TOPOLOGY, "limits": None}),
    "once": (replayed(replay.once), {"topology": TOPOLOGY, "policy": "hybrid"}),
    "knowing_the_future": (replayed(replay.knowing_the_future), {
        "topology": TOPOLOGY, "mean": TRACE,
    }),
    "skewed_load": (workloads.skewed_load, {
        **SHAPE, "seed": 0, "num_groups": 2, "tokens_per_layer": 100,
    }),
    "deepseek_v3_load": (workloads.deepseek_v3_load, {
        "seed": 0, **SHAPE, "num_dense_layers": 1, "num_groups": 2, "tokens_per_layer": 100,
    }),
    "zipf_load": (workloads.zipf_load, {
        **SHAPE, "seed": 0, "exponent": 1.0, "tokens_per_layer": 100,
    }),
    "uniform_load": (workloads.uniform_load, {**SHAPE, "tokens_per_layer": 100}),
    "one_hot_expert_load": (workloads.one_hot_expert_load, {
        **SHAPE, "seed": 0, "share": 0.5, "tokens_per_layer": 100,
    }),
    "zero_load": (workloads.zero_load, SHAPE),
    "related_profiles": (workloads.related_profiles, {
        "base": LOAD, "num_profiles": 2, "seed": 0, "variation": 0.1,
    }),
    "draw_trace": (workloads.draw_trace, {
        "mean": TRACE, "seed": 0, "tokens_per_window": 100, "concentration": 5.0, "switches": [1],
    }),
    "scenario_trace": (workloads.scenario_trace, {
        "scenario": "drift", "profiles": TRACE, "num_windows": 3, "seed": 0,
    }),
    "LoadTrace": (workloads.LoadTrace, {"load": TRACE, "mean": TRACE}),
}  # fmt: skip


@pytest.fixture
def four_gigabytes():
    """A call that takes more fails, instead of taking the machine's memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", CALLS)
def test_an_odd_argument_is_taken_or_refused(name, four_gigabytes):
    call, arguments = CALLS[name]
    if "folder" not in str(arguments):
        call(**arguments)
    wrong = {}
    for argument, kind in itertools.product(arguments, ODD):
        if argument == "planner" and callable(ODD[kind]()):
            continue  # errors of a function of the user's are the user's
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                call(**{**arguments, argument: ODD[kind]()})
        except ValueError as error:
            said = str(error)
            if "\n" in said or len(said) > 1500 or isinstance(error, UnicodeError):
                wrong[argument, kind] = said
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            if type(error) is not FileNotFoundError:
                wrong[argument, kind] = repr(error)
    assert not wrong
