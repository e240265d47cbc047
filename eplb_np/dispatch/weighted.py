"""Tables of slots for engines that know no weights: a slot that stands twice gets twice the load.

Letters: L layers, E logical experts, P slots, M experts with several replicas, over all layers,
X replicas that an expert has at most, W entries of the table for each expert.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_memory
from eplb_np._loads.host import as_array
from eplb_np.dispatch.splitter import Splitter
from eplb_np.maps.maps import EMPTY
from eplb_np.metrics import replica_load
from eplb_np.plan import Plan

WIDEST = 1024
"""Entries of an expert, at most: 32 follow the shares as closely as anything measured needs."""

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


def weighted_log2phy(plan: Plan, load: ArrayLike, width: int, every_replica: bool) -> Ints:
    """Write the table of `Plan.weighted_log2phy`, [L, E, width] int64."""
    num_entries = as_size("width", width, maximum=WIDEST)
    most = int(plan.logcnt.max())
    if every_replica and num_entries < most:
        raise ValueError(
            f"width={num_entries} has no room for the {most} replicas of an expert: give "
            f"width={most} or more, or every_replica=False"
        )
    replica_load(plan.phy2log, plan.logcnt, load)  # complains in terms of the load
    num_layers, num_experts = plan.logcnt.shape
    check_memory(f"a table of width={num_entries}", plan.logcnt.size * num_entries)
    share = Splitter(plan, as_array(load, "load").astype(np.float64)).shares
    num_replicas = int(plan.logcnt.max())
    slots = plan.log2phy[:, :, :num_replicas].reshape(-1, num_replicas).astype(np.int64)
    table = np.full((num_layers * num_experts, num_entries), EMPTY)
    table[:, 0] = slots[:, 0]
    several = np.flatnonzero(plan.logcnt.ravel() > 1)
    slots = slots[several]
    rows = several // num_experts
    shares = np.where(slots == EMPTY, 0.0, share[rows[:, None], slots])
    least = (slots != EMPTY).astype(np.int64) if every_replica else None
    order = interleave(closest_counts(shares, num_entries, least), num_entries)
    chosen = np.take_along_axis(slots, order, axis=1)
    table[several] = np.where(order == EMPTY, EMPTY, chosen)
    return table.reshape(num_layers, num_experts, num_entries)


def closest_counts(share: Doubles, width: int, at_least: Ints | None = None) -> Ints:
    """Choose how often each replica stands in its expert's row of at most ``width`` entries.

    ``share`` [M, X] adds up to 1 in each row; the counts [M, X] are those whose largest excess
    over the shares is least, and of these the ones with the fewest entries. With ``at_least``
    [M, X], each replica gets so many entries first, and what its share leaves then is shared out.
    """
    best = np.zeros(share.shape, np.int64)
    least = np.full(len(share), np.inf)
    places = np.broadcast_to(np.arange(share.shape[1]), share.shape)
    rank = np.empty_like(best)
    for num_entries in range(1, width + 1):
        quota = share * num_entries
        if at_least is not None:
            quota = at_least + _scaled(quota - at_least, num_entries - at_least.sum(axis=1))
        count = np.floor(quota).astype(np.int64)
        # The largest remainders get what is left; ties go to the lower rank. No other counts have
        # a smaller excess, as every one of them gives an entry more to a smaller remainder.
        order = np.argsort(count - quota, axis=1, kind="stable")
        np.put_along_axis(rank, order, places, axis=1)
        count += rank < num_entries - count.sum(axis=1, keepdims=True)
        excess = (count / num_entries - share).max(axis=1)
        better = excess < least
        best[better], least[better] = count[better], excess[better]
    return best


def _scaled(above: Doubles, total: Ints) -> Doubles:
    """Scale what is above 0 in each row so that it adds up to ``total``."""
    positive = np.maximum(above, 0.0)
    rows = positive.sum(axis=1)
    factor = np.divide(np.maximum(total, 0), rows, out=np.zeros_like(rows), where=rows > 0)
    scaled: Doubles = positive * factor[:, None]
    return scaled


def interleave(counts: Ints, width: int) -> Ints:
    """Order the entries of each expert so that taking them in turn keeps the proportions.

    ``counts`` [M, X]; returns [M, width], the rank of the replica in each entry, then -1. The first
    k entries share out k by Sainte-Lague's method; ties go to the lower rank.
    """
    order = np.full((len(counts), width), EMPTY)
    total = counts.sum(axis=1)
    taken = np.zeros_like(counts)
    rows = np.arange(len(counts))
    with np.errstate(divide="ignore"):
        for entry in range(int(total.max(initial=0))):
            nxt = ((2 * taken + 1) / counts).argmin(axis=1)
            left = rows[entry < total]
            order[left, entry] = nxt[left]
            taken[left, nxt[left]] += 1
    return order
