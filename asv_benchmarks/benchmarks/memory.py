"""How much memory does a planning process need?

Most of it is Python, NumPy and Numba: the smallest deployment shows how much.
"""

from .common import MODELS, SMALLEST, Benchmark


class MakePlan(Benchmark):
    """Peak memory of a process that makes one plan, with its kernels from the disk cache."""

    params = ((SMALLEST, *MODELS),)
    needs = ("make_plan",)

    def prepare(self, deployment):
        pass  # a call here would count in the peak too

    def peakmem_make_plan(self, deployment):
        self.make_plan(self.load, num_threads=1)


class RebalanceExperts(Benchmark):
    """The same with ``log2phy``."""

    params = ((SMALLEST, *MODELS),)
    needs = ("rebalance_experts",)

    def prepare(self, deployment):
        self.skip_huge_log2phy()

    def peakmem_rebalance_experts(self, deployment):
        self.rebalance_experts(self.load, num_threads=1)
