"""Slots of tokens: against the slow twin, and that every token is kept."""

import naive_quotas
import numpy as np
import pytest
from quota_cases import random_case, routed_ids
from support import assert_same, compiled, fewer, refused

from eplb_np import Topology, in_order_plan, kernels
from eplb_np.dispatch import assign, make_quotas

PLAN = in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2))
TABLE = PLAN.log2phy[0]  # [[0, 3], [1, -1], [2, -1]]
IDS = np.array([[0, 1], [0, 2], [0, -1]])
QUOTAS = np.array([2, 1, 1, 1])


def cases(seed, number):
    """Ids of one rank, its quotas, and the plan."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        case = random_case(rng, most=60)
        quotas = make_quotas(case.plan, case.slot_load, case.counts, rank_gpus=case.rank_gpus)
        rank = rng.integers(case.counts.shape[1])
        yield routed_ids(rng, case.counts[0, rank]), quotas[0, rank], case.plan


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("seed", "number"),
    [(1, fewer(400, 80)), pytest.param(10, fewer(8000, 500), marks=pytest.mark.slow)],
)
def test_equals_its_twin(seed, number, dtype):
    for i, (ids, quotas, plan) in enumerate(cases(seed, number)):
        table = plan.log2phy[0]
        naive = naive_quotas.slots_of_tokens(ids.tolist(), quotas.tolist(), table.tolist())
        expected = np.array(naive, dtype).reshape(ids.shape)
        assert_same([assign(ids.astype(dtype), quotas, table)], [expected], f"case {i}")


def test_every_token_is_kept():
    for ids, quotas, plan in cases(2, fewer(300, 60)):
        slots = assign(ids, quotas, plan.log2phy[0])
        np.testing.assert_array_equal(np.bincount(slots[slots >= 0], minlength=len(quotas)), quotas)
        np.testing.assert_array_equal(slots == -1, ids == -1)
        np.testing.assert_array_equal(plan.phy2log[0][slots[slots >= 0]], ids[ids >= 0])


def test_all_ranks_together_fill_the_split():
    rng = np.random.default_rng(3)
    for _ in range(fewer(100, 20)):
        case = random_case(rng, most=60)
        quotas = make_quotas(case.plan, case.slot_load, case.counts, rank_gpus=case.rank_gpus)
        filled = np.zeros_like(case.slot_load[0])
        for counts, row in zip(case.counts[0], quotas[0], strict=True):
            slots = assign(routed_ids(rng, counts, 2), row, case.plan.log2phy[0])
            filled += np.bincount(slots[slots >= 0], minlength=len(filled))
        np.testing.assert_array_equal(filled, case.slot_load[0])


def test_fewer_tokens_than_counted_are_welcome():
    assert assign(IDS[:1], QUOTAS, TABLE).tolist() == [[0, 1]]
    assert assign(IDS[:0], QUOTAS, TABLE).shape == (0, 2)
    assert assign(np.zeros((3, 0), np.int32), QUOTAS, TABLE).shape == (3, 0)


def test_is_a_kernel_for_compiled_code():
    """It says where the first id is that has no slot, and goes on."""
    assign_slots = compiled(kernels.assign_slots)
    for ids, quotas, plan in cases(4, fewer(30, 5)):
        slots = np.full_like(ids, -7)
        assert assign_slots(ids, quotas, np.array(plan.log2phy[0]), slots) == -1
        assert_same([slots], [assign(ids, quotas, plan.log2phy[0])], "called by compiled code")
    ids = np.array([[0, 1], [0, 3], [0, -1], [0, 2], [1, -5], [0, 0]])
    slots = np.full_like(ids, -7)
    assert assign_slots(ids, QUOTAS, np.array(TABLE), slots) == 3
    naive = naive_quotas.slots_of_tokens(ids.tolist(), QUOTAS.tolist(), TABLE.tolist())
    assert slots.tolist() == naive == [[0, 1], [0, -1], [3, -1], [3, 2], [1, -1], [3, 3]]
    assert assign_slots(ids[[0, 2, 3, 4]], QUOTAS, np.array(TABLE), slots[:4]) == 6


def test_no_table_leads_the_kernel_out_of_its_arrays():
    assign_slots = compiled(kernels.assign_slots)
    for table in ([[4, 3]], [[-2, 3]], [[2**40, 3]], [[-1, 3]]):
        slots = np.full((2, 1), -7)
        assert assign_slots(np.array([[0], [0]]), QUOTAS, np.array(table), slots) == 0
        assert slots.tolist() == [[-1], [-1]]


def test_what_does_not_fit_is_refused():
    with refused("topk_ids has shape (2,)", "[tokens, k]", "topk_ids[:, None]"):
        assign(IDS[0], QUOTAS, TABLE)
    with refused("dtype float64", "int32 or int64"):
        assign(IDS * 1.0, QUOTAS, TABLE)
    with refused("dtype uint8", "int32 or int64"):
        assign(IDS.astype(np.uint8), QUOTAS, TABLE)
    with refused("quotas has shape (1, 4)", "[slots]"):
        assign(IDS, QUOTAS[None], TABLE)
    with refused("quotas has shape (4,) and dtype float64"):
        assign(IDS, QUOTAS * 1.0, TABLE)
    with refused("log2phy has shape (1, 3, 2)", "plan.log2phy[layer]"):
        assign(IDS, QUOTAS, PLAN.log2phy)
    with refused("log2phy has shape (3, 2) and dtype float64"):
        assign(IDS, QUOTAS, TABLE * 1.0)
    with refused("topk_ids[1, 1] = 3 is not an expert id", "0 .. 2", "-1 for padding"):
        assign([[0, 1], [0, 3]], QUOTAS, TABLE)
    with refused("topk_ids[0, 1] = -2 is not an expert id"):
        assign([[0, -2], [0, 1]], QUOTAS, TABLE)
    with refused("expert 0 4 times", "add up to 3", "counts of these ids"):
        assign([[0, 0], [0, 0]], QUOTAS, TABLE)
    with refused("log2phy[0] has the slots [0, 3]", "3 slots", "same plan"):
        assign(IDS, QUOTAS[:3], TABLE)
    with refused("log2phy[1] has the slots []"):
        assign(IDS, QUOTAS, [[0, 3], [-1, -1], [2, -1]])
