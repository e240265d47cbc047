"""A slot for each token inside ``jax.jit``. Needs JAX, which nothing else of the package does."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def assign(topk_ids: Array, quotas: Array, log2phy: Array) -> Array:
    """Turn the experts that a rank's tokens were routed to into slots, as its quotas say.

    The same slots as `eplb_np.dispatch.assign`, in traced code. All shapes are static.

    Parameters
    ----------
    topk_ids : jax.Array, shape [T, k], int
        Logical experts of each of the rank's tokens. -1 is padding, and stays -1.
    quotas : jax.Array, shape [P], int
        Tokens that this rank sends to each slot: its row of `eplb_np.dispatch.make_quotas`.
    log2phy : jax.Array, shape [E, X], int
        Slot of each replica of each expert, padded with -1: ``plan.log2phy[layer]``.

    Returns
    -------
    jax.Array, shape [T, k], dtype of topk_ids
        Slot that holds each token's expert. If the ids are those that were counted, each slot
        stands there as often as its quota says.

    Notes
    -----
    Traced code cannot raise errors. If an expert is chosen more often than its quotas add up to,
    the rest of its tokens goes to the last slot of its row of ``log2phy``: each token still finds
    its expert. What is no expert id becomes -1.

    A stable sort numbers the ids of each expert, and a binary search in the sums of all quotas,
    in the order of ``log2phy``, finds the slots: O(T k log(T k E X)). The quotas must add up to
    less than 2**31 if 64-bit types are off in JAX.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from eplb_np import Topology, in_order_plan
    >>> from eplb_np.dispatch.jax import assign
    >>> plan = in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2))
    >>> topk_ids = jnp.array([[0, 1], [0, 2], [0, -1]])
    >>> quotas = jnp.array([2, 1, 1, 1])
    >>> jax.jit(assign)(topk_ids, quotas, jnp.asarray(plan.log2phy[0])).tolist()
    [[0, 1], [0, 2], [3, -1]]
    """
    num_experts, width = log2phy.shape
    ids = topk_ids.ravel()
    sound = (ids >= 0) & (ids < num_experts)
    expert = jnp.where(sound, ids, num_experts)

    order = jnp.argsort(expert, stable=True)
    chosen = jnp.bincount(expert, length=num_experts + 1)
    first = jnp.cumsum(chosen) - chosen
    turn = jnp.zeros_like(order).at[order].set(jnp.arange(ids.size)) - first[expert]

    quota = jnp.where(log2phy >= 0, jnp.maximum(quotas[log2phy], 0), 0)
    end = jnp.cumsum(quota)
    before = end.reshape(log2phy.shape)[:, -1] - quota.sum(axis=1)
    expert = jnp.where(sound, expert, 0)
    place = jnp.searchsorted(end, before[expert] + turn, side="right")
    last = width * expert + jnp.maximum((log2phy >= 0).sum(axis=1), 1)[expert] - 1
    slot = log2phy.ravel()[jnp.minimum(place, last)]
    return jnp.where(sound, slot, -1).astype(topk_ids.dtype).reshape(topk_ids.shape)
