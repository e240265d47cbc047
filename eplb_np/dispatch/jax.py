"""Plans, quotas and a slot for each token inside ``jax.jit``. Nothing else here needs JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from eplb_np._arguments import check_is
from eplb_np.dispatch.quotas import make_quotas
from eplb_np.dispatch.splitter import Splitter
from eplb_np.maps.log2phy import width_for_any_plan
from eplb_np.maps.maps import EMPTY, aligned_copy
from eplb_np.plan import Plan

INT32 = np.dtype(np.int32)


class Tables(NamedTuple):
    """Arrays of a plan for traced code, made by `tables`. JAX takes named tuples as pytrees.

    Parameters
    ----------
    phy2log : array, shape [L, P], int32
        As in `eplb_np.Plan`: ``weights[phy2log[layer]]`` are the weights in the slots.
    log2phy : array, shape [L, E, P - E + 1], int32
        As in `eplb_np.Plan`, and always as wide as any plan of these sizes needs.
    logcnt : array, shape [L, E], int32
        As in `eplb_np.Plan`.
    """

    phy2log: Any
    log2phy: Any
    logcnt: Any


def tables(plan: Plan) -> Tables:
    """Return the arrays of a plan that traced code needs, as a pytree.

    Parameters
    ----------
    plan : Plan
        Any plan. If it was made with ``dtype=np.int32``, its own arrays are returned where their
        shapes fit.

    Returns
    -------
    Tables
        NumPy arrays: read-only, int32, and aligned, so that ``jax.device_put`` on a CPU does not
        copy them. Their shapes depend on nothing but the numbers of layers, experts and slots, so
        a compiled function takes the tables of the next plan without being compiled again.

    Raises
    ------
    ValueError
        If ``plan`` is not a `Plan`.

    Notes
    -----
    A `Plan` is no pytree: while tracing, JAX would fill it with what is no array yet, and its
    methods would fail. It would also have to be entered in JAX's registry, which belongs to the
    whole process.

    Examples
    --------
    >>> import jax
    >>> from eplb_np import Topology, in_order_plan
    >>> from eplb_np.dispatch.jax import tables
    >>> plan = in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2))
    >>> jax.jit(lambda weights, t: weights[t.phy2log[0]])(jax.numpy.arange(3.0), tables(plan))
    Array([0., 1., 2., 0.], dtype=float32)
    """
    check_is("plan", plan, Plan, "make one with make_plan, or read it with Plan.load")
    log2phy = plan.log2phy
    width = width_for_any_plan(plan.topology, plan.logcnt)
    if log2phy.shape[2] < width:
        room = np.full((*log2phy.shape[:2], width), EMPTY, INT32)
        room[:, :, : log2phy.shape[2]] = log2phy
        log2phy = room
    return Tables(*(_as_int32(array) for array in (plan.phy2log, log2phy, plan.logcnt)))


def _as_int32(array: NDArray[Any]) -> NDArray[np.int32]:
    """Return a table as JAX can share it: as it is if it is a plan's own, else a copy."""
    own = array.dtype == INT32 and not array.flags.writeable
    return array if own else aligned_copy(array, INT32)


def quotas(splitter: Splitter | Callable[[], Splitter], counts: Array, layer: int | Array) -> Array:
    """Split a batch of a layer, and share the split out to the ranks, inside ``jax.jit``.

    Parameters
    ----------
    splitter : Splitter or callable
        Of the plan in use; or a function that returns it, so that what is compiled can go on with
        other plans of the same sizes.
    counts : jax.Array, shape [num_gpus, E], int
        Tokens of the rank on each GPU for each logical expert: the same on every rank.
    layer : int or jax.Array
        Row of the plan.

    Returns
    -------
    jax.Array, shape [num_gpus, P], int32
        As `eplb_np.dispatch.make_quotas` gives for the split of ``counts``. A rank needs its own
        row, for `assign`.

    Raises
    ------
    ValueError
        If there is no `Splitter`, or ``counts`` has another shape or dtype. Numbers that
        are wrong are found while the compiled function runs: then JAX raises an error of its own,
        which quotes the package's.

    Notes
    -----
    A callback to the host (``jax.pure_callback``) of one layer. JAX must be 0.4.34 or later. The
    function is called while tracing, for the sizes, and whenever the compiled function runs.
    If it returns the splitter of a plan while `assign` is given the table of another one, tokens
    still find their experts, but the quotas are not met.

    Examples
    --------
    >>> import jax
    >>> from eplb_np import Splitter, Topology, in_order_plan
    >>> from eplb_np.dispatch.jax import quotas
    >>> splitter = Splitter(in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2)))
    >>> counts = jax.numpy.array([[9, 2, 3], [1, 5, 4]])
    >>> jax.jit(lambda counts: quotas(splitter, counts, 0))(counts).tolist()
    [[5, 2, 3, 4], [0, 5, 4, 1]]
    """
    topology = _in_use(splitter).plan.topology
    wanted = topology.num_gpus, topology.num_experts
    if counts.shape != wanted or not jnp.issubdtype(counts.dtype, jnp.integer):
        raise ValueError(
            f"counts has shape {counts.shape} and dtype {counts.dtype}: give integers "
            f"[GPUs, experts] = {wanted}"
        )

    def on_host(counts: Array, layer: Array) -> NDArray[np.int32]:
        current, row, tokens = _in_use(splitter), int(layer), np.asarray(counts)
        slot_load = current.split_layer(row, tokens.sum(axis=0, dtype=np.int64))
        return make_quotas(current.plan, slot_load, tokens, row).astype(np.int32)

    like = np.empty((topology.num_gpus, topology.num_replicas), INT32)
    shared: Array = jax.pure_callback(on_host, like, counts, layer, vmap_method="sequential")
    return shared


def _in_use(splitter: Splitter | Callable[[], Splitter]) -> Splitter:
    """Return the splitter, or that of a function, or raise ``ValueError``."""
    found = splitter() if callable(splitter) else splitter
    check_is("splitter", found, Splitter, "make one of the plan in use")
    return found


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
