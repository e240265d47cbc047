"""How long does a plan take on the GPU? Skipped without a GPU."""

from __future__ import annotations

import numpy as np

from .common import DEPLOYMENTS, MODELS, Benchmark


class OnGpu(Benchmark):
    """A plan on the GPU, from the launch until the device is done."""

    params = (MODELS, ("hybrid", "deepseek"))
    param_names = ("deployment", "policy")
    needs = ("cuda", "make_plan")

    def prepare(self, deployment, policy):
        if not self.eplb_np.cuda.is_available():
            raise NotImplementedError("there is no GPU")
        self.skip_huge_log2phy()
        from numba import cuda

        layers, experts, replicas = DEPLOYMENTS[deployment][:3]
        self.synchronize = cuda.synchronize
        self.device_load = cuda.to_device(self.load)
        shapes = (layers, replicas), (layers, experts, replicas - experts + 1), (layers, experts)
        self.out = [cuda.device_array(shape, np.int64) for shape in shapes]
        self.time_to_buffers(deployment, policy)
        self.time_to_plan(deployment, policy)

    def time_to_buffers(self, deployment, policy):
        self.eplb_np.cuda.rebalance_experts(
            self.device_load, *self.sizes.sizes, policy=policy, out=self.out, check=False
        )
        self.synchronize()

    def time_to_plan(self, deployment, policy):
        self.make_plan(self.load, policy=policy, device="cuda")
