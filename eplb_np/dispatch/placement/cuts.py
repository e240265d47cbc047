"""Sets of GPUs that bound the time of the best split from below.

The load of the experts with no replica outside a set must stay in it, whatever the split. So that
load over the speed of the set is a lower bound on the time, and the best such bound is the
time itself. Sets that were binding once are kept. When a move is tried, only what its two experts
add to a set, or take from it, has to be counted: most moves are refused without a split.

The first sets are *floors*, of which no move can take anything: the GPUs of a node; or
where bridges can take load off nodes, all GPUs.

Letters: E logical experts, D GPUs, S samples, K sets.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import double_table, doubles, int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.layer import FIRST, GAINS, LOSES, REASSIGN, SECOND, Layer


class Cuts(NamedTuple):
    """The sets, and what each sample needs in them."""

    beyond: Ints  # [D + 1, K], 1 where a GPU is not in the set; the last row is 0
    outside: Ints  # [E, K], replicas of each expert outside the set
    time: Doubles  # [K, S], bound on the time
    per_speed: Doubles  # [K], 1 / speed of the set
    key: Ints  # [K], number that tells sets apart
    gpu_key: Ints  # [D]
    binding: Ints  # [S], set with the largest bound
    gained: Doubles  # [K], scratch: change of a move's experts inside each set, over its speed
    lost: Doubles  # [K]
    number: Ints  # [3], see the indices below


SETS, FLOORS, NEXT = 0, 1, 2

MOST_SETS = 64
"""Sets that are kept besides the floors. With 16, balancedness at 320 replicas on 64 GPUs was 0.002
less in as much time; 128 took 15 % longer and gained nothing."""


@allocator
def make_cuts(num_gpus: Int, num_experts: Int, num_samples: Int) -> Cuts:
    """Allocate `Cuts`."""
    num_sets = MOST_SETS + num_gpus
    return Cuts(
        int_table(num_gpus + 1, num_sets), int_table(num_experts, num_sets),
        double_table(num_sets, num_samples), doubles(num_sets), ints(num_sets), ints(num_gpus),
        ints(num_samples), doubles(num_sets), doubles(num_sets), ints(3),
    )  # fmt: skip


@kernel
def add_set(cuts: Cuts, layer: Layer, sample: Doubles, member: Ints, size: Int) -> None:
    """Keep the set of the first ``size`` GPUs of ``member``, in place of the oldest if need be."""
    key: Int = 0
    for j in range(size):
        key += cuts.gpu_key[member[j]]
    for k in range(cuts.number[SETS]):
        if cuts.key[k] == key:
            return
    k = cuts.number[SETS]
    if k < cuts.number[FLOORS] + MOST_SETS:
        cuts.number[SETS] += 1
    else:
        k = cuts.number[NEXT]
        cuts.number[NEXT] += 1
        if cuts.number[NEXT] == cuts.number[SETS]:
            cuts.number[NEXT] = cuts.number[FLOORS]
    cuts.key[k] = key
    num_gpus = cuts.gpu_key.shape[0]
    for g in range(num_gpus):
        cuts.beyond[g, k] = 1
    cuts.beyond[num_gpus, k] = 0
    speed = 0.0
    for j in range(size):
        cuts.beyond[member[j], k] = 0
        speed += 1.0 / layer.slowness[member[j]]
    cuts.per_speed[k] = 1.0 / speed
    for e in range(cuts.outside.shape[0]):
        cuts.outside[e, k] = 0
    for slot in range(layer.gpu.shape[0]):
        cuts.outside[layer.expert[slot], k] += cuts.beyond[layer.gpu[slot], k]
    count_inside(cuts, sample, k)
    for s in range(sample.shape[1]):
        if cuts.binding[s] == k:
            cuts.binding[s] = tightest(cuts, s)
        elif cuts.time[k, s] > cuts.time[cuts.binding[s], s]:
            cuts.binding[s] = k


@kernel
def count_inside(cuts: Cuts, sample: Doubles, k: Int) -> None:
    """Set the times of a set for all samples."""
    time = cuts.time[k]
    for s in range(time.shape[0]):
        time[s] = 0.0
    for e in range(cuts.outside.shape[0]):
        if cuts.outside[e, k] == 0:
            for s in range(time.shape[0]):
                time[s] += sample[e, s]
    for s in range(time.shape[0]):
        time[s] *= cuts.per_speed[k]


@kernel
def tightest(cuts: Cuts, s: Int) -> Int:
    """Set with the largest bound for a sample."""
    best = 0
    for k in range(1, cuts.number[SETS]):
        if cuts.time[k, s] > cuts.time[best, s]:
            best = k
    return best


@kernel
def bound_move(cuts: Cuts, layer: Layer, sample: Doubles, move: Ints, bound: Doubles) -> float:
    """Bound the times that every sample has after a move: ``bound`` [S]; returns their sum.

    The move is not made yet.
    """
    _count_changes(cuts, layer, move)
    gains, loses = sample[move[GAINS]], sample[move[LOSES]]
    for s in range(bound.shape[0]):
        bound[s] = 0.0
    for k in range(cuts.number[SETS]):
        gained, lost = cuts.gained[k], cuts.lost[k]
        time = cuts.time[k]
        for s in range(bound.shape[0]):
            bound[s] = max(bound[s], time[s] + gained * gains[s] + lost * loses[s])
    total = 0.0
    for s in range(bound.shape[0]):
        total += bound[s]
    return total


@kernel
def follow_move(cuts: Cuts, layer: Layer, sample: Doubles, move: Ints) -> None:
    """Bring the sets up to date with a move, right before it is made."""
    _count_changes(cuts, layer, move)
    gains, loses = sample[move[GAINS]], sample[move[LOSES]]
    came_from, went_to = _way(cuts, layer, move)
    for k in range(cuts.number[SETS]):
        step = cuts.beyond[went_to, k] - cuts.beyond[came_from, k]
        cuts.outside[move[GAINS], k] += step
        cuts.outside[move[LOSES], k] -= step
        if cuts.gained[k] != 0.0 or cuts.lost[k] != 0.0:
            for s in range(gains.shape[0]):
                cuts.time[k, s] += cuts.gained[k] * gains[s] + cuts.lost[k] * loses[s]
    for s in range(gains.shape[0]):
        cuts.binding[s] = tightest(cuts, s)


@kernel
def _way(cuts: Cuts, layer: Layer, move: Ints) -> tuple[Int, Int]:
    """GPU that the gaining expert leaves, and GPU it goes to; the other expert goes back.

    A new replica comes from a GPU that is in every set, the row of zeros in ``beyond``.
    """
    went_to = layer.gpu[move[SECOND]]
    if move[FIRST] == REASSIGN:
        return cuts.gpu_key.shape[0], went_to
    return layer.gpu[move[FIRST]], went_to


@kernel
def _count_changes(cuts: Cuts, layer: Layer, move: Ints) -> None:
    came_from, went_to = _way(cuts, layer, move)
    gains, loses = cuts.outside[move[GAINS]], cuts.outside[move[LOSES]]
    start, end = cuts.beyond[came_from], cuts.beyond[went_to]
    for k in range(cuts.number[SETS]):
        step = end[k] - start[k]
        inside = int(gains[k] + step == 0) - int(gains[k] == 0)
        cuts.gained[k] = inside * cuts.per_speed[k]
        inside = int(loses[k] - step == 0) - int(loses[k] == 0)
        cuts.lost[k] = inside * cuts.per_speed[k]
