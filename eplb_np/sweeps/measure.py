"""One case of a sweep: planned, and judged on the load it was made from and on the next windows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_amount, as_size
from eplb_np._loads.host import as_array, as_history
from eplb_np.planning import make_plan
from eplb_np.policies import PolicyName
from eplb_np.replay import replanning, replay
from eplb_np.sweeps.cases import Case


@dataclass(frozen=True)
class SweptCase:
    """A case of a sweep, and what it gives.

    Parameters
    ----------
    num_gpus, num_replicas, num_nodes, num_groups : int
        As in `Topology`.
    policy : str
        Policy that planned.
    num_redundant : int
        Slots of a layer beyond one for each expert.
    slots_per_gpu : int
        Slots of a layer on each GPU; on the largest if they differ. This is the memory it takes.
    bytes_per_gpu : int or None
        Bytes of all layers' slots on that GPU; None if the bytes of an expert were not given.
    placement : {"hierarchical", "global"}
        Whether whole groups went to nodes.
    duplicates : int
        Replicas beyond the first of an expert on one GPU, in all layers.
    balancedness : float
        GPU balancedness on the load that the plan was made from, of a history the sum of all
        windows: 1 is perfect.
    at_most : float
        No plan for these sizes has a higher one.
    next_windows : float or None
        GPU balancedness on windows that the plans were not made from: before each window a plan
        is made from the last ones before it. None without a history.
    moved_share : float or None
        Mean share of all slots that GPUs had to fetch at such a replan. None without a history.
    """

    num_gpus: int
    num_replicas: int
    num_nodes: int
    num_groups: int
    policy: PolicyName
    num_redundant: int
    slots_per_gpu: int
    bytes_per_gpu: int | None
    placement: str
    duplicates: int
    balancedness: float
    at_most: float
    next_windows: float | None
    moved_share: float | None

    @property
    def case(self) -> Case:
        """The case."""
        return Case(self.num_gpus, self.num_replicas, self.num_nodes, self.num_groups, self.policy)

    @property
    def judged(self) -> float:
        """What to buy by: `next_windows` where there is a history, else `balancedness`."""
        return self.balancedness if self.next_windows is None else self.next_windows


class SweptLoads(NamedTuple):
    """The loads of a sweep, as every process needs them."""

    total: NDArray[np.float64]  # [L, E], summed over the windows
    history: NDArray[np.float32] | None  # [W, L, E], W > 1


class Judging(NamedTuple):
    """How cases are judged."""

    first_window: int
    num_windows: int
    expert_bytes: float | None


def as_swept_loads(load: ArrayLike, first_window: int) -> SweptLoads:
    """Check the loads [L, E] or [W, L, E] of a sweep."""
    given = as_array(load, "load")
    history = as_history(given, "load")
    if given.ndim == 2 or len(given) == 1:
        return SweptLoads(given.reshape(history.shape[1:]).astype(np.float64), None)
    if len(history) <= first_window:
        raise ValueError(
            f"load has {len(history)} windows, so first_window={first_window} leaves none to "
            f"judge on: give {first_window + 1} or more windows, or their sum"
        )
    return SweptLoads(given.sum(axis=0, dtype=np.float64), history)


def as_judging(first_window: int, num_windows: int, expert_bytes: float | None) -> Judging:
    """Check how cases are to be judged."""
    return Judging(
        as_size("first_window", first_window),
        as_size("num_windows", num_windows),
        None if expert_bytes is None else as_amount("expert_bytes", expert_bytes),
    )


def measure(case: Case, loads: SweptLoads, judging: Judging) -> SweptCase:
    """Plan for a case on one thread, and judge the plans."""
    num_layers, num_experts = loads.total.shape
    topology = case.topology(num_experts)
    plan = make_plan(loads.total, topology, policy=case.policy, num_threads=1)
    summary = plan.summary(loads.total)
    next_windows = moved_share = None
    if loads.history is not None:
        planner = replanning(topology, case.policy, judging.num_windows, num_threads=1)
        replayed = replay(loads.history, planner, first_window=judging.first_window)
        next_windows, moved_share = replayed.balancedness, replayed.moved_share
    slots = topology.slots_per_gpu
    expert_bytes = judging.expert_bytes
    return SweptCase(
        *case,
        num_redundant=case.num_replicas - num_experts,
        slots_per_gpu=slots,
        bytes_per_gpu=None if expert_bytes is None else round(slots * num_layers * expert_bytes),
        placement=topology.placement,
        duplicates=summary.duplicates,
        balancedness=summary.balancedness,
        at_most=summary.at_most,
        next_windows=next_windows,
        moved_share=moved_share,
    )


def version() -> str:
    """Return the version of this package, which may give other results than the next."""
    found: str = import_module("eplb_np").__version__
    return found


def load_kernels(cases: tuple[Case, ...], loads: SweptLoads, judging: Judging) -> None:
    """Plan small cases, so that other processes find all kernels in the cache on the disk."""
    small = SweptLoads(
        np.ones((8, 4)), None if loads.history is None else np.ones((2, 8, 4), np.float32)
    )
    for policy in dict.fromkeys(case.policy for case in cases):
        measure(Case(2, 6, 1, 2, policy), small, judging._replace(first_window=1))
