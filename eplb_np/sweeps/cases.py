"""The cases of a sweep: which combinations of sizes fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from eplb_np._arguments import as_list, as_size
from eplb_np.policies import PolicyName, check_policy
from eplb_np.topology import Topology

MOST_CASES = 10_000
MORE_SLOTS = 6
"""Numbers of slots per GPU that are tried if none are given, from the fewest on."""


class Case(NamedTuple):
    """One deployment, and the policy that plans for it.

    Parameters
    ----------
    num_gpus, num_replicas, num_nodes, num_groups : int
        As in `Topology`.
    policy : str
        As in `make_plan`.
    """

    num_gpus: int
    num_replicas: int
    num_nodes: int = 1
    num_groups: int = 1
    policy: PolicyName = "refined"

    def topology(self, num_experts: int) -> Topology:
        """Return the sizes as a `Topology`.

        Parameters
        ----------
        num_experts : int
            Logical experts of a layer.

        Returns
        -------
        Topology
            The deployment.

        Raises
        ------
        ValueError
            If the sizes do not fit together.

        Examples
        --------
        >>> from eplb_np.sweeps import Case
        >>> Case(num_gpus=2, num_replicas=6).topology(num_experts=4).slots_per_gpu
        3
        >>> Case(num_gpus=2, num_replicas=3).topology(num_experts=4)
        Traceback (most recent call last):
            ...
        ValueError: num_replicas=3 is less than num_experts=4: every expert needs a slot, so g...
        """
        return Topology(
            num_experts, self.num_replicas, self.num_gpus, self.num_nodes, self.num_groups
        )

    def __str__(self) -> str:
        nodes = "" if self.num_nodes == 1 else f" on {self.num_nodes} nodes"
        groups = "" if self.num_groups == 1 else f", {self.num_groups} groups"
        return f"{self.num_replicas} slots on {self.num_gpus} GPUs{nodes}{groups}, {self.policy}"


class Grid(NamedTuple):
    """The cases of a sweep. Made by `grid`.

    Parameters
    ----------
    cases : tuple of Case
        The combinations that fit, by GPUs, nodes, groups, policy and slots, as they were given.
    left_out : tuple of str
        The other combinations, and why they do not fit, one line each.
    """

    cases: tuple[Case, ...]
    left_out: tuple[str, ...]


def grid(
    num_experts: int,
    num_gpus: Sequence[int],
    *,
    num_redundant: Sequence[int] | None = None,
    slots_per_gpu: Sequence[int] | None = None,
    num_nodes: Sequence[int] = (1,),
    num_groups: Sequence[int] = (1,),
    policies: Sequence[PolicyName] = ("refined",),
) -> Grid:
    """Combine sizes into the cases of a `sweep`, and leave out what does not fit together.

    Parameters
    ----------
    num_experts : int
        Logical experts of a layer.
    num_gpus : sequence of int
        Numbers of GPUs.
    num_redundant : sequence of int, optional
        Numbers of redundant experts of a layer: slots beyond one for each expert.
    slots_per_gpu : sequence of int, optional
        Slots of a layer on each GPU, instead of ``num_redundant``. Without either, six numbers of
        slots are tried for each number of GPUs, from the fewest that hold all experts on.
    num_nodes, num_groups : sequence of int, default: (1,)
        Numbers of nodes, and of groups of experts.
    policies : sequence of {"hybrid", "deepseek", "refined"}, default: ("refined",)
        Policies to plan with.

    Returns
    -------
    Grid
        The cases, each once, and what was left out.

    Raises
    ------
    ValueError
        If an argument is not a sequence of sizes or policies, nothing fits together, or there are
        more than 10000 combinations.

    Notes
    -----
    O(n) for n combinations.

    Examples
    --------
    >>> found = grid(8, [2, 3], num_redundant=[0, 4], policies=["deepseek"])
    >>> for case in found.cases:
    ...     print(case)
    8 slots on 2 GPUs, deepseek
    12 slots on 2 GPUs, deepseek
    12 slots on 3 GPUs, deepseek
    >>> len(found.left_out)
    1
    """
    experts = as_size("num_experts", num_experts)
    gpus = _sizes("num_gpus", num_gpus)
    if num_redundant is not None and slots_per_gpu is not None:
        raise ValueError("both num_redundant and slots_per_gpu are given: give one or the other")
    redundant = None if num_redundant is None else _sizes("num_redundant", num_redundant, 0)
    slots = None if slots_per_gpu is None else _sizes("slots_per_gpu", slots_per_gpu)
    nodes, groups = _sizes("num_nodes", num_nodes), _sizes("num_groups", num_groups)
    names = as_list("policies", policies, "give names of policies", most=MOST_CASES)
    for name in names:
        check_policy(name)
    amounts = len(redundant if redundant is not None else slots or range(MORE_SLOTS))
    count = len(gpus) * len(nodes) * len(groups) * len(names) * amounts
    if not 0 < count <= MOST_CASES:
        raise ValueError(
            f"there are {count} combinations of sizes and policies: give from 1 to {MOST_CASES}"
        )
    wanted = (
        Case(gpu, replicas, node, group, policy)
        for gpu, node, group, policy in product(gpus, nodes, groups, names)
        for replicas in _replicas(experts, gpu, redundant, slots)
    )
    return _fitting(experts, dict.fromkeys(wanted))


def _replicas(
    num_experts: int, num_gpus: int, redundant: list[int] | None, slots: list[int] | None
) -> list[int]:
    if redundant is not None:
        return [num_experts + more for more in redundant]
    if slots is None:
        fewest = -(-num_experts // num_gpus)
        slots = [fewest + more for more in range(MORE_SLOTS)]
    return [num_gpus * count for count in slots]


def _fitting(num_experts: int, wanted: Iterable[Case]) -> Grid:
    cases, left_out = [], []
    for case in wanted:
        try:
            check_policy(case.policy, case.topology(num_experts))
        except ValueError as error:
            left_out.append(f"{case}: {error}")
        else:
            cases.append(case)
    if not cases:
        raise ValueError(f"no combination of sizes fits together: {left_out[0]}")
    return Grid(tuple(cases), tuple(left_out))


def check_cases(cases: Iterable[Case], num_experts: int) -> tuple[Case, ...]:
    """Return the cases of a sweep, each once, or raise ``ValueError`` if one does not fit."""
    hint = "give the cases of a grid"
    given = as_list("cases", cases, hint, most=MOST_CASES)
    if not 0 < len(given) <= MOST_CASES:
        raise ValueError(f"there are {len(given)} or more cases: give from 1 to {MOST_CASES}")
    if not all(isinstance(case, Case) for case in given):
        raise ValueError(f"cases must hold a Case each: {hint}")
    for case in given:
        try:
            check_policy(case.policy, case.topology(num_experts))
        except ValueError as error:
            raise ValueError(f"{case}: {error}") from None
    return tuple(dict.fromkeys(given))


def _sizes(name: str, values: Iterable[int], minimum: int = 1) -> list[int]:
    given = as_list(name, values, "give a list of sizes", most=MOST_CASES)
    return [as_size(f"an entry of {name}", value, minimum) for value in given]
