"""Bad input is refused before any kernel runs; all else gives the same plan."""

import ast
from pathlib import Path

import numpy as np
import pytest
from support import assert_same, needs_jit, output_of, refused

import eplb_np
from eplb_np import Topology, kernels
from eplb_np._loads.cpu import first_bad_load
from eplb_np.stages.hierarchy import cpu as hierarchy
from eplb_np.stages.packing import cpu as packing
from eplb_np.stages.replication import cpu as replication

LOAD = np.random.default_rng(5).integers(0, 100, (6, 12)).astype(np.float32)
TOPOLOGY = Topology(12, 16, 8, 2, 4)
LARGE = Topology(1 << 20, 1 << 20, 1)
SIZES = {"num_replicas": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8}
HIERARCHICAL_SIZES = {**SIZES, "num_physical_experts": 16}
del HIERARCHICAL_SIZES["num_replicas"]


def rebalance(load=LOAD, **changes):
    return eplb_np.rebalance_experts(load, **{**SIZES, **changes})


def rebalance_hierarchical(load=LOAD, **changes):
    return eplb_np.rebalance_experts_hierarchical(load, **{**HIERARCHICAL_SIZES, **changes})


def plan(load=LOAD, **changes):
    made = eplb_np.make_plan(load, **{**SIZES, "policy": "hybrid", **changes})
    return made.phy2log, made.log2phy, made.logcnt


def replicate(load=LOAD, num_phy=16):
    return eplb_np.replicate_experts(load, num_phy)


def pack(load=LOAD, num_packs=4, **options):
    return eplb_np.balanced_packing(load, num_packs, **options)


def bound(load=LOAD):
    return (eplb_np.lower_bound(load, TOPOLOGY),)


CALLS = [rebalance, rebalance_hierarchical, plan, replicate, pack, bound]
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)


@pytest.fixture
def no_kernel(monkeypatch):
    """Stop every kernel but the one that looks for bad loads."""

    def run(*args):
        pytest.fail("a kernel ran")

    for module, name in [
        (hierarchy, "plan_layers"),
        (replication, "replicate_layers"),
        (packing, "pack_layers"),
    ]:
        monkeypatch.setattr(module, name, run)


# ---------------------------------------------------------------------------------------------
# Loads
# ---------------------------------------------------------------------------------------------


def with_values(*values, dtype=np.float64):
    """Sound loads, but for some from layer 1, expert 3 onward."""
    load = LOAD.astype(dtype)
    load[1, 3 : 3 + len(values)] = values
    return load


BAD_LOADS = {
    "nan": (with_values(np.nan), ["[1, 3] = nan", "layer 1", "3", "finite", "clean"]),
    "inf": (with_values(np.inf), ["[1, 3] = inf", "layer 1", "finite"]),
    "-inf": (with_values(-np.inf), ["[1, 3] = -inf", "layer 1", "finite"]),
    "negative": (with_values(-2.5), ["[1, 3] = -2.5", "not negative"]),
    "negative int": (with_values(-7, dtype=np.int16), ["[1, 3] = -7", "not negative"]),
    "two bad": (with_values(5, -1, np.nan), ["[1, 4] = -1.0"]),
    "beyond float32": (with_values(1e39), ["[1, 3] = 1e+39", "3.4e+38", "scale"]),
    "far beyond": (with_values(2.0**1000), ["[1, 3]", "beyond float32", "scale"]),
    "beyond as longdouble": (with_values(1e200, dtype=np.longdouble), ["beyond float32", "scale"]),
    "sum beyond float32": (with_values(1e38, 1e38), ["layer 1", "sum", "2**127", "scale"]),
    "0-D": (5.0, ["0 dimension", "[layers, "]),
    "1-D": (LOAD[0], ["1 dimension", "(12,)", "[layers, ", "[None, :]"]),
    "4-D": (LOAD[None, None], ["4 dimension", "(1, 1, 6, 12)", "layers, "]),
    "no layers": (LOAD[:0], ["0, 12)", "is empty"]),
    "no experts": (LOAD[:, :0], ["6, 0)", "is empty"]),
    "complex": (LOAD.astype(complex), ["complex128", "real number", "give integers or"]),
    "strings": (LOAD.astype(str), ["<U", "real number"]),
    "objects": (LOAD.astype(object), ["object", "real number"]),
    "none": (None, ["object", "real number"]),
    "too large an int": ([[10**400]], ["object", "real number"]),
    "dates": (LOAD.astype("M8[s]"), ["datetime64", "real number"]),
    "records": (np.zeros((6, 12), "f4,f4"), ["real number"]),
    "masked": (np.ma.masked_equal(LOAD, LOAD[1, 3]), ["masked entries", "fill them"]),
    "ragged": ([[1, 2], [3]], ["not a rectangular array", "same length"]),
}


@every_call
@pytest.mark.parametrize("kind", BAD_LOADS)
def test_bad_loads_are_refused(kind, call, no_kernel):
    load, parts = BAD_LOADS[kind]
    with refused(*parts):
        call(load)


@pytest.mark.parametrize("call", [call for call in CALLS if call is not plan])
def test_windows_are_only_planned_from(call, no_kernel):
    with refused("3 dimension", "(1, 6, 12)", "[layers, ", "sum or select"):
        call(LOAD[None])


MEASURES = ["gpu_load", "balancedness", "replica_balancedness", "lower_bound"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_bad_loads_are_not_measured(value, measure):
    made = eplb_np.make_plan(LOAD, TOPOLOGY)
    with refused(f"[1, 3] = {value}", "layer 1, expert 3", "clean"):
        getattr(made, measure)(with_values(value))


OF_ANOTHER_KIND = {
    "make_plan's topology": (lambda: eplb_np.make_plan(LOAD, 5), "topology", "Topology"),
    "in_order_plan's": (lambda: eplb_np.in_order_plan(6, 5), "topology", "Topology"),
    "lower_bound's": (lambda: eplb_np.lower_bound(LOAD, 5), "topology", "Topology"),
    "Rebalancer's": (lambda: eplb_np.Rebalancer(5, 6), "topology", "Topology"),
    "Plan's": (lambda: eplb_np.Plan([[0]], [[0]], 5, "mine"), "topology", "Topology"),
    "current": (
        lambda: eplb_np.make_plan(LOAD, current=5, policy="refined"), "current", "Plan",
    ),
    "moves": (lambda: eplb_np.in_order_plan(6, TOPOLOGY).moves_from(5), "other", "Plan"),
    "limits": (
        lambda: eplb_np.make_plan(
            LOAD, current=eplb_np.in_order_plan(6, TOPOLOGY), policy="refined", limits=5
        ),
        "limits", "MoveLimits",
    ),
    "Rebalancer's limits": (
        lambda: eplb_np.Rebalancer(TOPOLOGY, 6, limits=5), "limits", "MoveLimits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OF_ANOTHER_KIND)
def test_what_is_of_another_kind_is_refused(what, no_kernel):
    call, name, kind = OF_ANOTHER_KIND[what]
    with refused(f"{name} must be a {kind}, not int: "):
        call()


# ---------------------------------------------------------------------------------------------
# Sizes and options
# ---------------------------------------------------------------------------------------------

BAD_SIZES = [
    ({"num_replicas": 18}, ["num_replicas=18", "num_gpus=8", "16 or 24"]),
    ({"num_replicas": 5}, ["num_replicas=5", "num_experts=12", "num_replicas=16 or more"]),
    ({"num_replicas": 8}, ["num_replicas=8", "num_experts=12", "num_replicas=16 or more"]),
    ({"num_gpus": 4, "num_nodes": 3}, ["num_gpus=4", "num_nodes=3", "3 or 6"]),
    ({"num_groups": 5}, ["num_experts=12", "num_groups=5", "10 or 15"]),
]


@pytest.mark.parametrize("call", [rebalance, plan])
@pytest.mark.parametrize(("sizes", "parts"), BAD_SIZES)
def test_sizes_that_do_not_fit_are_refused(sizes, parts, call, no_kernel):
    with refused(*parts):
        call(**sizes)


@pytest.mark.parametrize(("sizes", "parts"), BAD_SIZES[1:])  # the first is one, for refined
def test_sizes_that_do_not_fit_are_no_topology(sizes, parts):
    with refused(*parts):
        Topology(12, **{**SIZES, **sizes})


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ({"num_groups": 3}, ["num_groups=3", "num_nodes=2", "2 or 4"]),
        ({"num_gpus": 3}, ["num_gpus=3", "num_nodes=2", "2 or 4"]),
        ({"num_gpus": 6}, ["num_replicas=16", "num_gpus=6", "12 or 18"]),
        ({"num_physical_experts": 8}, ["num_replicas=8", "num_experts=12", "16 or more"]),
    ],
)
def test_hierarchy_needs_whole_groups_on_nodes(sizes, parts, no_kernel):
    with refused(*parts):
        rebalance_hierarchical(**sizes)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (0, ["=0", "at least 1"]),
        (-4, ["=-4", "at least 1"]),
        (4.0, ["=4.0", "not an integer", "give an int"]),
        (np.float64(4), ["4.0", "not an integer"]),
        ("4", ["='4'", "not an integer"]),
        (True, ["=True", "give an integer"]),
        (np.True_, ["True", "give an integer"]),
        ([4], ["=[4]", "not an integer"]),
    ],
)
@pytest.mark.parametrize(
    ("call", "name"),
    [(rebalance, name) for name in [*SIZES, "num_threads"]]
    + [(plan, name) for name in [*SIZES, "num_threads"]]
    + [(rebalance_hierarchical, name) for name in ["num_gpus", "num_threads"]]
    + [(replicate, "num_phy"), (pack, "num_packs")],
)
def test_what_is_no_size_is_refused(call, name, value, parts, no_kernel):
    with refused(name, *parts):
        call(**{name: value})


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: replicate(num_phy=11), ["num_phy=11", "12 experts", "num_phy=12 or more"]),
        (lambda: pack(num_packs=5), ["items=12", "num_packs=5", "10 or 15"]),
        (lambda: pack(num_packs=24), ["items=12", "num_packs=24"]),
        (lambda: pack(num_packs=2**64), ["num_packs=18446744073709551616", "at most 1048576"]),
        (lambda: replicate(num_phy=10**12), ["num_phy=1000000000000", "at most 1048576"]),
        (lambda: plan(num_threads=10**12), ["num_threads=1000000000000", "at most 1048576"]),
        (lambda: plan(num_gpus=10**9), ["num_gpus=1000000000", "at most 1048576"]),
        (lambda: eplb_np.in_order_plan(1 << 20, LARGE), ["1048576 layers", "GB of memory", "give"]),
        (lambda: eplb_np.Rebalancer(LARGE, 1 << 20), ["(1048576, 1048576)", "GB of memory"]),
        (lambda: rebalance(np.ones((1024, 1 << 14)), num_replicas=1 << 19), ["GB of memory"]),
        (lambda: eplb_np.MoveLimits(total=-(10**30)), ["total=-1000000", "at least 0"]),
        (lambda: eplb_np.MoveLimits(price="3"), ["price='3'", "finite number"]),
        (lambda: pack(refine_steps=-1), ["refine_steps=-1", "at least 0"]),
        (lambda: pack(refine_steps=1.5), ["refine_steps=1.5", "not an integer"]),
        (lambda: rebalance(policy="best"), ["policy='best'", "'hybrid', 'deepseek'"]),
        (lambda: plan(policy=None), ["policy=None", "'hybrid', 'deepseek'"]),
        (lambda: plan(dtype=np.int16), ["int16", "int64 or int32"]),
        (lambda: plan(dtype="integer"), ["'integer'", "int64 or int32"]),
        (lambda: plan(num_gpus=None), ["num_gpus=None", "Topology"]),
        (lambda: plan(topology=TOPOLOGY), ["both", "one or the other"]),
        (lambda: eplb_np.make_plan(LOAD), ["num_replicas=None", "num_gpus=None"]),
        (lambda: eplb_np.make_plan(LOAD, 16), ["topology must be a Topology", "num_replicas="]),
        (lambda: eplb_np.make_plan(LOAD[:, :8], TOPOLOGY), ["8 experts", "num_experts=12"]),
        (lambda: plan(moe_layer_ids=[1, 2]), ["moe_layer_ids", "6 layers", "one id for each"]),
        (lambda: plan(moe_layer_ids=[5, 4, 3, 2, 1, 0]), ["moe_layer_ids", "ascending"]),
        (lambda: eplb_np.in_order_plan(0, TOPOLOGY), ["num_layers=0", "at least 1"]),
        (lambda: eplb_np.in_order_plan(1, TOPOLOGY, dtype=float), ["float", "int64 or int32"]),
    ],
)  # fmt: skip
def test_other_bad_arguments_are_refused(call, parts, no_kernel):
    with refused(*parts):
        call()


def test_numbers_beyond_int64_are_as_good_as_no_limit():
    assert_same(pack(refine_steps=2**64), pack(refine_steps=1 << 20), "steps")
    limits = eplb_np.MoveLimits(total=10**30, per_gpu=2**64)
    assert limits == eplb_np.MoveLimits()
    current = eplb_np.in_order_plan(6, TOPOLOGY)
    mended = [
        eplb_np.make_plan(LOAD, current=current, policy="refined", limits=each)
        for each in (limits, None)
    ]
    assert mended[0] == mended[1]


def test_a_lack_of_memory_says_how_much_is_needed(monkeypatch):
    def fail(*args):
        raise MemoryError("Allocation failed (probably too large).")

    monkeypatch.setattr("eplb_np.stages.hierarchy.cpu.plan_layers", fail)
    monkeypatch.setattr("eplb_np.stages.hierarchy.simd.plan_layers_in_lockstep", fail)
    with pytest.raises(MemoryError, match=r"6 layers of 16 slots needs about 2\.3e-06 GB"):
        plan()


# ---------------------------------------------------------------------------------------------
# What is accepted
# ---------------------------------------------------------------------------------------------

REAL_DTYPES = ["int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32",
               "float64", "longdouble", ">i4", ">u8", ">f2", ">f4", "<f4", ">f8"]  # fmt: skip


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


ACCEPTED = {dtype: LOAD.astype(dtype) for dtype in REAL_DTYPES} | {
    "list of lists": LOAD.tolist(),
    "tuple of arrays": tuple(LOAD),
    "fortran": np.asfortranarray(LOAD),
    "strided": np.repeat(np.repeat(LOAD, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": LOAD[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": LOAD.T.copy().T,
    "read-only": read_only(LOAD),
    "unaligned": unaligned(LOAD),
    "matrix": LOAD.view(np.recarray),
}


@every_call
@pytest.mark.parametrize("kind", ACCEPTED)
def test_every_form_of_loads_gives_the_same(kind, call):
    assert_same(call(ACCEPTED[kind]), call(LOAD), kind)


@every_call
def test_booleans_and_repeated_rows_are_loads(call):
    busy = LOAD > 50
    assert_same(call(busy), call(busy.astype(np.float32)), "bool")
    repeated = np.broadcast_to(LOAD[0], LOAD.shape)
    assert_same(call(repeated), call(repeated.copy()), "rows with stride 0")
    equal = np.broadcast_to(np.float32(7), LOAD.shape)
    assert_same(call(equal), call(equal.copy()), "everything with stride 0")


@every_call
def test_bfloat16_is_a_load(call):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert_same(call(LOAD.astype(ml_dtypes.bfloat16)), call(LOAD), "bfloat16")


@every_call
def test_loads_are_not_written_to(call):
    load = LOAD.copy()
    call(load)
    assert_same([load], [LOAD], "the caller's array")


STAGES = (
    "fill_log2phy", "pack_layers", "plan_layers", "plan_layers_in_lockstep", "replicate_layers",
)  # fmt: skip


def numbers_of_signatures():
    """How often each kernel was compiled after calls of every form."""
    for call in CALLS:
        for load in ACCEPTED.values():
            call(load)
    rebalance(num_threads=3)
    rebalance(LOAD[:1])  # too few nodes for a SIMD batch
    plan(dtype=np.int32, num_gpus=np.int32(4), policy="deepseek")
    pack(refine_steps=np.uint8(1))
    entries = [first_bad_load, *(getattr(kernels, name) for name in STAGES)]
    return {entry.__name__: len(entry.signatures) for entry in entries}


@needs_jit
def test_every_form_of_loads_uses_the_same_machine_code():
    """In a new process, as other tests may call kernels with types of their own."""
    here = str(Path(__file__).parent)
    numbers = output_of(
        f"import sys; sys.path.append({here!r})\n"
        "import test_bad_input; print(test_bad_input.numbers_of_signatures())"
    )
    assert set(ast.literal_eval(numbers).values()) == {1}
