"""How many experts, groups, nodes, GPUs and slots there are, and which sizes fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, SupportsFloat, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_list, as_number, as_size, check_multiple, one_line
from eplb_np._notebook import rows_html

Placement = Literal["hierarchical", "global"]

T = TypeVar("T")

LEAST_SPEED = 2.0**-40
MOST_SPEED = 2.0**40
MOST_SPEED_RATIO = 1000.0
"""Speeds that GPUs may have. A GPU that is a thousand times slower than another is as good as gone.
Within this range, no product of a load and a speed overflows, and no difference of GPU times is
lost in rounding."""


class Gpus(NamedTuple):
    """The D GPUs of a deployment, in the form that kernels take."""

    first_slot: NDArray[np.int64]  # [D + 1] int64, first slot of each GPU, then P
    size: NDArray[np.int64]  # [D] int64, usable slots, 0 where the GPU is gone
    slowness: NDArray[np.float64]  # [D] float64, time for a unit of load, 1 / speed


@dataclass(frozen=True)
class Topology:
    """Sizes of a deployment, checked once.

    Parameters
    ----------
    num_experts : int
        Logical experts of a layer.
    num_replicas : int
        Physical experts (slots) of a layer over all GPUs. If it is not a multiple of
        ``num_gpus``, some GPUs have one slot more than others, spread evenly over the GPUs. Only
        the refined policy can plan for that.
    num_gpus : int
        GPUs of the deployment, including those that are gone; a multiple of ``num_nodes``.
    num_nodes : int, default: 1
        Nodes that the GPUs belong to.
    num_groups : int, default: 1
        Groups of consecutive logical experts; divides ``num_experts``.
    gpu_slots : sequence of int, optional
        Slots of each GPU, if they differ; they add up to ``num_replicas``. Stored as a tuple,
        or as None if all GPUs have the same number.
    gpu_speeds : sequence of float, optional
        Speed of each GPU, if they differ: the load that it processes in one unit of time. From
        2**-40 to 2**40, and the fastest GPU is at most 1000 times as fast as the slowest. Stored
        as a tuple, or as None if all are 1.
    active_gpus : sequence of int, or of bool, optional
        The GPUs that are available, as ids or as a mask; by default all. Stored as an ascending
        tuple of ids, or as None if all are. The slots of a GPU that is gone keep their numbers
        and stay empty.
    bridges : int, default: 0
        Where whole groups go to nodes: the most redundant slots of a layer that may hold an expert
        of another node's group. Every expert keeps a replica on its group's node. Only plans for
        the best split have bridges. `Plan.crossing` says how much load they take to other nodes.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or two sizes do not fit together: the message names
        the nearest sizes that do. If a speed, or the ratio of two speeds, is out of range. If the
        active GPUs have fewer slots than there are experts:
        the message says how many are missing. If there are more bridges than redundant slots, or
        bridges although groups cannot be shared out to several nodes.

    Notes
    -----
    GPU ``g`` belongs to node ``g // gpus_per_node``, and its slots follow those of the GPUs
    before it. If there are several nodes and ``num_nodes`` divides ``num_groups``, placement is
    hierarchical: whole groups go to nodes, but for bridges. Otherwise it is global, as in the
    published algorithm: any expert may go to any GPU. It is global on one node, whatever the
    groups, and also if so many GPUs are gone that some node lacks the slots for its share of the
    groups.

    Examples
    --------
    >>> from eplb_np import Topology
    >>> topology = Topology(256, 288, num_gpus=32, num_nodes=4, num_groups=8)
    >>> topology.placement, topology.slots_per_gpu, topology.gpus_per_node
    ('hierarchical', 9, 8)
    >>> Topology(256, 288, 32, active_gpus=range(31)).active_slots.tolist()[-2:]
    [9, 0]
    >>> Topology(256, 288, 30, num_nodes=4)
    Traceback (most recent call last):
        ...
    ValueError: num_gpus=30 is not a multiple of num_nodes=4: give num_gpus=28 or 32, or an...
    """

    num_experts: int
    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1
    gpu_slots: Sequence[int] | None = None
    gpu_speeds: Sequence[float] | None = None
    active_gpus: Sequence[int] | None = None
    bridges: int = 0

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_replicas", "num_gpus", "num_nodes", "num_groups"):
            given = getattr(self, name)
            size = as_size(name, given)
            if size is not given:
                object.__setattr__(self, name, size)
        check_multiple("num_gpus", self.num_gpus, "num_nodes", self.num_nodes)
        check_multiple("num_experts", self.num_experts, "num_groups", self.num_groups)
        if self.num_replicas < self.num_experts:
            least = -(-self.num_experts // self.num_gpus) * self.num_gpus
            raise ValueError(
                f"num_replicas={self.num_replicas} is less than num_experts={self.num_experts}: "
                f"every expert needs a slot, so give num_replicas={least} or more "
                f"(a multiple of num_gpus={self.num_gpus})"
            )
        if self.gpu_slots is None and self.num_replicas < self.num_gpus:
            raise ValueError(
                f"num_replicas={self.num_replicas} is less than num_gpus={self.num_gpus}: every "
                f"GPU needs a slot, so give num_replicas={self.num_gpus} or more, or fewer GPUs"
            )
        self._check_bridges()
        if self._is_plain:
            return
        slots = _as_slots(self.gpu_slots, self.num_replicas, self.num_gpus)
        object.__setattr__(self, "gpu_slots", None if len(set(slots)) == 1 else slots)
        speeds = _as_speeds(self.gpu_speeds, self.num_gpus)
        object.__setattr__(self, "gpu_speeds", None if set(speeds) == {1.0} else speeds)
        active = _as_active(self.active_gpus, self.num_gpus)
        object.__setattr__(self, "active_gpus", None if len(active) == self.num_gpus else active)
        there = sum(slots[gpu] for gpu in active)
        if there < self.num_experts:
            raise ValueError(
                f"active_gpus: {len(active)} active GPUs have {there} slots for "
                f"num_experts={self.num_experts}, so {self.num_experts - there} slots are missing: "
                "add GPUs to active_gpus, or give each GPU more slots"
            )

    def _check_bridges(self) -> None:
        object.__setattr__(self, "bridges", as_size("bridges", self.bridges, minimum=0))
        most = self.num_replicas - self.num_experts
        if self.bridges > most:
            raise ValueError(
                f"bridges={self.bridges} is more than the {most} redundant slots of a layer: "
                f"give bridges={most} or less, or more num_replicas"
            )
        if self.bridges > 0 and (self.num_nodes == 1 or self.num_groups % self.num_nodes):
            raise ValueError(
                f"bridges={self.bridges} needs groups that can be shared out to several nodes, but "
                f"num_nodes={self.num_nodes} and num_groups={self.num_groups}: give bridges=0, as "
                "any expert may go to any GPU"
            )

    @property
    def _is_plain(self) -> bool:
        """Whether all GPUs are active and alike; reads the fields before they are checked."""
        return (
            self.gpu_slots is None
            and self.gpu_speeds is None
            and self.active_gpus is None
            and self.num_replicas % self.num_gpus == 0
        )

    @property
    def placement(self) -> Placement:
        """``"hierarchical"`` if whole groups go to nodes, else ``"global"``, as on one node."""
        return "hierarchical" if self.num_nodes > 1 and self._fits_groups else "global"

    @property
    def _fits_groups(self) -> bool:
        """Whether every node can hold its share of the groups."""
        if self.num_groups % self.num_nodes:
            return False
        if self._is_plain:
            return True
        node_slots = self.active_slots.reshape(self.num_nodes, -1).sum(axis=1)
        return int(node_slots.min()) * self.num_nodes >= self.num_experts

    @property
    def slots_per_gpu(self) -> int:
        """Slots of each GPU; those of the largest GPU if they differ."""
        if self.gpu_slots is None:
            return self.num_replicas // self.num_gpus
        return max(self.gpu_slots)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each node, including those that are gone."""
        return self.num_gpus // self.num_nodes

    @property
    def packed_groups_and_nodes(self) -> tuple[int, int]:
        """Groups and nodes to plan with: (1, 1) if the nodes cannot hold whole groups.

        On one node it is (``num_groups``, 1), although placement is global: the published
        algorithm numbers a node's experts by descending load of their groups, and that order
        breaks ties.
        """
        return (self.num_groups, self.num_nodes) if self._fits_groups else (1, 1)

    @cached_property
    def first_slots(self) -> NDArray[np.int64]:
        """First slot of each GPU, then the number of slots: shape [num_gpus + 1], int64."""
        first = np.zeros(self.num_gpus + 1, np.int64)
        np.cumsum(self.gpu_slots or (self.slots_per_gpu,) * self.num_gpus, out=first[1:])
        first.flags.writeable = False
        return first

    @property
    def gpu_of_slot(self) -> NDArray[np.int64]:
        """GPU of each slot: shape [num_replicas], int64."""
        return np.repeat(np.arange(self.num_gpus), np.diff(self.first_slots))

    @cached_property
    def active_slots(self) -> NDArray[np.int64]:
        """Slots of each GPU, 0 if it is gone: shape [num_gpus], int64."""
        slots = np.diff(self.first_slots)
        if self.active_gpus is not None:
            slots[~np.isin(np.arange(self.num_gpus), self.active_gpus)] = 0
        slots.flags.writeable = False
        return slots

    @cached_property
    def slowness(self) -> NDArray[np.float64]:
        """Time that each GPU takes for one unit of load, 1 / speed: shape [num_gpus], float64."""
        slowness = 1.0 / np.array(self.gpu_speeds or (1.0,) * self.num_gpus)
        slowness.flags.writeable = False
        return slowness

    @property
    def gpus(self) -> Gpus:
        """Slots and slowness of all GPUs, in the form that kernels take."""
        return Gpus(self.first_slots, self.active_slots, self.slowness)

    @property
    def active_speed(self) -> float:
        """Sum of the speeds of all active GPUs."""
        return float((1.0 / self.slowness)[self.active_slots > 0].sum())

    def check_hierarchical(self) -> None:
        """Raise ``ValueError`` if the groups cannot be shared out to the nodes.

        Raises
        ------
        ValueError
            If ``num_nodes`` does not divide ``num_groups``.

        Examples
        --------
        >>> from eplb_np import Topology
        >>> Topology(8, 8, 4, num_nodes=2, num_groups=4).check_hierarchical()
        >>> Topology(9, 12, 4, num_nodes=2, num_groups=3).check_hierarchical()
        Traceback (most recent call last):
            ...
        ValueError: num_groups=3 is not a multiple of num_nodes=2: give num_groups=2 or 4, or...
        """
        check_multiple("num_groups", self.num_groups, "num_nodes", self.num_nodes)

    def check_plain(self, policy: str) -> None:
        """Raise ``ValueError`` if GPUs differ or are gone, which ``policy`` cannot plan for.

        Parameters
        ----------
        policy : str
            Name of a policy other than the refined one.

        Raises
        ------
        ValueError
            If some GPU has another number of slots or another speed than the rest, or is not
            active.

        Examples
        --------
        >>> from eplb_np import Topology
        >>> Topology(8, 12, 4).check_plain("hybrid")
        >>> Topology(8, 12, 4, active_gpus=[0, 1, 2]).check_plain("hybrid")
        Traceback (most recent call last):
            ...
        ValueError: policy='hybrid' needs GPUs that are all active and alike, but active_gpus=...
        """
        if self._is_plain:
            return
        hint = "give policy='refined', which can plan for that"
        for name in ("gpu_speeds", "active_gpus"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"policy={policy!r} needs GPUs that are all active and alike, but "
                    f"{name}={getattr(self, name)}: {hint}"
                )
        check_multiple(
            "num_replicas", self.num_replicas, "num_gpus", self.num_gpus,
            "policy='refined', which does not need a multiple", self.num_experts,
        )  # fmt: skip
        raise ValueError(
            f"policy={policy!r} needs GPUs that are alike, but gpu_slots differ, from "
            f"{min(self.gpu_slots or ())} to {self.slots_per_gpu}: {hint}"
        )

    def _repr_html_(self) -> str:
        least = int(self.active_slots[self.active_slots > 0].min())
        each = str(least) if least == self.slots_per_gpu else f"{least} to {self.slots_per_gpu}"
        rows: dict[str, object] = {
            "experts": self.num_experts,
            "slots": f"{self.num_replicas}, {each} on each GPU",
            "GPUs": self.num_gpus,
            "nodes": self.num_nodes,
            "groups": self.num_groups,
            "placement": self.placement,
        }
        if self.active_gpus is not None:
            rows["GPUs"] = f"{self.num_gpus}, of which {len(self.active_gpus)} are active"
        if self.gpu_speeds is not None:
            rows["speeds"] = f"{min(self.gpu_speeds):g} to {max(self.gpu_speeds):g}"
        if self.bridges:
            rows["bridges"] = f"{self.bridges} of each layer"
        return rows_html("Topology", rows)


def stored_sizes(topology: Topology) -> dict[str, Any]:
    """Return the arguments that make the topology again, for files.

    Without bridges, they are those that files had before there were any.
    """
    sizes = asdict(topology)
    if topology.bridges == 0:
        del sizes["bridges"]
    return sizes


def _as_slots(slots: Sequence[int] | None, num_replicas: int, num_gpus: int) -> tuple[int, ...]:
    if slots is None:
        # Rounding the even ends down spreads the GPUs with one slot more evenly.
        ends = [num_replicas * gpu // num_gpus for gpu in range(num_gpus + 1)]
        return tuple(ends[gpu + 1] - ends[gpu] for gpu in range(num_gpus))
    listed = _one_each("gpu_slots", slots, num_gpus)
    given = tuple(as_size("an entry of gpu_slots", count, minimum=0) for count in listed)
    if sum(given) != num_replicas:
        raise ValueError(
            f"gpu_slots add up to {sum(given)}, but num_replicas={num_replicas}: "
            f"give num_replicas={sum(given)}, or other gpu_slots"
        )
    return given


def _as_speeds(speeds: Sequence[float] | None, num_gpus: int) -> tuple[float, ...]:
    if speeds is None:
        return (1.0,) * num_gpus
    given = tuple(_as_speed(speed) for speed in _one_each("gpu_speeds", speeds, num_gpus))
    if max(given) > min(given) * MOST_SPEED_RATIO:
        raise ValueError(
            f"gpu_speeds are from {min(given)} to {max(given)}: the fastest GPU may be at most "
            f"{MOST_SPEED_RATIO:.0f} times as fast as the slowest, so leave a GPU that is slower "
            "out of active_gpus, and give it another speed"
        )
    return given


def _as_speed(speed: SupportsFloat) -> float:
    try:
        value = as_number(speed)
    except Exception:  # noqa: BLE001 - objects raise anything here
        value = None
    if value is None or not LEAST_SPEED <= value <= MOST_SPEED:
        raise ValueError(
            f"an entry of gpu_speeds is {one_line(speed)}: give a positive number from 2**-40 to "
            "2**40, and leave a GPU that is gone out of active_gpus"
        )
    return value


def _one_each(name: str, values: Iterable[T], num_gpus: int) -> list[T]:
    listed = as_list(name, values, "give one entry for each GPU", most=num_gpus)
    if len(listed) != num_gpus:
        more = " or more" if len(listed) > num_gpus else ""
        raise ValueError(
            f"{name} has {len(listed)}{more} entries, but num_gpus={num_gpus}: "
            "give one for each GPU"
        )
    return listed


def _as_active(active: ArrayLike | None, num_gpus: int) -> tuple[int, ...]:
    if active is None:
        return tuple(range(num_gpus))
    try:
        # Only a range can be long without having taken the memory already.
        given = np.asarray(active if len(active) <= num_gpus else None)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - objects raise anything here
        given = np.asarray(None)
    if given.dtype == bool and given.shape == (num_gpus,):
        given = np.flatnonzero(given)
    numbers = sorted(given.tolist()) if given.ndim == 1 and given.dtype.kind in "iu" else []
    in_range = bool(numbers) and numbers[0] >= 0 and numbers[-1] < num_gpus
    if not in_range or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"active_gpus={one_line(active)} must be unique GPU ids in 0..{num_gpus - 1} "
            f"(at least one), or {num_gpus} bools (at least one True)"
        )
    return tuple(numbers)
