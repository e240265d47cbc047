"""Plans as a rank makes them, of drawn arguments that all ranks share: one digest for each.

Run as a script by `tests/engines/test_same_plan_on_every_rank.py`, in processes that differ. The
arguments are words for what this process does differently.
"""

import hashlib
import os
import sys
from collections.abc import Iterator

import numpy as np

from eplb_np import MoveLimits, make_plan
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.vllm import make_policy

L, E, P, D = 3, 16, 24, 4
GLOBAL = (P, 1, 1, D)
BY_NODES = (P, 8, 2, D)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 1000, shape) ** 2


def old_maps() -> Iterator[np.ndarray]:
    """In order, wider, narrower, with empty slots, of another policy, all slots but few alike."""
    in_order = np.tile(np.arange(P) % E, (L, 1))
    yield in_order
    yield np.tile(np.arange(2 * P) % E, (L, 1))
    yield in_order[:, : P - 5]
    holes = in_order.copy()
    holes[:, 3::7] = -1
    yield holes
    yield make_plan(drawn(7, L, E), num_replicas=P, num_gpus=D, policy="deepseek").phy2log
    doubled = in_order.copy()
    doubled[:, E:] = 3
    yield doubled


def plans() -> Iterator[np.ndarray]:
    limited = make_policy(MoveLimits(total=5)).rebalance_experts
    each = make_policy(MoveLimits(per_gpu=2)).rebalance_experts
    for seed, old in enumerate(old_maps()):
        for rebalance in (make_policy().rebalance_experts, limited, each):
            yield rebalance(drawn(seed, L, E), *GLOBAL, old)
        yield limited(drawn(seed, L, E), *BY_NODES, old)
        yield limited(np.zeros((L, E), np.int64), *GLOBAL, old)
        yield limited(np.ones((L, E), np.int64), *BY_NODES, old)
    history = (drawn(9, 7, L, E) * 0.37).astype(np.float32)
    for sizes in (GLOBAL, BY_NODES):
        yield limited(history, *sizes, old)
        yield limited(history, *sizes)


def plans_for_the_split() -> Iterator[np.ndarray]:
    topology = topology_for(4, 8, 4)
    old = np.tile(np.arange(8) % 4, (2, 1))
    history = (drawn(11, 3, 2, 4) * 0.37).astype(np.float32)
    for in_use in (None, old):
        yield plan_for(history, topology, in_use, Wishes(MoveLimits(total=3), "best")).phy2log


def digests() -> str:
    every = [*plans(), *plans_for_the_split()]
    return " ".join(hashlib.sha256(plan.tobytes()).hexdigest()[:12] for plan in every)


def main(words: list[str]) -> None:
    if "threads" in words:
        from eplb_np._numba import threads

        threads.SMALL_SLOTS = 0
        threads.BLOCK_SLOTS = 1
        threads._available_cpus = lambda: 3
    if "history" in words:
        make_policy().rebalance_experts(drawn(3, L + 1, E), *GLOBAL)
        digests()
    if "fork" in words:
        digests()
        sys.stdout.flush()
        child = os.fork()
        if child:
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(digests())
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
