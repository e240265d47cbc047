"""How good are the plans? A faster plan that balances worse is a regression too.

asv treats any figure that grows as a regression. Balancedness, where more is better, is recorded
because people compare it. The ratios, where less is better, are for asv to watch.
"""

from .common import MODELS, POLICIES, Benchmark


class Quality(Benchmark):
    """Measures of a plan under the load that it was made from."""

    params = (MODELS, POLICIES)
    param_names = ("deployment", "policy")
    needs = ("make_plan",)

    def prepare(self, deployment, policy):
        self.plan = self.make_plan(self.load, policy=policy)

    def track_gpu_balancedness(self, deployment, policy):
        return self.plan.balancedness(self.load)

    def track_replica_balancedness(self, deployment, policy):
        return self.plan.replica_balancedness(self.load)

    def track_gpu_load_over_bound(self, deployment, policy):
        """Sum over layers, since each waits for its busiest GPU."""
        largest = self.plan.gpu_load(self.load).max(axis=1)
        return float(largest.sum() / self.plan.lower_bound(self.load).sum())

    def track_replica_load_over_mean(self, deployment, policy):
        return 1 / self.plan.replica_balancedness(self.load)

    track_gpu_balancedness.unit = "mean / largest GPU load"
    track_replica_balancedness.unit = "mean / largest replica load"
    track_gpu_load_over_bound.unit = "largest GPU load / lower bound"
    track_replica_load_over_mean.unit = "largest / mean replica load"


class Change(Benchmark):
    """What following a drifted load costs."""

    params = (MODELS, POLICIES)
    param_names = ("deployment", "policy")
    needs = ("make_plan", "moved_replicas")

    def prepare(self, deployment, policy):
        self.plan = self.make_plan(self.load, policy=policy)
        self.later_plan = self.make_plan(self.later_load, policy=policy)

    def track_moved_replicas(self, deployment, policy):
        old, new = self.plan.phy2log, self.later_plan.phy2log
        return self.eplb_np.moved_replicas(old, new, self.sizes.num_gpus)

    track_moved_replicas.unit = "replicas"
