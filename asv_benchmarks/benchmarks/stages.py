"""How long does each stage take, and each measure of a plan?"""

from .common import Benchmark


class Replication(Benchmark):
    """How many replicas each expert gets."""

    needs = ("replicate_experts",)

    def prepare(self, deployment):
        self.time_replicate_experts(deployment)

    def time_replicate_experts(self, deployment):
        self.eplb_np.replicate_experts(self.load, self.sizes.num_replicas)


class Packing(Benchmark):
    """Pack as many items as there are slots into the GPUs."""

    needs = ("balanced_packing",)

    def prepare(self, deployment):
        self.time_balanced_packing(deployment)

    def time_balanced_packing(self, deployment):
        self.eplb_np.balanced_packing(self.items, self.sizes.num_gpus)


class Hierarchy(Benchmark):
    """All stages, without the choice of policy."""

    needs = ("rebalance_experts_hierarchical",)

    def prepare(self, deployment):
        self.time_rebalance_experts_hierarchical(deployment)

    def time_rebalance_experts_hierarchical(self, deployment):
        self.eplb_np.rebalance_experts_hierarchical(self.load, *self.sizes.sizes, num_threads=1)


class Log2phy(Benchmark):
    """The map from experts to slots, which a plan builds on first use."""

    needs = ("make_plan",)

    def prepare(self, deployment):
        self.skip_huge_log2phy()
        self.plan = self.make_plan(self.load, num_threads=1)
        self.time_log2phy(deployment)

    def time_log2phy(self, deployment):
        vars(self.plan).pop("log2phy", None)
        self.plan.log2phy  # noqa: B018 - a property that does the work


class LowerBound(Benchmark):
    """A load that the busiest GPU of every plan reaches."""

    needs = ("Topology", "lower_bound")

    def prepare(self, deployment):
        _, experts, replicas, groups, nodes, gpus = self.sizes
        self.topology = self.eplb_np.Topology(experts, replicas, gpus, nodes, groups)
        self.time_lower_bound(deployment)

    def time_lower_bound(self, deployment):
        self.eplb_np.lower_bound(self.load, self.topology)


class Metrics(Benchmark):
    """How balanced a plan is, and what changing to it costs."""

    needs = ("make_plan", "moved_replicas")

    def prepare(self, deployment):
        self.plan = self.make_plan(self.load, num_threads=1)
        self.later_plan = self.make_plan(self.later_load, num_threads=1)
        self.time_gpu_balancedness(deployment)
        self.time_moved_replicas(deployment)

    def time_gpu_balancedness(self, deployment):
        self.plan.balancedness(self.load)

    def time_replica_balancedness(self, deployment):
        self.plan.replica_balancedness(self.load)

    def time_moved_replicas(self, deployment):
        old, new = self.plan.phy2log, self.later_plan.phy2log
        self.eplb_np.moved_replicas(old, new, self.sizes.num_gpus)
