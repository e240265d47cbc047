"""What JAX gets, it can share and compile for; loads are taken as JAX has them."""

import pickle

import numpy as np
import pytest
from support import assert_same, refused, run_python

from eplb_np import (
    Plan,
    Rebalancer,
    Splitter,
    Topology,
    in_order_plan,
    lower_bound,
    make_plan,
)
from eplb_np.dispatch import make_quotas
from eplb_np.maps.maps import aligned_copy

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy
dispatch_jax = pytest.importorskip("eplb_np.dispatch.jax")

pytestmark = pytest.mark.same_without_jit

TOPOLOGY = Topology(num_experts=5, num_replicas=7, num_gpus=1)  # odd sizes, so odd addresses
LOAD = np.random.default_rng(1).integers(1, 99, (3, 5))
PLANS = {
    "made": lambda: make_plan(LOAD, TOPOLOGY, dtype=np.int32),
    "mended": lambda: make_plan(LOAD, current=in_order_plan(3, TOPOLOGY, dtype=np.int32),
                                policy="refined"),
    "for the best split": lambda: make_plan(LOAD, TOPOLOGY, policy="refined", split="best",
                                            dtype=np.int32),
    "in order": lambda: in_order_plan(3, TOPOLOGY, dtype=np.int32),
    "unpickled": lambda: pickle.loads(pickle.dumps(make_plan(LOAD, TOPOLOGY, dtype=np.int32))),
}  # fmt: skip


def arrays_of(plan):
    return {
        "phy2log": plan.phy2log,
        "phyrank": plan.phyrank,
        "logcnt": plan.logcnt,
        "log2phy": plan.log2phy,
        "weighted_log2phy": plan.weighted_log2phy(LOAD, width=3),
    }


@pytest.mark.parametrize("made", PLANS.values(), ids=PLANS)
def test_jax_shares_the_memory_of_int32_plans(made):
    held = [made() for _ in range(4)]  # addresses differ
    for plan in held:
        for name, array in {**arrays_of(plan), **dispatch_jax.tables(plan)._asdict()}.items():
            assert (array.dtype, array.flags.writeable) == (np.int32, False), name
            assert jax.device_put(array).unsafe_buffer_pointer() == array.ctypes.data, name


def test_aligned_copies_are_equal_whatever_their_memory():
    for values in (LOAD, LOAD[:, ::2], LOAD.T, LOAD[::-1], LOAD.astype(">i4"), LOAD[:, :0],
                   np.broadcast_to(LOAD[0], LOAD.shape), LOAD.astype(jnp.bfloat16)):  # fmt: skip
        copy = aligned_copy(values)
        assert (copy.dtype, copy.shape) == (values.dtype, values.shape)
        assert copy.flags.c_contiguous
        assert not copy.flags.writeable
        assert not np.shares_memory(copy, values)
        assert copy.ctypes.data % 64 == 0
        np.testing.assert_array_equal(copy, values)


def test_a_plan_survives_what_jax_does_with_its_memory():
    plan = PLANS["made"]()
    before = plan.phy2log.copy()
    add = jax.jit(lambda shared: shared + 1, donate_argnums=0)
    assert (add(jax.device_put(plan.phy2log)) == before + 1).all()
    np.testing.assert_array_equal(plan.phy2log, before)


def test_tables_are_a_pytree_that_is_compiled_once():
    traced = []

    @jax.jit
    def slots(plan, layer):
        traced.append(1)
        return plan.phy2log[layer], plan.log2phy[layer], plan.logcnt[layer]

    lost = Topology(5, 8, num_gpus=4, active_gpus=[0, 1, 3])
    several = [
        make_plan(np.ones((2, 5)), Topology(5, 8, num_gpus=4), dtype=np.int32),
        make_plan(
            [[9, 1, 1, 1, 1], [1, 1, 1, 1, 1]], Topology(5, 8, num_gpus=4), policy="deepseek"
        ),
        make_plan([[90, 1, 1, 1, 1], [1, 1, 8, 1, 1]], lost, policy="refined", dtype=np.int32),
    ]
    for plan in several:
        found = dispatch_jax.tables(plan)
        assert {array.dtype for array in found} == {np.dtype(np.int32)}
        phy2log, log2phy, logcnt = slots(found, 1)
        np.testing.assert_array_equal(phy2log, plan.phy2log[1])
        np.testing.assert_array_equal(logcnt, plan.logcnt[1])
        width = plan.log2phy.shape[2]
        np.testing.assert_array_equal(log2phy[:, :width], plan.log2phy[1])
        assert (log2phy[:, width:] == -1).all()
    assert len(traced) == 1
    with refused("plan must be a Plan, not ndarray"):
        dispatch_jax.tables(LOAD)


def test_quotas_inside_jit_are_those_of_the_host():
    rng = np.random.default_rng(4)
    sizes = Topology(6, 10, num_gpus=5)
    plans = [make_plan(rng.integers(1, 99, (2, 6)), sizes) for _ in range(2)]
    traced, in_use = [], []

    @jax.jit
    def quotas(counts, layer):
        traced.append(1)
        return dispatch_jax.quotas(lambda: in_use[-1], counts, layer)

    for plan in plans:
        in_use.append(Splitter(plan))
        for layer in range(2):
            counts = rng.integers(0, 20, (5, 6)).astype(np.int32)
            split = in_use[-1].split_layer(layer, counts.sum(axis=0))
            found = quotas(jnp.asarray(counts), layer)
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, make_quotas(plan, split, counts, layer))
    assert len(traced) == 1
    both = jax.vmap(lambda counts, layer: dispatch_jax.quotas(in_use[-1], counts, layer))
    np.testing.assert_array_equal(both(counts[None], np.array([1]))[0], found)


def test_quotas_of_what_does_not_fit_are_refused():
    splitter = Splitter(in_order_plan(1, Topology(6, 10, num_gpus=5)))
    with refused("counts has shape (4, 6)", "[GPUs, experts] = (5, 6)"):
        jax.jit(lambda: dispatch_jax.quotas(splitter, jnp.ones((4, 6), int), 0))()
    with refused("dtype float32", "give integers"):
        dispatch_jax.quotas(splitter, jnp.ones((5, 6)), 0)
    with refused("splitter must be a Splitter, not Plan"):
        dispatch_jax.quotas(splitter.plan, jnp.ones((5, 6), int), 0)
    with pytest.raises(Exception, match="counts\\[0\\] = -5: a count must be finite"):
        jax.block_until_ready(dispatch_jax.quotas(splitter, -jnp.ones((5, 6), int), 0))


ARRAYS = {
    "int32": lambda: jnp.asarray(LOAD, jnp.int32),
    "uint8": lambda: jnp.asarray(LOAD, jnp.uint8),
    "float32": lambda: jnp.asarray(LOAD, jnp.float32),
    "bfloat16": lambda: jnp.asarray(LOAD, jnp.bfloat16),
    "float16": lambda: jnp.asarray(LOAD, jnp.float16),
    "committed": lambda: jax.device_put(LOAD.astype(np.float32), jax.devices("cpu")[0]),
    "not contiguous": lambda: jnp.asarray(LOAD.T, jnp.float32).T,
    "computed": lambda: jnp.asarray(LOAD, jnp.int32) * 2 // 2,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_loads_of_jax_are_taken_as_they_come(name):
    given = ARRAYS[name]()
    assert make_plan(given, TOPOLOGY) == make_plan(LOAD, TOPOLOGY)
    assert make_plan(given[None], TOPOLOGY) == make_plan(LOAD, TOPOLOGY)
    plan = make_plan(LOAD, TOPOLOGY)
    numbers = LOAD if jnp.issubdtype(given.dtype, jnp.integer) else LOAD.astype(float)
    found = Splitter(plan, given).split(given)
    assert_same([found], [Splitter(plan, numbers).split(numbers)], name)
    assert plan.balancedness(given) == plan.balancedness(LOAD)
    np.testing.assert_array_equal(lower_bound(given, TOPOLOGY), lower_bound(LOAD, TOPOLOGY))
    rebalancer = Rebalancer(TOPOLOGY, num_layers=3)
    rebalancer.observe(given)
    assert rebalancer.propose().plan == make_plan(LOAD, TOPOLOGY, policy="refined")
    np.testing.assert_array_equal(given, LOAD)


def test_plans_and_quotas_take_arrays_of_jax():
    plan = PLANS["made"]()
    again = Plan(jnp.asarray(plan.phy2log), jnp.asarray(plan.phyrank), TOPOLOGY, plan.policy)
    assert again == plan
    slot_load = Splitter(plan).split(LOAD)
    quotas = make_quotas(plan, jnp.asarray(slot_load), jnp.asarray(LOAD[:, None]))
    np.testing.assert_array_equal(quotas, make_quotas(plan, slot_load, LOAD[:, None]))


def test_a_tracer_is_told_where_to_go():
    plan = PLANS["made"]()
    calls = {
        "load": lambda load: make_plan(load, TOPOLOGY).phy2log,
        "counts": lambda load: Splitter(plan).split(load),
        "expected": lambda load: Splitter(plan, load),
        "phy2log": lambda load: Plan(load, load, TOPOLOGY, "mine").phy2log,
    }
    for name, call in calls.items():
        with refused(f"{name} is traced by JAX", "jax.pure_callback"):
            jax.jit(call)(LOAD)


def test_what_is_deleted_is_refused():
    gone = jnp.asarray(LOAD)
    gone.delete()
    with refused("load cannot be read as an array", "deleted"):
        make_plan(gone, TOPOLOGY)


SHARDED = """
import jax, numpy as np
import eplb_np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
load = np.arange(1.0, 65.0, dtype=np.float32).reshape(4, 16)
topology = eplb_np.Topology(16, 24, num_gpus=4)
plan = eplb_np.make_plan(load, topology, dtype=np.int32)
for spec in (P("a", "b"), P("b"), P(None, ("a", "b")), P()):
    given = jax.device_put(load, NamedSharding(mesh, spec))
    assert eplb_np.make_plan(given, topology, dtype=np.int32) == plan, spec
    assert (eplb_np.Splitter(plan).split(given) == eplb_np.Splitter(plan).split(load)).all()
shared = jax.device_put(plan.phy2log, NamedSharding(mesh, P()))
assert all((shard.data == plan.phy2log).all() for shard in shared.addressable_shards)
print(len(jax.devices()), "devices")
"""


def test_loads_that_are_cut_over_devices_are_taken_too():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = run_python("-c", SHARDED, **flags)
    assert done.stdout == "8 devices\n", done.stderr
