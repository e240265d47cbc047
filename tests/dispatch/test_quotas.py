"""Quotas: against the slow twin, and by what they promise about sums and distance."""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import naive_quotas
import numpy as np
import pytest
from quota_cases import Case, random_case, ranks_of
from scipy.optimize import linprog
from support import assert_same, compiled, fewer, needs_jit, output_of, refused

from eplb_np import Plan, Topology, in_order_plan, kernels
from eplb_np.dispatch import Splitter, assign, make_quotas, quotas_cpu

PLAN = in_order_plan(2, Topology(num_experts=3, num_replicas=4, num_gpus=2))
COUNTS = np.array([[[9, 2, 3], [1, 5, 4]], [[0, 0, 1], [2, 0, 0]]])
LOAD = np.array([[6, 7, 7, 4], [1, 0, 1, 1]])


def cases(seed, number, num_layers=1, most=1000):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield random_case(rng, num_layers, most)


def quotas_of(case: Case) -> np.ndarray:
    return make_quotas(case.plan, case.slot_load, case.counts, rank_gpus=case.rank_gpus)


def naive_quotas_of(case: Case) -> np.ndarray:
    topology = case.plan.topology
    places = topology.gpu_of_slot.tolist(), ranks_of(case).tolist(), topology.gpus_per_node
    maps = case.plan.phy2log.tolist(), case.slot_load.tolist(), case.counts.tolist()
    layers = [naive_quotas.quotas_of_layer(*rows, *places) for rows in zip(*maps, strict=True)]
    return np.array(layers, np.int64)


def kept(quotas: np.ndarray, case: Case, size: int) -> int:
    """Tokens that stay on their ``size`` GPUs."""
    near = (ranks_of(case) // size)[:, None] == case.plan.topology.gpu_of_slot // size
    return int(quotas[:, near].sum())


def most_kept(case: Case, size: int) -> int:
    """The same by the sums of the docstring: of what is there, and of what is to get there."""
    gpu = case.plan.topology.gpu_of_slot
    ranks = ranks_of(case)
    number = 0
    for row, load, counts in zip(case.plan.phy2log, case.slot_load, case.counts, strict=True):
        for e in range(counts.shape[1]):
            for place in range(case.plan.topology.num_gpus // size):
                there = counts[ranks // size == place, e].sum()
                number += min(there, load[(row == e) & (gpu // size == place)].sum())
    return int(number)


@pytest.mark.parametrize(
    ("seed", "number"),
    [(1, fewer(500, 80)), pytest.param(10, fewer(10000, 500), marks=pytest.mark.slow)],
)
def test_equals_its_twin(seed, number):
    for i, case in enumerate(cases(seed, number)):
        assert_same([quotas_of(case)], [naive_quotas_of(case)], f"case {i}")


def test_sums_are_exact():
    for case in cases(2, fewer(300, 60), num_layers=3):
        quotas = quotas_of(case)
        assert (quotas >= 0).all()
        np.testing.assert_array_equal(quotas.sum(axis=1), case.slot_load)
        for e in range(case.counts.shape[2]):
            sent = np.where((case.plan.phy2log == e)[:, None], quotas, 0).sum(axis=2)
            np.testing.assert_array_equal(sent, case.counts[:, :, e])


def test_as_many_as_possible_stay_on_their_gpu_and_node():
    for case in cases(3, fewer(300, 60), num_layers=2):
        quotas = quotas_of(case)
        for size in (1, case.plan.topology.gpus_per_node):
            assert kept(quotas, case, size) == most_kept(case, size)


def test_no_other_quotas_keep_more():
    """A linear program: a token on its GPU is worth more than all tokens on their nodes."""
    for case in cases(4, fewer(150, 100), most=20):
        topology, counts, load = case.plan.topology, case.counts[0], case.slot_load[0]
        slot = np.flatnonzero(case.plan.phy2log[0] >= 0)
        expert, gpu, ranks = case.plan.phy2log[0][slot], topology.gpu_of_slot[slot], ranks_of(case)
        large = int(counts.sum()) + 1
        node = topology.gpus_per_node
        same_node = (ranks // node)[:, None] == gpu // node
        worth = large * (ranks[:, None] == gpu) + same_node
        pairs = np.indices(worth.shape).reshape(2, -1)
        sent = [(pairs[0] == r) & (expert[pairs[1]] == e) for r, e in np.ndindex(counts.shape)]
        got = [pairs[1] == j for j in range(len(slot))]
        sums = np.concatenate([counts.ravel(), load[slot]])
        equal = np.array([*sent, *got], float)
        found = linprog(-worth.ravel(), A_eq=equal, b_eq=sums, method="highs")
        assert found.status == 0
        quotas = quotas_of(case)
        assert large * kept(quotas, case, 1) + kept(quotas, case, node) == round(-found.fun)


def test_is_the_same_on_every_rank():
    """Other threads beside, other dtypes and layouts, layer by layer: the same numbers."""
    case = random_case(np.random.default_rng(5), num_layers=3)
    expected = quotas_of(case)
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(quotas_of, [case] * fewer(50, 5)))
    assert_same(beside, [expected] * len(beside), "other threads")
    plan, slot_load, counts, rank_gpus = case
    for form in (
        lambda a: a.astype(np.int32),
        lambda a: a.astype(np.uint16),
        lambda a: a.astype(">i8"),
        np.asfortranarray,
        np.ndarray.tolist,
    ):
        gpus = None if rank_gpus is None else form(rank_gpus)
        given = form(slot_load), form(counts)
        assert_same([make_quotas(plan, *given, rank_gpus=gpus)], [expected], "other forms")
        for layer in range(3):
            given = form(slot_load[layer]), form(counts[layer])
            made = make_quotas(plan, *given, layer, gpus)
            assert_same([made], [expected[layer]], "one layer")


def test_ranks_on_one_gpu_go_by_their_index():
    made = make_quotas(PLAN, LOAD[0], COUNTS[0], layer=0, rank_gpus=[1, 1])
    assert made.tolist() == [[5, 2, 3, 4], [1, 5, 4, 0]]


def test_the_gpus_of_ranks_come_before_their_order():
    rng = np.random.default_rng(6)
    for _ in range(fewer(100, 10)):
        case = random_case(rng)
        gpus = rng.permutation(case.plan.topology.num_gpus)
        counts = rng.integers(0, 50, (1, len(gpus), case.counts.shape[2]))
        slot_load = Splitter(case.plan).split(counts.sum(axis=1))
        made = make_quotas(case.plan, slot_load, counts, rank_gpus=gpus)
        ordered = make_quotas(case.plan, slot_load, counts[:, np.argsort(gpus)])
        np.testing.assert_array_equal(made, ordered[:, gpus])


def test_large_counts_and_none():
    large = 2**42 - 1
    counts = np.full((1, 2, 3), large)
    plan = in_order_plan(1, PLAN.topology)
    with refused("slot_load[1] of layer 0 is 8796093022206", "below 2**42"):
        make_quotas(plan, [[large, 2 * large, 2 * large, large]], counts)
    counts[:, 1, 1:] = 0
    made = make_quotas(plan, [[large, large, large, large]], counts)
    assert made.tolist() == [[[large, large, large, 0], [0, 0, 0, large]]]
    assert not make_quotas(plan, [[0] * 4], np.zeros((1, 2, 3), int)).any()


def test_is_a_kernel_for_compiled_code():
    fill_quotas = compiled(kernels.fill_quotas)
    for case in cases(7, fewer(30, 5), num_layers=2):
        quotas = np.full((2, case.counts.shape[1], case.slot_load.shape[1]), -7)
        topology = case.plan.topology
        places = ranks_of(case), topology.first_slots, topology.gpus_per_node
        fill_quotas(case.slot_load, case.counts, np.array(case.plan.phy2log), *places, quotas)
        assert_same([quotas], [quotas_of(case)], "called by compiled code")


def test_what_does_not_fit_is_refused():
    with refused("plan must be a Plan"):
        make_quotas(3, LOAD, COUNTS)
    with refused("slot_load has shape (4,)", "[2, 4]"):
        make_quotas(PLAN, LOAD[0], COUNTS)
    with refused("slot_load has shape (2, 4) and dtype float64", "integers"):
        make_quotas(PLAN, LOAD * 1.0, COUNTS)
    with refused("counts has shape (2, 3)", "[2, ranks, 3]"):
        make_quotas(PLAN, LOAD, COUNTS[0])
    with refused("counts has shape (2, 0, 3)", "[2, ranks, 3]"):
        make_quotas(PLAN, LOAD, COUNTS[:, :0])
    with refused("counts has shape (2, 2, 3)", "[ranks, 3]"):
        make_quotas(PLAN, LOAD[0], COUNTS, layer=0)
    with refused("layer=2 is too large"):
        make_quotas(PLAN, LOAD[0], COUNTS[0], layer=2)
    with refused("counts has 1 ranks", "num_gpus=2", "rank_gpus"):
        make_quotas(PLAN, LOAD, COUNTS.sum(axis=1, keepdims=True))
    with refused("rank_gpus has shape (3,)", "2 ranks"):
        make_quotas(PLAN, LOAD, COUNTS, rank_gpus=[0, 1, 1])
    with refused("rank_gpus has shape (2,) and dtype float64"):
        make_quotas(PLAN, LOAD, COUNTS, rank_gpus=[0.0, 1.0])
    with refused("rank_gpus[1] = 2 is no GPU", "0 .. 1"):
        make_quotas(PLAN, LOAD, COUNTS, rank_gpus=[0, 2])
    with refused("rank_gpus[0] = -1 is no GPU"):
        make_quotas(PLAN, LOAD, COUNTS, rank_gpus=[-1, 1])


@pytest.mark.parametrize("one_layer", [False, True])
def test_numbers_that_do_not_fit_together_are_refused(one_layer):
    def quotas(load, counts):
        if one_layer:
            return make_quotas(PLAN, load[1], counts[1], layer=1)
        return make_quotas(PLAN, load, counts)

    def changed(array, index, value):
        array = array.copy()
        array[index] = value
        return array

    with refused("slot_load[2] of layer 1 is -1", "at least 0"):
        quotas(changed(LOAD, (1, 2), -1), COUNTS)
    with refused("counts[0, 1] of layer 1 is -3"):
        quotas(LOAD, changed(COUNTS, (1, 0, 1), -3))
    with refused("counts[1, 2] of layer 1 is 4398046511104", "below 2**42"):
        quotas(LOAD, changed(COUNTS, (1, 1, 2), 2**42))
    with refused("expert 0 of layer 1 4 tokens", "add up to 2", "sum of the counts"):
        quotas(changed(LOAD, (1, 3), 3), COUNTS)
    topology = Topology(3, 4, 2, gpu_slots=[3, 1], active_gpus=[0])
    gone = Plan([[0, 1, 2, -1]], [[0, 0, 0, -1]], topology, "by hand")
    with refused("slot_load[3] of layer 0 is 4", "empty", "give 0 there"):
        make_quotas(gone, LOAD[0], COUNTS[0], layer=0)


def numbers_of_signatures():
    """How often each kernel was compiled after calls with arrays of every form."""
    ids = np.array([[0, 1], [0, 2], [0, -1]])
    for dtype in (np.int32, np.int64):
        for order in ("C", "F"):
            plan = in_order_plan(2, PLAN.topology, dtype=dtype)
            load, counts = LOAD.astype(dtype, order), COUNTS.astype(dtype, order)
            quotas = make_quotas(plan, load, counts)
            make_quotas(plan, load[0], counts[0], layer=0, rank_gpus=[1, 0])
            for table in (plan.log2phy[0], np.array(plan.log2phy[0], order="F")):
                assign(ids.astype(dtype, order), [2, 1, 1, 1], table)
                assign(ids[:0].astype(dtype), quotas[0, 0].tolist(), table)
    entries = quotas_cpu.first_bad_layer, quotas_cpu.fill_quotas, quotas_cpu.assign_slots
    return [len(entry.signatures) for entry in entries]


@needs_jit
def test_every_form_of_arrays_uses_the_same_machine_code():
    """In a new process, as other tests call kernels with types of their own."""
    here = str(Path(__file__).parent)
    numbers = output_of(
        f"import sys; sys.path.append({here!r})\n"
        "import test_quotas; print(test_quotas.numbers_of_signatures())"
    )
    assert ast.literal_eval(numbers) == [1, 1, 2]
