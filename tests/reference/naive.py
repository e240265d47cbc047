"""The slow twin of every public function: the referee for bit-for-bit equality.

Written from the algorithm's specification (docs/algorithm.md) alone, one step after another, in
plain Python. Section numbers in the comments are the specification's. Nothing here comes from
``eplb_np``. NumPy serves as the container of inputs and outputs, and its ``np.float32`` scalars
round after every operation. Inputs are taken to be valid.

A *row* is one layer: a list of ``np.float32`` loads, one per expert (or group, or replica).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Row = list[np.float32]
Replicas = tuple[list[int], list[int], list[int]]  # phy2log, rank, logcnt of one row

ZERO = np.float32(0)
TWO = np.float32(2)


def _rows(weight: ArrayLike) -> list[Row]:
    """Cast the loads to float32 before anything else (section 4)."""
    return [list(row) for row in np.asarray(weight).astype(np.float32)]


def _first_largest(values: Row) -> int:
    """Argmax; a tie goes to the lower index."""
    return values.index(max(values))


def _first_smallest(values: Row) -> int:
    """Argmin; a tie goes to the lower index."""
    return values.index(min(values))


def _matrix(rows: list[list[int]], width: int) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


# ---------------------------------------------------------------------------------------------
# Section 1: replica allocation
# ---------------------------------------------------------------------------------------------


def _averages(weight: Row, count: list[int]) -> Row:
    """``w / count``, divisor and quotient in float32."""
    return [w / np.float32(c) for w, c in zip(weight, count, strict=True)]


def _tail_quotients(weight: Row, count: list[int]) -> Row:
    """``w / (2 * count + 1)``, the Sainte-Laguë quotient, divisor and quotient in float32."""
    return [w / np.float32(2 * c + 1) for w, c in zip(weight, count, strict=True)]


def _grant_extras(weight: Row, num_phy: int) -> list[int]:
    """Steps 1 and 2: the count of each expert."""
    count = [1] * len(weight)
    extra = num_phy - len(weight)
    tail = max(1, extra // 10) if extra > 0 else 0
    for step in range(extra):
        if step < extra - tail:
            quotients = _averages(weight, count)
        else:
            quotients = _tail_quotients(weight, count)
        count[_first_largest(quotients)] += 1
    return count


def _fix_donor(weight: Row, count: list[int]) -> list[int]:
    """Step 3: the counts after the one trial move, or the same counts where it does not help."""
    if len(weight) == 1:
        return count
    average = _averages(weight, count)
    donor = _first_largest(average)
    receiver = _first_smallest(average)
    if donor == receiver or count[donor] == 1:
        return count
    moved = list(count)
    moved[donor] -= 1
    moved[receiver] += 1
    new_largest = float(max(_averages(weight, moved)))
    old_largest = float(max(average))
    return moved if new_largest + 1e-12 < old_largest else count


def _replicate_row(weight: Row, num_phy: int) -> Replicas:
    count = _fix_donor(weight, _grant_extras(weight, num_phy))
    # Step 4: in order of logical id, an expert's replicas side by side.
    phy2log = []
    rank = []
    for expert, c in enumerate(count):
        for k in range(c):
            phy2log.append(expert)
            rank.append(k)
    return phy2log, rank, count


def _replicate_all(
    replicate: Callable[[Row, int], Replicas], weight: ArrayLike, num_phy: int
) -> tuple[Ints, Ints, Ints]:
    results = [replicate(row, num_phy) for row in _rows(weight)]
    num_log = np.shape(weight)[1]
    return (
        _matrix([phy2log for phy2log, _, _ in results], num_phy),
        _matrix([rank for _, rank, _ in results], num_phy),
        _matrix([count for _, _, count in results], num_log),
    )


def replicate_experts(weight: ArrayLike, num_phy: int) -> tuple[Ints, Ints, Ints]:
    """Section 1: ``phy2log[X, P]``, ``rank[X, P]``, ``logcnt[X, E]``."""
    return _replicate_all(_replicate_row, weight, num_phy)


# ---------------------------------------------------------------------------------------------
# Section 2: packing
# ---------------------------------------------------------------------------------------------


def _longest_first(weight: Row, num_packs: int) -> tuple[list[int], list[int]]:
    """Step 2, LPT: the pack of each item, and its rank in the pack."""
    cap = len(weight) // num_packs
    pack = [-1] * len(weight)
    rank = [-1] * len(weight)
    load = [ZERO] * num_packs
    held = [0] * num_packs
    # sorted() is stable, so equal weights stay in index order; so are equal loads below, as
    # min() returns the first of equals.
    for item in sorted(range(len(weight)), key=lambda i: -weight[i]):
        open_packs = [p for p in range(num_packs) if held[p] < cap]
        p = min(open_packs, key=lambda p: load[p])
        pack[item] = p
        rank[item] = held[p]
        load[p] = load[p] + weight[item]
        held[p] += 1
    return pack, rank


def _pack_loads(weight: Row, pack: list[int], num_packs: int) -> Row:
    """Every pack's load, float32, items added in index order."""
    load = [ZERO] * num_packs
    for w, p in zip(weight, pack, strict=True):
        load[p] = load[p] + w
    return load


def _members(pack: list[int], p: int) -> list[int]:
    """The items of pack ``p`` in index order."""
    return [item for item, q in enumerate(pack) if q == p]


def _candidates(weight: Row, light_items: list[int], target: np.float32) -> tuple[int, int]:
    """The two light items to try against ``target``; ``light_items`` ascend by weight."""
    pos = 0
    while pos < len(light_items) - 1 and weight[light_items[pos]] < target:
        pos += 1
    return light_items[pos], light_items[max(pos - 1, 0)]


def _best_swap(
    weight: Row, heavy_items: list[int], light_items: list[int], delta: np.float32
) -> tuple[int, int]:
    """The pair (heavy item, light item) with the smallest float32 residual, first of equals."""
    pairs = []
    residuals = []
    for i in heavy_items:
        target = weight[i] - delta / TWO
        for j in _candidates(weight, light_items, target):
            pairs.append((i, j))
            residuals.append(abs(delta - TWO * (weight[i] - weight[j])))
    return pairs[_first_smallest(residuals)]


def _renumber(pack: list[int], rank: list[int], p: int) -> None:
    """Ranks of pack ``p`` become 0 .. cap-1 by old rank, ties to the lower item index."""
    in_order = sorted(_members(pack, p), key=lambda item: (rank[item], item))
    for new_rank, item in enumerate(in_order):
        rank[item] = new_rank


def _refine_once(weight: Row, pack: list[int], rank: list[int], num_packs: int) -> bool:
    """One round of step 3, in place; False where the refinement stops."""
    load = _pack_loads(weight, pack, num_packs)
    heavy = _first_largest(load)
    light = _first_smallest(load)
    delta = load[heavy] - load[light]
    if float(delta) <= 1e-9:
        return False

    heavy_items = _members(pack, heavy)
    light_items = sorted(_members(pack, light), key=lambda item: (weight[item], item))
    i, j = _best_swap(weight, heavy_items, light_items, delta)

    # The decision is taken in float64, from the float32 values.
    delta64, w_i, w_j = float(delta), float(weight[i]), float(weight[j])
    if not abs(delta64 - 2.0 * (w_i - w_j)) < delta64 - 1e-9:
        return False
    pack[i], pack[j] = light, heavy  # each keeps its old rank until the renumbering
    _renumber(pack, rank, heavy)
    _renumber(pack, rank, light)
    return True


def _pack_row(weight: Row, num_packs: int, refine_steps: int) -> tuple[list[int], list[int]]:
    if len(weight) == num_packs:  # step 1: cap == 1
        return list(range(num_packs)), [0] * num_packs
    pack, rank = _longest_first(weight, num_packs)
    for _ in range(refine_steps):
        if not _refine_once(weight, pack, rank, num_packs):
            break
    return pack, rank


def balanced_packing(weight: ArrayLike, num_packs: int, refine_steps: int = 2) -> tuple[Ints, Ints]:
    """Section 2: ``pack_index[X, n]``, ``rank_in_pack[X, n]``."""
    results = [_pack_row(row, num_packs, refine_steps) for row in _rows(weight)]
    n = np.shape(weight)[1]
    return _matrix([pack for pack, _ in results], n), _matrix([rank for _, rank in results], n)


# ---------------------------------------------------------------------------------------------
# Section 5, the part that replaces section 1: DeepSeek's replicas
# ---------------------------------------------------------------------------------------------


def _deepseek_replicate_row(weight: Row, num_phy: int) -> Replicas:
    """``w / count`` throughout; 0 .. E-1, then the extras in the order they were granted."""
    count = [1] * len(weight)
    phy2log = list(range(len(weight)))
    rank = [0] * len(weight)
    while len(phy2log) < num_phy:
        expert = _first_largest(_averages(weight, count))
        phy2log.append(expert)
        rank.append(count[expert])
        count[expert] += 1
    return phy2log, rank, count


def deepseek_replicate(weight: ArrayLike, num_phy: int) -> tuple[Ints, Ints, Ints]:
    """Section 5: ``phy2log[X, P]``, ``rank[X, P]``, ``logcnt[X, E]`` of the DeepSeek policy."""
    return _replicate_all(_deepseek_replicate_row, weight, num_phy)


# ---------------------------------------------------------------------------------------------
# Section 3: hierarchy
# ---------------------------------------------------------------------------------------------


class _Policy(NamedTuple):
    """What differs between the two policies."""

    replicate: Callable[[Row, int], Replicas]
    group_refine_steps: int
    gpu_refine_steps: int


HYBRID = _Policy(_replicate_row, group_refine_steps=1, gpu_refine_steps=2)
DEEPSEEK = _Policy(_deepseek_replicate_row, group_refine_steps=0, gpu_refine_steps=0)


def _group_load(loads: Row) -> np.float32:
    """Sum in float64 in index order, rounded once. (``sum`` compensates on Python 3.12.)"""
    total = 0.0
    for w in loads:
        total += float(w)
    return np.float32(total)


def _experts_of_nodes(
    weight: Row, num_groups: int, num_nodes: int, refine_steps: int
) -> list[list[int]]:
    """Step 1: for each node its experts, in node-local order."""
    size = len(weight) // num_groups
    group_loads = [_group_load(weight[g * size : (g + 1) * size]) for g in range(num_groups)]
    node, rank = _pack_row(group_loads, num_nodes, refine_steps)
    experts_of_nodes = []
    for n in range(num_nodes):
        groups = sorted(_members(node, n), key=lambda g: rank[g])
        experts_of_nodes.append([g * size + k for g in groups for k in range(size)])
    return experts_of_nodes


def _plan_layer(
    weight: Row, num_phy: int, num_groups: int, num_nodes: int, num_gpus: int, policy: _Policy
) -> Replicas:
    """Section 3 for one layer; ``phy2log`` and ``phyrank`` by slot."""
    phy_per_node = num_phy // num_nodes
    phy_per_gpu = num_phy // num_gpus
    slot2log = [-1] * num_phy
    slot2rank = [-1] * num_phy
    logcnt = [0] * len(weight)
    nodes = _experts_of_nodes(weight, num_groups, num_nodes, policy.group_refine_steps)
    for node, experts in enumerate(nodes):
        # Step 2: replicas of the node's experts, named by their node-local position.
        local_weight = [weight[expert] for expert in experts]
        phy2local, rank, count = policy.replicate(local_weight, phy_per_node)
        for local, expert in enumerate(experts):
            logcnt[expert] = count[local]
        # Step 3: replicas to the node's GPUs; slots go by node, GPU in the node, rank.
        average = _averages(local_weight, count)
        replica_weight = [average[local] for local in phy2local]
        gpus_per_node = num_gpus // num_nodes
        gpu, place = _pack_row(replica_weight, gpus_per_node, policy.gpu_refine_steps)
        for replica, local in enumerate(phy2local):
            slot = node * phy_per_node + gpu[replica] * phy_per_gpu + place[replica]
            slot2log[slot] = experts[local]
            slot2rank[slot] = rank[replica]
    return slot2log, slot2rank, logcnt


def _plan_all(
    weight: ArrayLike,
    num_phy: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    policy: _Policy,
) -> tuple[Ints, Ints, Ints]:
    def plan(row: Row, num_phy: int) -> Replicas:
        return _plan_layer(row, num_phy, num_groups, num_nodes, num_gpus, policy)

    return _replicate_all(plan, weight, num_phy)


def rebalance_experts_hierarchical(
    weight: ArrayLike, num_physical_experts: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[Ints, Ints, Ints]:
    """Section 3: ``phy2log[L, P]``, ``phyrank[L, P]``, ``logcnt[L, E]``."""
    return _plan_all(weight, num_physical_experts, num_groups, num_nodes, num_gpus, HYBRID)


def deepseek_hierarchical(
    weight: ArrayLike, num_physical_experts: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[Ints, Ints, Ints]:
    """Section 5: ``phy2log[L, P]``, ``phyrank[L, P]``, ``logcnt[L, E]``."""
    return _plan_all(weight, num_physical_experts, num_groups, num_nodes, num_gpus, DEEPSEEK)


# ---------------------------------------------------------------------------------------------
# Section 4: entry point
# ---------------------------------------------------------------------------------------------


def _slots_by_rank(phy2log: Ints, phyrank: Ints, num_log: int, width: int) -> Ints:
    """``log2phy[L, E, width]``: the slot of each replica by its rank, -1 where there is none."""
    num_layers, num_phy = phy2log.shape
    log2phy = np.full((num_layers, num_log, width), -1, dtype=np.int64)
    for layer in range(num_layers):
        for slot in range(num_phy):
            log2phy[layer, phy2log[layer, slot], phyrank[layer, slot]] = slot
    return log2phy


def rebalance_experts(
    weight: ArrayLike,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: str = "hybrid",
) -> tuple[Ints, Ints, Ints]:
    """Sections 4 and 5: ``phy2log[L, P]``, ``log2phy[L, E, ...]``, ``logcnt[L, E]``."""
    if num_groups % num_nodes != 0:  # the global policy
        num_groups, num_nodes = 1, 1
    num_log = np.shape(weight)[1]
    hierarchical = {"hybrid": rebalance_experts_hierarchical, "deepseek": deepseek_hierarchical}
    phy2log, phyrank, logcnt = hierarchical[policy](
        weight, num_replicas, num_groups, num_nodes, num_gpus
    )
    largest_count = max(logcnt.ravel().tolist())  # of any expert in any layer
    width = {"hybrid": num_replicas - num_log + 1, "deepseek": largest_count}[policy]
    return phy2log, _slots_by_rank(phy2log, phyrank, num_log, width), logcnt


# ---------------------------------------------------------------------------------------------
# Measures: exact rational arithmetic, rounded once to float64 at the end
# ---------------------------------------------------------------------------------------------


def _exact_replica_load(
    phy2log: ArrayLike, logcnt: ArrayLike, load: ArrayLike
) -> list[list[Fraction]]:
    """For each layer and slot, the expert's load divided by its number of replicas."""
    slots, counts, loads = (np.asarray(array).tolist() for array in (phy2log, logcnt, load))
    return [
        [Fraction(loads[layer][e]) / counts[layer][e] for e in slots[layer]]
        for layer in range(len(slots))
    ]


def _float_matrix(rows: list[list[Fraction]], width: int) -> Floats:
    values = [[float(value) for value in row] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), width)


def replica_load(phy2log: ArrayLike, logcnt: ArrayLike, load: ArrayLike) -> Floats:
    """``[L, P]``: the load of each slot."""
    return _float_matrix(_exact_replica_load(phy2log, logcnt, load), np.shape(phy2log)[1])


def gpu_load(phy2log: ArrayLike, logcnt: ArrayLike, load: ArrayLike, num_gpus: int) -> Floats:
    """``[L, num_gpus]``: the load of each GPU; GPU g owns slots ``g * P / num_gpus`` onward."""
    slots_per_gpu = np.shape(phy2log)[1] // num_gpus
    totals = []
    for row in _exact_replica_load(phy2log, logcnt, load):
        starts = range(0, len(row), slots_per_gpu)
        totals.append([sum(row[s : s + slots_per_gpu], Fraction(0)) for s in starts])
    return _float_matrix(totals, num_gpus)


def balancedness(gpu_load: ArrayLike) -> float:
    """Sum over layers of the mean, divided by the sum of the largest; 1 where all is zero.

    With ``replica_load`` instead of ``gpu_load`` it is the replica balancedness.
    """
    rows = [[Fraction(value) for value in row] for row in np.asarray(gpu_load).tolist()]
    means = sum((sum(row, Fraction(0)) / len(row) for row in rows), Fraction(0))
    largest = sum((max(row) for row in rows), Fraction(0))
    return float(means / largest) if largest > 0 else 1.0


def moved_replicas(old_phy2log: ArrayLike, new_phy2log: ArrayLike, num_gpus: int) -> int:
    """How many experts the GPUs must fetch: for each, new multiset minus old, summed."""
    old_rows, new_rows = np.asarray(old_phy2log).tolist(), np.asarray(new_phy2log).tolist()
    moved = 0
    for old, new in zip(old_rows, new_rows, strict=True):
        slots_per_gpu = len(new) // num_gpus
        for start in range(0, len(new), slots_per_gpu):
            stop = start + slots_per_gpu
            moved += (Counter(new[start:stop]) - Counter(old[start:stop])).total()
    return moved


# ---------------------------------------------------------------------------------------------
# The best plan of a tiny layer, by trying them all
# ---------------------------------------------------------------------------------------------


def _splits(items: tuple[int, ...], num_packs: int) -> Iterator[list[tuple[int, ...]]]:
    """Every way to deal sorted ``items`` into equal packs; packs and equal items are alike."""
    if num_packs == 1:
        yield [items]
        return
    first, rest = items[0], items[1:]
    for companions in sorted(set(combinations(rest, len(items) // num_packs - 1))):
        left = list(rest)
        for item in companions:
            left.remove(item)
        for others in _splits(tuple(left), num_packs - 1):
            yield [(first, *companions), *others]


def _all_counts(num_experts: int, num_replicas: int) -> Iterator[list[int]]:
    """Every list of counts, each at least 1, that sums to ``num_replicas``."""
    for cuts in combinations(range(1, num_replicas), num_experts - 1):
        edges = [0, *cuts, num_replicas]
        yield [edges[k + 1] - edges[k] for k in range(num_experts)]


def _optimal_node(
    loads: list[Fraction], num_replicas: int, num_gpus: int, may_double: bool
) -> Fraction:
    """The smallest largest GPU load of one node, over all counts and all distributions."""
    best = sum(loads, Fraction(0))  # no GPU ever holds more than everything
    for counts in _all_counts(len(loads), num_replicas):
        average = [load / count for load, count in zip(loads, counts, strict=True)]
        replicas = tuple(e for e, count in enumerate(counts) for _ in range(count))
        for gpus in _splits(replicas, num_gpus):
            if not may_double and any(len(set(gpu)) < len(gpu) for gpu in gpus):
                continue
            makespan = max(sum((average[e] for e in gpu), Fraction(0)) for gpu in gpus)
            best = min(best, makespan)
    return best


def optimal_makespan(
    load_row: ArrayLike,
    num_replicas: int,
    num_gpus: int,
    num_nodes: int = 1,
    num_groups: int = 1,
    *,
    may_double: bool = True,
) -> float:
    """The smallest possible largest GPU load of one layer, over all plans that are allowed.

    A group lives on one node, every node takes equally many groups and every GPU equally many
    replicas. Where ``num_nodes`` does not divide ``num_groups`` the plan is global (section 4).
    With ``may_double`` False no GPU may hold two replicas of one expert. Meant for E <= 5, P <= 8
    and GPUs <= 4.
    """
    if num_groups % num_nodes != 0:
        num_groups, num_nodes = 1, 1
    loads = [Fraction(value) for value in np.asarray(load_row).tolist()]
    size = len(loads) // num_groups

    def best_of_node(groups: tuple[int, ...]) -> Fraction:
        experts = [g * size + k for g in groups for k in range(size)]
        return _optimal_node(
            [loads[e] for e in experts],
            num_replicas // num_nodes,
            num_gpus // num_nodes,
            may_double,
        )

    # Once the groups have their nodes, the nodes do not depend on each other.
    placements = _splits(tuple(range(num_groups)), num_nodes)
    return float(min(max(best_of_node(groups) for groups in nodes) for nodes in placements))
