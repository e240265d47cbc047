"""How long does a whole plan take, on real deployments, by policy and threads?"""

from .common import MODELS, POLICIES, Benchmark


class MakePlan(Benchmark):
    """A plan as an object."""

    params = (MODELS, POLICIES, (1, 2))
    param_names = ("deployment", "policy", "num_threads")
    needs = ("make_plan",)

    def prepare(self, deployment, policy, num_threads):
        self.time_make_plan(deployment, policy, num_threads)

    def time_make_plan(self, deployment, policy, num_threads):
        self.make_plan(self.load, policy=policy, num_threads=num_threads)


class RebalanceExperts(Benchmark):
    """A plan as the three arrays of the published program."""

    params = (MODELS, POLICIES, (1, 2))
    param_names = ("deployment", "policy", "num_threads")
    needs = ("rebalance_experts",)

    def prepare(self, deployment, policy, num_threads):
        if policy == "hybrid":
            self.skip_huge_log2phy()
        self.time_rebalance_experts(deployment, policy, num_threads)

    def time_rebalance_experts(self, deployment, policy, num_threads):
        self.rebalance_experts(self.load, policy=policy, num_threads=num_threads)
