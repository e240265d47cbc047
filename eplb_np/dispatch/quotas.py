"""Who sends what where: quotas of the ranks for the slots, and a slot for each token."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import LARGEST_SIZE, as_size, check_is
from eplb_np._loads.host import as_array
from eplb_np.maps.maps import read_only
from eplb_np.plan import Plan
from eplb_np.topology import Topology


def make_quotas(
    plan: Plan,
    slot_load: ArrayLike,
    counts: ArrayLike,
    layer: int | None = None,
    rank_gpus: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Say how many tokens each rank sends to each slot, so that few travel far.

    Ranks are the processes that route tokens, each with tokens of its own. Every rank that passes
    the same arguments gets the same quotas.

    Parameters
    ----------
    plan : Plan
        The plan in use.
    slot_load : array_like, shape [L, P], int
        Tokens that each slot is to get: a split of ``counts``, summed over the ranks, into whole
        tokens. 0 in an empty slot.
    counts : array_like, shape [L, ranks, E], int
        Tokens of each rank for each logical expert, each below 2**42.
    layer : int, optional
        Row of the plan. If given, ``slot_load`` [P] and ``counts`` [ranks, E] are of this layer
        alone.
    rank_gpus : array_like, shape [ranks], int, optional
        GPU that each rank is on. By default there is one rank for each GPU, and rank r is on
        GPU r. Several ranks may share a GPU, and GPUs may be without one.

    Returns
    -------
    ndarray, shape [L, ranks, P] or [ranks, P], int64
        Tokens that each rank sends to each slot. For each expert, a rank's row adds up to its
        count; each column adds up to ``slot_load``.

    Raises
    ------
    ValueError
        If a shape or a dtype does not fit the plan, a number is negative or too large, or the
        slots of an expert have not the same total as its counts.

    Notes
    -----
    For each expert, there are three stages. In each of them, ranks go in the order of their GPUs,
    and by index on one GPU. Each fills the slots in the order of their indices, as far as they
    have room.

    1. Each rank sends to the slots of its own GPU.
    2. What is left goes to the slots of its own node.
    3. What is left then goes to any slot.

    So as many tokens as possible stay on their GPU, and of all such quotas, these keep as many as
    possible on their node. For each expert, these are the sums over GPUs, and over nodes, of the
    smaller of two numbers: what the ranks there have, and what the slots there are to get.
    O(L ranks P).

    Examples
    --------
    >>> from eplb_np import Topology, in_order_plan
    >>> from eplb_np.dispatch import make_quotas
    >>> plan = in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2))
    >>> plan.phy2log.tolist()
    [[0, 1, 2, 0]]

    Expert 0 has 10 tokens: 6 for slot 0 on GPU 0, and 4 for slot 3 on GPU 1. Rank 0, on GPU 0,
    has 9 of them.

    >>> counts = [[9, 2, 3], [1, 5, 4]]
    >>> make_quotas(plan, [6, 7, 7, 4], counts, layer=0).tolist()
    [[6, 2, 3, 3], [0, 5, 4, 1]]
    """
    check_is("plan", plan, Plan, "make one with make_plan, or read it with Plan.load")
    topology = plan.topology
    axes = (plan.num_layers,) if layer is None else ()
    rows = slice(None)
    if layer is not None:
        row = as_size("layer", layer, 0, maximum=plan.num_layers - 1)
        rows = slice(row, row + 1)
    given_load = _as_tokens("slot_load", slot_load, (*axes, topology.num_replicas))
    given_counts = _as_tokens("counts", counts, (*axes, None, topology.num_experts))
    gpus = _as_gpus(rank_gpus, given_counts.shape[-2], topology)

    phy2log = read_only(plan.phy2log[rows].astype(np.int64, copy=False))
    num_layers = phy2log.shape[0]
    load = given_load.reshape(num_layers, -1)
    tokens = given_counts.reshape(num_layers, *given_counts.shape[-2:])
    from eplb_np.dispatch.quotas_cpu import fill_quotas, first_bad_layer

    bad = int(first_bad_layer(load, tokens, phy2log))
    if bad >= 0:
        _raise_bad_tokens(
            bad + (rows.start or 0), np.array(load[bad]), np.array(tokens[bad]), phy2log[bad]
        )
    quotas = np.empty((num_layers, tokens.shape[1], load.shape[1]), np.int64)
    fill_quotas(load, tokens, phy2log, gpus, topology.first_slots, topology.gpus_per_node, quotas)
    return quotas if layer is None else quotas[0]


def assign(
    topk_ids: ArrayLike, quotas: ArrayLike, log2phy: ArrayLike
) -> NDArray[np.signedinteger[Any]]:
    """Turn the experts that a rank's tokens were routed to into slots, as its quotas say.

    Parameters
    ----------
    topk_ids : array_like, shape [T, k], int32 or int64
        Logical experts of each of the rank's tokens. -1 is padding, and stays -1.
    quotas : array_like, shape [P], int
        Tokens that this rank sends to each slot: its row of `make_quotas`.
    log2phy : array_like, shape [E, X], int
        Slot of each replica of each expert, padded with -1: ``plan.log2phy[layer]``.

    Returns
    -------
    ndarray, shape [T, k], dtype of topk_ids
        Slot that holds each token's expert. If the ids are those that were counted, each slot
        stands there as often as its quota says.

    Raises
    ------
    ValueError
        If a shape or a dtype is wrong, an id is not that of an expert, or an expert is chosen
        more often than its quotas add up to.

    Notes
    -----
    An expert's ids are counted row by row. The first ones go to the first slot of its row of
    ``log2phy``, up to that slot's quota, the next ones to the second slot, and so on. One pass:
    O(T k + E). ``log2phy`` is copied unless it has the dtype of ``topk_ids``; plans have int32
    with ``make_plan(..., dtype=np.int32)``. `eplb_np.dispatch.jax.assign` gives the same slots
    inside ``jax.jit``, and `eplb_np.kernels` has the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology, in_order_plan
    >>> from eplb_np.dispatch import assign
    >>> plan = in_order_plan(1, Topology(num_experts=3, num_replicas=4, num_gpus=2))
    >>> plan.phy2log.tolist()
    [[0, 1, 2, 0]]
    >>> topk_ids = np.array([[0, 1], [0, 2], [0, -1]])
    >>> assign(topk_ids, [2, 1, 1, 1], plan.log2phy[0]).tolist()
    [[0, 1], [0, 2], [3, -1]]
    """
    ids: NDArray[Any] = as_array(topk_ids, "topk_ids")
    if ids.ndim != 2 or ids.dtype not in (np.int32, np.int64):
        raise ValueError(
            f"topk_ids has shape {ids.shape} and dtype {ids.dtype}: give int32 or int64 ids "
            "[tokens, k] (topk_ids[:, None] where each token has one expert)"
        )
    given_quotas = _as_tokens("quotas", quotas, (None,))
    given_table = as_array(log2phy, "log2phy")
    if given_table.ndim != 2 or given_table.size == 0 or given_table.dtype.kind not in "iu":
        raise ValueError(
            f"log2phy has shape {given_table.shape} and dtype {given_table.dtype}: give the "
            "integers [experts, replicas] of one layer, plan.log2phy[layer]"
        )
    # One of two types, so that the kernel is compiled for no others.
    kind = np.dtype(np.int32 if ids.dtype == np.int32 else np.int64)
    ids = read_only(ids.astype(kind, copy=False))
    table = read_only(given_table.astype(kind, copy=False))
    slots = np.empty(ids.shape, kind)
    from eplb_np.dispatch.quotas_cpu import assign_slots

    bad = int(assign_slots(ids, given_quotas, table, slots))
    if bad >= 0:
        _raise_no_slot(bad, ids, given_quotas, table)
    return slots


def _as_tokens(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    """Return numbers of tokens in the form that kernels take, if they fit a shape.

    None in a shape stands for any size but 0.
    """
    given = as_array(values, name)
    fits = given.ndim == len(shape) and all(
        size > 0 if wanted is None else size == wanted
        for size, wanted in zip(given.shape, shape, strict=True)
    )
    if not fits or given.dtype.kind not in "iu":
        wanted = ", ".join("ranks" if size is None else str(size) for size in shape)
        wanted = "slots" if shape == (None,) else wanted
        raise ValueError(
            f"{name} has shape {given.shape} and dtype {given.dtype}: give integers [{wanted}]"
        )
    return read_only(given.astype(np.int64, copy=False))


def _as_gpus(rank_gpus: ArrayLike | None, num_ranks: int, topology: Topology) -> NDArray[np.int64]:
    """Return the GPU of each rank, or raise ``ValueError``."""
    num_gpus = topology.num_gpus
    if num_ranks > LARGEST_SIZE:
        raise ValueError(f"counts has {num_ranks} ranks: give at most {LARGEST_SIZE}")
    if rank_gpus is None:
        if num_ranks != num_gpus:
            raise ValueError(
                f"counts has {num_ranks} ranks, but the plan has num_gpus={num_gpus}: give a row "
                "for each GPU, or the GPU of each rank as rank_gpus"
            )
        return read_only(np.arange(num_gpus))
    given: NDArray[Any] = as_array(rank_gpus, "rank_gpus")
    if given.shape != (num_ranks,) or given.dtype.kind not in "iu":
        raise ValueError(
            f"rank_gpus has shape {given.shape} and dtype {given.dtype}, but counts has "
            f"{num_ranks} ranks: give a GPU for each"
        )
    wrong = (given < 0) | (given >= num_gpus)
    if wrong.any():
        rank = int(wrong.argmax())
        raise ValueError(f"rank_gpus[{rank}] = {given[rank]} is no GPU: give 0 .. {num_gpus - 1}")
    return read_only(given.astype(np.int64))


def _raise_bad_tokens(
    layer: int,
    slot_load: NDArray[np.int64],
    counts: NDArray[np.int64],
    phy2log: NDArray[np.int64],
) -> NoReturn:
    from eplb_np.dispatch.quotas_cpu import LARGEST_COUNT

    for name, values in (("slot_load", slot_load), ("counts", counts)):
        wrong = (values < 0) | (values >= LARGEST_COUNT)
        if wrong.any():
            place = np.argwhere(wrong)[0]
            index = ", ".join(map(str, place.tolist()))
            raise ValueError(
                f"{name}[{index}] of layer {layer} is {values[tuple(place)]}: give numbers of "
                "tokens, at least 0 and below 2**42"
            )
    misplaced = (phy2log < 0) & (slot_load > 0)
    if misplaced.any():
        slot = int(misplaced.argmax())
        raise ValueError(
            f"slot_load[{slot}] of layer {layer} is {slot_load[slot]}, but the slot is empty in "
            "the plan: give 0 there, and a split made for this plan"
        )
    total = counts.sum(axis=0)
    placed = np.zeros_like(total)
    np.add.at(placed, phy2log[phy2log >= 0], slot_load[phy2log >= 0])
    expert = int((total != placed).argmax())
    raise ValueError(
        f"slot_load gives expert {expert} of layer {layer} {placed[expert]} tokens, but its "
        f"counts add up to {total[expert]}: split the sum of the counts over all ranks"
    )


def _raise_no_slot(
    place: int,
    ids: NDArray[Any],
    quotas: NDArray[np.int64],
    log2phy: NDArray[Any],
) -> NoReturn:
    expert = int(ids.flat[place])
    row, column = divmod(place, ids.shape[1])
    if not 0 <= expert < log2phy.shape[0]:
        raise ValueError(
            f"topk_ids[{row}, {column}] = {expert} is not an expert id: give "
            f"0 .. {log2phy.shape[0] - 1}, or -1 for padding"
        )
    slots = log2phy[expert][log2phy[expert] != -1]
    if slots.size == 0 or slots.min() < 0 or slots.max() >= quotas.size:
        raise ValueError(
            f"log2phy[{expert}] has the slots {slots.tolist()}, but quotas are for "
            f"{quotas.size} slots: give the table and the quotas of the same plan"
        )
    chosen = int((ids == expert).sum())
    raise ValueError(
        f"topk_ids has expert {expert} {chosen} times, but its quotas add up to "
        f"{int(quotas[slots].sum())}: make the quotas from the counts of these ids"
    )
