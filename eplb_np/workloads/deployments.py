"""The deployments that tests, documentation and benchmarks plan for."""

from __future__ import annotations

from typing import NamedTuple

from eplb_np.topology import Topology


class Deployment(NamedTuple):
    """A model's MoE layers and the GPUs that serve them. Plain sizes, unlike `Topology`."""

    num_layers: int
    num_experts: int
    num_replicas: int
    num_groups: int
    num_nodes: int
    num_gpus: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Replicas, groups, nodes and GPUs: what follows the load in `rebalance_experts`."""
        return self.num_replicas, self.num_groups, self.num_nodes, self.num_gpus

    @property
    def topology(self) -> Topology:
        """The same sizes, for `make_plan`."""
        replicas, groups, nodes, gpus = self.sizes
        return Topology(self.num_experts, replicas, gpus, nodes, groups)


DEPLOYMENTS = {
    "288/8/4/32": Deployment(58, 256, 288, 8, 4, 32),
    "256/8/4/32": Deployment(58, 256, 256, 8, 4, 32),
    "288 global 32": Deployment(58, 256, 288, 1, 1, 32),
    "288 global 72": Deployment(58, 256, 288, 1, 1, 72),
    "360 global 72": Deployment(58, 256, 360, 1, 1, 72),
    "320/8/4/32": Deployment(58, 256, 320, 8, 4, 32),
    "320 global 64": Deployment(58, 256, 320, 1, 1, 64),
    "384 global 128": Deployment(58, 256, 384, 1, 1, 128),
    "160 global 32": Deployment(94, 128, 160, 1, 1, 32),
    "448 global 64": Deployment(60, 384, 448, 1, 1, 64),
    "1536/16/4/256": Deployment(4, 1024, 1536, 16, 4, 256),
    "6144 global 1024": Deployment(64, 4096, 6144, 1, 1, 1024),
    "72 global 8": Deployment(1, 64, 72, 1, 1, 8),
}
"""By name: replicas/groups/nodes/GPUs, or replicas "global" GPUs. DeepSeek-V3 has 58 MoE layers of
256 experts in 8 groups, Qwen3-235B has 94 of 128, and Kimi-K2 has 60 of 384; the last three are not
models but small and large cases."""
