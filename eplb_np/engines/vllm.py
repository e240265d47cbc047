"""vLLM: a policy for its balancer, and how it is plugged in and taken out.

vLLM's ranks plan each for themselves, and nothing is broadcast: `eplb_np.engines.planning` says
why their plans agree. A replica that stays on its GPU keeps its slot, so vLLM copies nothing for it
(its own policy puts slots in order afterwards).
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib import import_module, metadata
from typing import Any, ClassVar

from eplb_np._arguments import one_line
from eplb_np._loads.host import as_array
from eplb_np.engines.planning import Wishes, plan_for, topology_for
from eplb_np.engines.tensors import as_given, as_host
from eplb_np.maps.log2phy import make_log2phy, width_for_any_plan
from eplb_np.mending.limits import NO_LIMITS, MoveLimits, check_limits
from eplb_np.policies import PlannedSplit, check_planned_split

__all__ = ["EplbPolicy", "install", "make_policy", "plugin", "uninstall"]

PLUGIN = "eplb_np"
"""Name of the entry point in the group ``vllm.general_plugins``, for ``VLLM_PLUGINS``."""

FIRST_WITH_POLICIES = (0, 13)
FIRST_WITH_ONE_MAP = (0, 19)
"""Since then, a policy returns ``phy2log`` alone, and vLLM derives the other maps."""

_replaced: dict[str, Any] = {}
"""vLLM's own policy under its name, while ours is in its place."""


class EplbPolicy:
    """Policy for vLLM's balancer: changes the map in use where that pays, and nowhere else.

    It has no state, and its plans are a function of what vLLM hands over, which is the same on all
    ranks: the same bytes on every machine. `make_policy` makes one with limits on its moves.
    """

    _wishes: ClassVar[Wishes] = Wishes()
    _vllm_version: ClassVar[str | None] = None

    @classmethod
    def rebalance_experts(
        cls,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> Any:
        """Plan as vLLM asks for it.

        Parameters
        ----------
        weight : tensor or array_like, shape [L, E], any real dtype, on any device
            Load of each logical expert of each MoE layer.
        num_replicas : int
            Physical experts (slots) of a layer, P; a multiple of ``num_ranks``.
        num_groups : int
            Groups of logical experts. If they do not divide E, they are ignored.
        num_nodes : int
            Nodes. If they do not divide ``num_ranks``, they count as one.
        num_ranks : int
            Ranks (GPUs).
        old_global_expert_indices : tensor or array_like, shape [L, P'], int, optional
            The map in use: logical expert in each slot, -1 in an empty one. It may be wider, or
            narrower, than ``num_replicas``: only the first P slots count, and missing ones are
            empty.

        Returns
        -------
        tensor or ndarray, shape [L, P], int64
            Logical expert in each slot: a new tensor on the device of ``weight``, or a new
            array if that is none. For vLLM before 0.19, a tuple of this one, ``log2phy``
            [L, E, P - E + 1], -1 after an expert's last slot, and the number of replicas [L, E].

        Raises
        ------
        ValueError
            If ``weight`` is not a valid load, or ``num_replicas`` is less than E or not a multiple
            of ``num_ranks``.

        Notes
        -----
        Arguments are left as they are. Where loads tell nothing, as all zeros or all ones, a
        complete map in use stays as it is. Complexity and ties are those of mending.

        Examples
        --------
        >>> from eplb_np.engines.vllm import make_policy
        >>> policy = make_policy(vllm_version="0.23")
        >>> policy.rebalance_experts([[10, 30, 90, 10]], 6, 1, 1, 2, [[0, 1, 2, 0, 1, 3]])
        array([[0, 1, 2, 2, 1, 3]])
        """
        load = as_array(as_host(weight), "the load")
        num_experts = load.shape[-1] if load.ndim else 1
        topology = topology_for(num_experts, num_replicas, num_ranks, num_nodes, num_groups)
        plan = plan_for(load, topology, as_host(old_global_expert_indices), cls._wishes)
        phy2log = as_given(plan.phy2log, weight)
        if _first_two(cls._vllm_version or _installed_version()) >= FIRST_WITH_ONE_MAP:
            return phy2log
        log2phy = make_log2phy(
            plan.phy2log, plan.phyrank, num_experts, width_for_any_plan(topology, plan.logcnt)
        )
        return phy2log, as_given(log2phy, weight), as_given(plan.logcnt, weight)


def make_policy(
    limits: MoveLimits | None = None,
    split: PlannedSplit = "even",
    *,
    vllm_version: str | None = None,
) -> type[EplbPolicy]:
    """Make a policy with limits on its moves.

    Parameters
    ----------
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves of one rearrangement. Give the same on all ranks.
    split : {"even", "best", "certain"}, default: "even"
        The split that placements are made for. vLLM splits loads evenly.
    vllm_version : str, optional
        Version of vLLM that decides what is returned; by default the installed one, or the newest
        known if none is.

    Returns
    -------
    type
        A subclass of `EplbPolicy`, for `install`.

    Raises
    ------
    ValueError
        If ``limits`` are not `MoveLimits`, ``split`` is unknown, or ``vllm_version`` is not a
        version, or one without policies.

    Examples
    --------
    >>> from eplb_np import MoveLimits
    >>> policy = make_policy(MoveLimits(total=1))
    >>> policy.rebalance_experts([[10, 30, 90, 10]], 6, 1, 1, 2, [[0, 0, 3, 0, 1, 2]])
    array([[2, 0, 3, 0, 1, 2]])
    """
    check_limits(limits)
    check_planned_split(split, "refined")
    if vllm_version is not None and _first_two(vllm_version) < FIRST_WITH_POLICIES:
        raise ValueError(
            f"vllm_version={one_line(vllm_version)} has no policies: give 0.13 or a later one"
        )
    members = {
        "_wishes": Wishes(limits or NO_LIMITS, split),
        "_vllm_version": vllm_version,
        "__doc__": EplbPolicy.__doc__,
    }
    return type(EplbPolicy.__name__, (EplbPolicy,), members)


def install(policy: type[EplbPolicy] = EplbPolicy) -> None:
    """Put a policy in the place of vLLM's own, in this process.

    Parameters
    ----------
    policy : type, default: EplbPolicy
        `EplbPolicy`, or what `make_policy` returned. It replaces one that was installed before.

    Raises
    ------
    ValueError
        If ``policy`` is something else, or vLLM has no policies to replace.

    Notes
    -----
    vLLM looks its policy up when it has loaded a model, in each of its worker processes. So a
    server needs this in a plugin: see `plugin`. May be called again and again.
    """
    if not (isinstance(policy, type) and issubclass(policy, EplbPolicy)):
        raise ValueError(
            f"policy={one_line(policy)} is not a policy of this module: give EplbPolicy, or what "
            "make_policy returns"
        )
    policies = _policies()
    if not _is_ours(policies["default"]):
        _replaced["default"] = policies["default"]
    policies["default"] = policy


def uninstall() -> None:
    """Put vLLM's own policy back, in this process.

    Raises
    ------
    ValueError
        If vLLM has no policies.

    Notes
    -----
    Without effect if none of ours is installed, or another one has taken its place. Models that
    are loaded already keep the policy that they have.
    """
    policies = _policies()
    if _is_ours(policies["default"]):
        policies["default"] = _replaced.pop("default")


def plugin() -> None:
    """Install `EplbPolicy` if the environment names this plugin: ``VLLM_PLUGINS=eplb_np``.

    vLLM calls it in each of its processes, by the entry point ``eplb_np`` of the group
    ``vllm.general_plugins``.

    Raises
    ------
    ValueError
        If it is named, and vLLM has no policies to replace.

    Notes
    -----
    If ``VLLM_PLUGINS`` is not set, vLLM calls the plugins of all installed packages, wanted or not.
    So this one does nothing then.
    """
    if PLUGIN in os.environ.get("VLLM_PLUGINS", "").split(","):
        install()


def _policies() -> dict[str, Any]:
    try:
        policies: dict[str, Any] = import_module("vllm.distributed.eplb.policy").EPLB_POLICIES
    except (ImportError, AttributeError):
        raise ValueError(
            "vLLM has no policies to replace here: install vllm 0.13 or a later version"
        ) from None
    return policies


def _is_ours(policy: Any) -> bool:
    return isinstance(policy, type) and issubclass(policy, EplbPolicy)


@cache
def _installed_version() -> str:
    """Return the version of the installed vLLM, or of the first one with today's interface."""
    newest = ".".join(map(str, FIRST_WITH_ONE_MAP))
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return newest
    # Builds without a tag call themselves 0.1.dev.
    return version if _first_two(version) >= FIRST_WITH_POLICIES else newest


@cache
def _first_two(version: str) -> tuple[int, int]:
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})", version) if isinstance(version, str) else None
    if found is None:
        raise ValueError(f"vllm_version={one_line(version)} is not a version: give one, as '0.33'")
    return int(found[1]), int(found[2])
