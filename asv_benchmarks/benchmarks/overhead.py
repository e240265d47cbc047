"""What does a call cost when there is almost nothing to plan?"""

import numpy as np

from .common import SMALLEST, Benchmark


class CallOverhead(Benchmark):
    """One layer of 64 experts, in the kernels' own dtype and in a router's."""

    params = ((SMALLEST,), ("float32", "int64"))
    param_names = ("deployment", "dtype")
    needs = ("make_plan", "rebalance_experts")

    def prepare(self, deployment, dtype):
        self.load = self.load.astype(np.dtype(dtype))
        for _ in range(1000):  # fill caches and branch predictors, as a long run would
            self.time_make_plan(deployment, dtype)
            self.time_rebalance_experts(deployment, dtype)

    def time_make_plan(self, deployment, dtype):
        self.make_plan(self.load)

    def time_rebalance_experts(self, deployment, dtype):
        self.rebalance_experts(self.load)
