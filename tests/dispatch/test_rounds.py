"""The split in rounds, which a GPU makes: equal to its plain twin, and as good as the exact one."""

import naive_split
import numpy as np
import pytest
from recorded import needs_loads, recorded_loads
from round_cases import case_of, round_cases, split
from support import fewer, needs_jit

import eplb_np
from eplb_np.dispatch.cuda_rounds import MOST_ROUNDS
from eplb_np.dispatch.split_cpu import make_split_scratch, split_layers

SIZES = {  # experts, replicas, GPUs, nodes, groups; rounds that were enough, a few more allowed
    "288/8/4/32": (256, 288, 32, 4, 8),
    "288 global 32": (256, 288, 32),
    "320 global 64": (256, 320, 64),
    "360 global 72": (256, 360, 72),
}


def exact(case, counts):
    slot_load = np.zeros(case.plan.phy2log.shape, np.int64)
    split_layers(case.graph, 0, counts, make_split_scratch(case.graph, np.int64), slot_load)
    return slot_load


def gpu_load(case, slot_load):
    """Load of each GPU [L, D]."""
    gpu_of_slot = case.plan.topology.gpu_of_slot
    loads = [np.bincount(gpu_of_slot, row, case.plan.topology.num_gpus) for row in slot_load]
    return np.array(loads)


def makespan(case, slot_load):
    return (gpu_load(case, slot_load) * case.plan.topology.slowness).max(axis=1)


def check_sums(case, counts, slot_load):
    assert (slot_load >= 0).all()
    for row, held, count in zip(slot_load, case.plan.phy2log, counts, strict=True):
        assert (row[held < 0] == 0).all()
        used = held >= 0
        assert (np.bincount(held[used], row[used], len(count)) == count).all()


def test_it_equals_the_plain_twin():
    rounds = 0
    for number, case in enumerate(round_cases(fewer(500, 120), 0)):
        for most_rounds in (MOST_ROUNDS, 1):
            slot_load, done = split(case, most_rounds=most_rounds)
            for i in range(2):
                layer = naive_split.layer_of_graph(case.graph, i, slot_load.shape[1])
                slowness = case.graph.component_slowness[i]
                twin = naive_split.split_layer(layer, slowness, case.counts[i], most_rounds)
                assert (slot_load[i] == twin).all(), f"case {number}, layer {i}"
            rounds = max(rounds, done[:, 0].max())
    assert rounds > 3


def test_it_is_exact_after_any_number_of_rounds_it_needs():
    for number, case in enumerate(round_cases(fewer(2000, 200), 1)):
        slot_load, _ = split(case)
        check_sums(case, case.counts, slot_load)
        best = makespan(case, exact(case, case.counts))
        np.testing.assert_allclose(
            makespan(case, slot_load), best, rtol=1e-12, err_msg=f"case {number}"
        )


def test_few_rounds_keep_every_sum():
    for case in round_cases(fewer(200, 40), 2):
        for most_rounds in (0, 1, 2):
            check_sums(case, case.counts, split(case, most_rounds=most_rounds)[0])


def test_counts_of_other_experts_than_expected():
    """All tokens for one expert, and none: T is what its GPUs take, rounded up."""
    for case in round_cases(fewer(100, 30), 3):
        counts = np.zeros_like(case.counts)
        counts[:, 0] = 1_000_000_007
        slot_load, _ = split(case, counts)
        check_sums(case, counts, slot_load)
        best = makespan(case, exact(case, counts))
        np.testing.assert_allclose(makespan(case, slot_load), best, rtol=1e-12)


def test_one_gpu():
    plan = eplb_np.in_order_plan(1, eplb_np.Topology(3, 5, 1))
    case = case_of(plan, np.ones((1, 3)), np.array([[3, 4, 5]]))
    check_sums(case, case.counts, split(case)[0])


def windows(profile, num_windows, rng, concentration, tokens):
    """Batches of ``tokens`` x 8 around a recording: what the recording's own windows may be."""
    share = profile / profile.sum(axis=1, keepdims=True)
    drawn = rng.gamma(np.maximum(share * concentration, 1e-9), size=(num_windows, *share.shape))
    drawn /= drawn.sum(axis=2, keepdims=True)
    return rng.multinomial(8 * tokens, drawn)


@needs_loads
@needs_jit
@pytest.mark.parametrize("name", list(SIZES))
def test_real_loads(name):
    """Exact on every layer, in few rounds, also for batches of another workload than expected."""
    recordings = [load for _, load in recorded_loads()]
    rng = np.random.default_rng(0)
    for concentration, tokens in ((23_000, 200_000), (9_500, 4_000)):
        expected = windows(recordings[0], 8, rng, concentration, tokens).sum(axis=0)
        plan = eplb_np.make_plan(expected, eplb_np.Topology(*SIZES[name]), policy="refined")
        case = case_of(plan, expected.astype(float), expected)
        batches = windows(recordings[0], 8, rng, concentration, tokens)
        others = windows(recordings[3], 2, rng, concentration, tokens)
        for counts in (*batches, *others):
            slot_load, done = split(case, counts)
            check_sums(case, counts, slot_load)
            assert (makespan(case, slot_load) == makespan(case, exact(case, counts))).all()
            assert done[:, 0].max() <= 24
