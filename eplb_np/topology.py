"""How many experts, groups, nodes, GPUs and slots there are, and which sizes fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eplb_np._check import as_size

Placement = Literal["hierarchical", "global"]


@dataclass(frozen=True)
class Topology:
    """Sizes of a deployment, checked once.

    Parameters
    ----------
    num_experts : int
        Logical experts of a layer.
    num_replicas : int
        Physical experts (slots) of a layer over all GPUs; a multiple of ``num_gpus``, and at
        least ``num_experts``.
    num_gpus : int
        GPUs of the deployment; a multiple of ``num_nodes``.
    num_nodes : int, default: 1
        Nodes that the GPUs belong to.
    num_groups : int, default: 1
        Groups of consecutive logical experts; divides ``num_experts``.

    Raises
    ------
    ValueError
        If a size is not a positive integer or two sizes do not fit; the message names the
        nearest sizes that do.

    Notes
    -----
    GPU ``g`` belongs to node ``g // (num_gpus // num_nodes)`` and owns the slots from
    ``g * slots_per_gpu`` onward. Where ``num_nodes`` divides ``num_groups``, placement is
    hierarchical: whole groups go to nodes. Elsewhere it is global, as in the published
    algorithm: any expert may go to any GPU.
    """

    num_experts: int
    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_replicas", "num_gpus", "num_nodes", "num_groups"):
            object.__setattr__(self, name, as_size(name, getattr(self, name)))
        check_multiple("num_replicas", self.num_replicas, "num_gpus", self.num_gpus)
        check_multiple("num_gpus", self.num_gpus, "num_nodes", self.num_nodes)
        check_multiple("num_experts", self.num_experts, "num_groups", self.num_groups)
        if self.num_replicas < self.num_experts:
            least = -(-self.num_experts // self.num_gpus) * self.num_gpus
            raise ValueError(
                f"num_replicas={self.num_replicas} is less than num_experts={self.num_experts}: "
                f"every expert needs a slot, so give num_replicas={least} or more "
                f"(a multiple of num_gpus={self.num_gpus})"
            )

    @property
    def placement(self) -> Placement:
        """``"hierarchical"`` where whole groups go to nodes, else ``"global"``."""
        return "hierarchical" if self.num_groups % self.num_nodes == 0 else "global"

    @property
    def slots_per_gpu(self) -> int:
        """Slots of each GPU."""
        return self.num_replicas // self.num_gpus

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each node."""
        return self.num_gpus // self.num_nodes

    @property
    def packed_groups_and_nodes(self) -> tuple[int, int]:
        """Groups and nodes that the placement keeps apart: one of each where it is global."""
        if self.placement == "global":
            return 1, 1
        return self.num_groups, self.num_nodes

    def check_hierarchical(self) -> None:
        """Raise ``ValueError`` where whole groups cannot go to nodes."""
        check_multiple("num_groups", self.num_groups, "num_nodes", self.num_nodes)


def check_multiple(name: str, value: int, base_name: str, base: int) -> None:
    """Raise ``ValueError``, with the nearest sizes that fit, where ``base`` does not divide."""
    if value % base == 0:
        return
    below = value // base * base
    nearest = f"{below + base}" if below == 0 else f"{below} or {below + base}"
    raise ValueError(
        f"{name}={value} is not a multiple of {base_name}={base}: "
        f"give {name}={nearest}, or another {base_name}"
    )
