"""The form for JAX gives the same slots, inside ``jax.jit``."""

import naive_quotas
import numpy as np
import pytest
from quota_cases import any_split, plan_on_nodes, routed_ids

from eplb_np.dispatch import assign, make_quotas

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy
dispatch_jax = pytest.importorskip("eplb_np.dispatch.jax")

pytestmark = pytest.mark.same_without_jit

NUM_TOKENS, WIDTH = 64, 4  # JAX compiles for each shape


@pytest.fixture(params=[np.int32, np.int64])
def dtype(request):
    """With 64-bit types on where ids have them."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param is np.int64)
    yield request.param
    jax.config.update("jax_enable_x64", before)


def padded(ids):
    """Ids in rows of the one shape, with padding at the end."""
    filled = np.full((NUM_TOKENS, WIDTH), -1)
    filled[: len(ids)] = ids
    return filled


def test_equals_the_form_for_the_cpu(dtype):
    rng = np.random.default_rng(1)
    in_jax = jax.jit(dispatch_jax.assign)
    for _ in range(2):
        plan = plan_on_nodes(rng, 1)
        num_gpus, num_experts = plan.topology.num_gpus, plan.topology.num_experts
        table = plan.log2phy[0].astype(dtype)
        for _ in range(150):
            most = int(rng.integers(1, 240 // num_experts))
            counts = rng.integers(0, most + 1, (1, num_gpus, num_experts))
            slot_load = any_split(rng, plan, counts.sum(axis=1))
            rank = rng.integers(num_gpus)
            quotas = make_quotas(plan, slot_load, counts)[0, rank].astype(dtype)
            ids = padded(routed_ids(rng, counts[0, rank])).astype(dtype)
            slots = in_jax(jnp.asarray(ids), jnp.asarray(quotas), jnp.asarray(table))
            assert slots.dtype == dtype
            np.testing.assert_array_equal(slots, assign(ids, quotas, table))


def test_tokens_beyond_the_quotas_stay_with_their_expert(dtype):
    """Traced code cannot refuse them; what is no expert becomes -1."""
    rng = np.random.default_rng(2)
    in_jax = jax.jit(dispatch_jax.assign)
    for _ in range(2):
        plan = plan_on_nodes(rng, 1)
        num_experts = plan.topology.num_experts
        table = plan.log2phy[0].astype(dtype)
        for _ in range(100):
            ids = rng.integers(-2, num_experts + 2, (16, WIDTH)).astype(dtype)
            quotas = rng.integers(-2, 6, plan.topology.num_replicas).astype(dtype)
            slots = in_jax(jnp.asarray(ids), jnp.asarray(quotas), jnp.asarray(table))
            expected = naive_quotas.slots_of_tokens(ids.tolist(), quotas.tolist(), table.tolist())
            assert slots.tolist() == expected


def test_no_tokens():
    quotas, table = jnp.array([2, 1]), jnp.array([[0], [1]])
    for shape in ((0, 4), (4, 0)):
        slots = jax.jit(dispatch_jax.assign)(jnp.zeros(shape, jnp.int32), quotas, table)
        assert slots.shape == shape
    lone = jnp.full((3, 1), -1)
    assert jax.jit(dispatch_jax.assign)(lone, quotas, table).tolist() == [[-1]] * 3


def test_inside_vmap_over_ranks():
    rng = np.random.default_rng(3)
    plan = plan_on_nodes(rng, 1)
    counts = rng.integers(0, 8, (1, plan.topology.num_gpus, plan.topology.num_experts))
    quotas = make_quotas(plan, any_split(rng, plan, counts.sum(axis=1)), counts)[0]
    ids = np.stack([padded(routed_ids(rng, row)) for row in counts[0]])
    in_jax = jax.jit(jax.vmap(dispatch_jax.assign, (0, 0, None)))
    slots = in_jax(jnp.asarray(ids), jnp.asarray(quotas), jnp.asarray(plan.log2phy[0]))
    for rank, row in enumerate(quotas):
        np.testing.assert_array_equal(slots[rank], assign(ids[rank], row, plan.log2phy[0]))
