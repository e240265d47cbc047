"""The exact split: against a linear program, and by the properties that make it the best one."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from split_cases import (
    crowded_plan,
    expert_sums,
    gpu_sums,
    least_makespan,
    random_counts,
    random_plan,
    reachable,
)
from support import fewer, refused

from eplb_np import Plan, Topology, make_plan
from eplb_np.dispatch import Splitter, split_load

CASES = fewer(400, 40)


def cases(seed, number=CASES):
    """Random plans with counts, as integers and as floats."""
    rng = np.random.default_rng(seed)
    for i in range(number):
        plan = random_plan(rng)
        counts = random_counts(rng, plan.logcnt.shape)
        yield plan, counts if i % 3 else counts * rng.random(counts.shape)


@pytest.mark.parametrize("evened", [False, True])
@pytest.mark.parametrize(
    ("seed", "number"), [(1, CASES), pytest.param(10, 6000, marks=pytest.mark.slow)]
)
def test_equals_a_linear_program(evened, seed, number):
    for plan, counts in cases(seed, number):
        slots = split_load(plan, counts, evened=evened)
        longest = (gpu_sums(plan, slots) / (1 / plan.topology.slowness)).max()
        best = least_makespan(plan, 0, counts[0])
        if counts.dtype.kind == "f":
            assert longest == pytest.approx(best, rel=1e-7, abs=1e-9)
        elif plan.topology.gpu_speeds is None:
            least, most = best * (1 - 1e-7), best * (1 + 1e-7)  # HiGHS is not exact
            assert np.ceil(least - 1e-6) <= longest <= np.ceil(most - 1e-6)
        else:
            slowest = plan.topology.slowness.max()  # time of one unit there
            assert best * (1 - 1e-7) - 1e-9 <= longest < best * (1 + 1e-7) + slowest + 1e-6


@pytest.mark.parametrize("evened", [False, True])
def test_sums_are_exact(evened):
    for plan, counts in cases(2):
        slots = split_load(plan, counts, evened=evened)
        assert slots.dtype == (np.int64 if counts.dtype.kind == "i" else np.float64)
        assert (slots >= 0).all()
        assert not slots[plan.phy2log < 0].any()
        if counts.dtype.kind == "i":
            np.testing.assert_array_equal(expert_sums(plan, slots), counts)
        else:
            np.testing.assert_allclose(expert_sums(plan, slots), counts, rtol=1e-12)


@pytest.mark.parametrize("whole", [True, False], ids=["integers", "floats"])
def test_evened_out_is_as_good_where_sets_cannot_relieve_each_other(whole):
    rng = np.random.default_rng(11)
    for _ in range(fewer(3000, 200)):
        plan = crowded_plan(rng)
        counts = rng.integers(0, 1000, plan.logcnt.shape)
        counts[:, :12] *= rng.integers(1, 6, 12)
        load = counts if whole else counts / 7
        splitter = Splitter(plan)
        plain, even = (
            gpu_sums(plan, splitter.split(load, evened=evened)) for evened in (False, True)
        )
        assert even.max() == pytest.approx(plain.max(), rel=0 if whole else 1e-9)
        assert np.square(even).sum() <= np.square(plain).sum() * (1 + 1e-9)


def test_no_path_evens_out_further():
    """No unit can move from one GPU to another so that the longer of their times gets shorter."""
    for plan, counts in cases(3, fewer(300, 40)):
        slots = split_load(plan, counts)
        load, slowness = gpu_sums(plan, slots)[0], plan.topology.slowness
        unit = 1 if counts.dtype.kind == "i" else max(load.max(), 1e-9) * 1e-6
        for start in range(plan.topology.num_gpus):
            for other in reachable(plan, 0, slots, start):
                assert (load[other] + unit) * slowness[other] >= load[start] * slowness[start] or (
                    load[start] < unit
                )


@pytest.mark.parametrize("evened", [False, True])
def test_integers_take_the_least_time_at_any_speeds(evened):
    """Just below the time found, the binding GPUs have no room for what only they can take."""
    for plan, counts in cases(4):
        if counts.dtype.kind == "f":
            continue
        splitter = Splitter(plan)
        slots = splitter.split(counts, evened=evened)
        time = (gpu_sums(plan, slots) * plan.topology.slowness).max()
        if time == 0:
            continue
        binding = splitter.binding_gpus(counts)[0]
        rows = plan.phy2log[0]
        there = binding[plan.topology.gpu_of_slot]
        captive = [e for e in range(len(counts[0])) if there[rows == e].all()]
        shorter = time * (1 - 1e-12)
        assert counts[0, captive].sum() > np.floor(shorter / plan.topology.slowness[binding]).sum()


def test_binding_gpus_prove_the_makespan_of_floats():
    for plan, counts in cases(5, fewer(400, 30)):
        load = counts.astype(np.float64)
        splitter = Splitter(plan)
        time = (gpu_sums(plan, splitter.split(load)) * plan.topology.slowness).max()
        binding = splitter.binding_gpus(load)[0]
        assert binding.any()
        there = binding[plan.topology.gpu_of_slot]
        captive = [e for e in range(len(load[0])) if there[plan.phy2log[0] == e].all()]
        speed = (1 / plan.topology.slowness[binding]).sum()
        assert load[0, captive].sum() / speed == pytest.approx(time, rel=1e-6, abs=1e-9)


def test_no_worse_where_a_gpu_is_faster():
    for plan, counts in cases(6, fewer(300, 30)):
        if plan.topology.gpu_speeds is None:
            continue
        before = (gpu_sums(plan, split_load(plan, counts)) * plan.topology.slowness).max()
        speeds = [plan.topology.gpu_speeds[0] * 1.5, *plan.topology.gpu_speeds[1:]]
        sizes = plan.topology
        faster = Plan(
            plan.phy2log,
            plan.phyrank,
            Topology(
                sizes.num_experts,
                sizes.num_replicas,
                sizes.num_gpus,
                gpu_slots=np.diff(sizes.first_slots).tolist(),
                gpu_speeds=speeds,
                active_gpus=sizes.active_gpus,
            ),
            "random",
        )
        after = (gpu_sums(faster, split_load(faster, counts)) * faster.topology.slowness).max()
        assert after <= before * (1 + 1e-9)


def test_depends_on_the_counts_only():
    """Other batches before, other threads beside, copies: every rank gets the same numbers."""
    rng = np.random.default_rng(7)
    plan = random_plan(rng, num_layers=3)
    batches = [random_counts(rng, plan.logcnt.shape) for _ in range(fewer(200, 10))]
    splitter = Splitter(plan)
    expected = [splitter.split(batch) for batch in batches]
    copy = pickle.loads(pickle.dumps(splitter))
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(splitter.split, batches))
    for batch, split, beside in zip(batches[::-1], expected[::-1], threaded[::-1], strict=True):
        np.testing.assert_array_equal(copy.split(batch), split)
        np.testing.assert_array_equal(beside, split)
        for layer in range(3):
            np.testing.assert_array_equal(copy.split_layer(layer, batch[layer]), split[layer])


def test_what_is_expected_does_not_change_how_good_it_is():
    rng = np.random.default_rng(8)
    for _ in range(fewer(200, 10)):
        plan = random_plan(rng)
        counts = random_counts(rng, plan.logcnt.shape)
        loads = [
            np.sort(gpu_sums(plan, Splitter(plan, expected).split(counts))[0])
            for expected in (None, counts, random_counts(rng, counts.shape), counts * 0)
        ]
        if plan.topology.gpu_speeds is None:
            for load in loads[1:]:
                np.testing.assert_array_equal(load, loads[0])


def test_writes_into_an_array():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    splitter = Splitter(plan)
    out = np.full((1, 6), -7)
    assert splitter.split([[60, 50, 5, 15]], out=out) is out
    np.testing.assert_array_equal(out, split_load(plan, [[60, 50, 5, 15]]))
    row = np.full(6, -7.0)
    assert splitter.split_layer(0, [60.0, 50, 5, 15], out=row) is row
    np.testing.assert_allclose(row, out[0])


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1.0, 1e280])
def test_floats_of_any_size(scale):
    rng = np.random.default_rng(9)
    for _ in range(fewer(200, 20)):
        plan = random_plan(rng)
        counts = random_counts(rng, plan.logcnt.shape) % 1000 * scale
        slots = split_load(plan, counts)
        assert np.isfinite(slots).all()
        assert (slots >= 0).all()


def test_bad_counts_are_refused():
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    splitter = Splitter(plan)
    with refused("counts has shape (1, 3)", "[layers, experts] = (1, 4)"):
        splitter.split([[1, 2, 3]])
    with refused("counts has shape (1, 4)", "[experts] = (4,)"):
        splitter.split_layer(0, [[1, 2, 3, 4]])
    with refused("counts[0, 1] = -2", "not negative"):
        splitter.split([[1, -2, 3, 4]])
    with refused("counts[2] = nan", "finite"):
        splitter.split_layer(0, [1, 2, np.nan, 4])
    with refused("counts of layer 0", "2**53"):
        splitter.split([[2**53, 2, 1, 1]])
    with refused("evened=2 is unknown", "True or False"):
        splitter.split([[1, 2, 3, 4]], evened=2)
    with refused("layer=1 is too large"):
        splitter.split_layer(1, [1, 2, 3, 4])
    with refused("out=float64 (1, 6)", "int64"):
        splitter.split([[1, 2, 3, 4]], out=np.zeros((1, 6)))
    with refused("out cannot be written in place"):
        splitter.split([[1, 2, 3, 4]], out=np.zeros((1, 12), np.int64)[:, ::2])
    with refused("plan must be a Plan"):
        Splitter(3)
    with refused("expected has shape"):
        Splitter(plan, [[1, 2]])
