"""How long does a split of a batch take, how well does it balance, and how much is moved for it?

Few layers, because plans are made for the split here, which takes a tenth of a second for each.
"""

from __future__ import annotations

import numpy as np

from .common import DEPLOYMENTS, ROOMY, Benchmark, seeded_windows

SPLIT = (
    "DeepSeek-V3 288/8/4/32",
    "DeepSeek-V3 288 global 72",
    "DeepSeek-V3 288 global 32",
    "DeepSeek-V3 320 global 64",
    ROOMY,
)
PLANNED_FOR = ("even", "best")  # the split that the plan was made for
LAYERS = 8
HISTORY = 8  # windows that a plan is made from; as many others are split
CHOSEN = 8  # experts of a token
TOKENS_OF_RANK = 128


class SplitBenchmark(Benchmark):
    """Base: a plan of few layers, and windows that it was not made from."""

    params = (SPLIT, PLANNED_FOR)
    param_names = ("deployment", "planned for")
    needs = ("Splitter",)

    def prepare(self, deployment, planned_for):
        sizes = DEPLOYMENTS[deployment]._replace(num_layers=LAYERS)
        drawn, _ = seeded_windows(sizes, "stationary", 2 * HISTORY)
        self.later = drawn[HISTORY:].astype(np.int64)
        self.expected = drawn[:HISTORY].sum(axis=0)
        history = drawn[:HISTORY]
        self.plan = self.make_plan(history, policy="refined", split=planned_for)
        self.splitter = self.eplb_np.Splitter(self.plan, self.expected)


class Split(SplitBenchmark):
    """Times of splits. Those in compiled code are of 8 windows of 8 layers: 64 splits."""

    def prepare(self, deployment, planned_for):
        super().prepare(deployment, planned_for)
        from numba import njit

        from eplb_np.kernels import make_split_scratch, split_layer, split_layer_evenly

        @njit(nogil=True)
        def split_all(graph, windows, scratch, out):
            for w in range(windows.shape[0]):
                for layer in range(windows.shape[1]):
                    split_layer(graph, layer, windows[w, layer], scratch, out)

        @njit(nogil=True)
        def split_all_evenly(graph, windows, scratch, out):
            for w in range(windows.shape[0]):
                for layer in range(windows.shape[1]):
                    split_layer_evenly(graph, layer, windows[w, layer], scratch, out)

        self.split_all, self.split_all_evenly = split_all, split_all_evenly
        self.scratch = make_split_scratch(self.splitter.graph, np.int64)
        self.out = np.zeros(self.sizes.num_replicas, np.int64)
        self.time_compiled(deployment, planned_for)
        self.time_compiled_evened(deployment, planned_for)
        self.time_layer_from_python(deployment, planned_for)
        self.time_layer_evened_from_python(deployment, planned_for)

    def time_compiled(self, deployment, planned_for):
        self.split_all(self.splitter.graph, self.later, self.scratch, self.out)

    def time_compiled_evened(self, deployment, planned_for):
        self.split_all_evenly(self.splitter.graph, self.later, self.scratch, self.out)

    def time_layer_from_python(self, deployment, planned_for):
        self.splitter.split_layer(0, self.later[0, 0], evened=False, out=self.out)

    def time_layer_evened_from_python(self, deployment, planned_for):
        self.splitter.split_layer(0, self.later[0, 0], out=self.out)


class SplitQuality(SplitBenchmark):
    """Balance of windows that the plan was not made from."""

    def track_gpu_balancedness(self, deployment, planned_for):
        return self.balance("best")

    def track_gpu_balancedness_of_even_split(self, deployment, planned_for):
        return self.balance("even")

    def track_gpu_load_over_mean(self, deployment, planned_for):
        return 1 / self.balance("best")

    def balance(self, split):
        longest = sum(self.plan.gpu_load(w, split=split).max(axis=1).sum() for w in self.later)
        return float(self.later.sum() / self.sizes.num_gpus / longest)

    track_gpu_balancedness.unit = "mean / largest GPU load"
    track_gpu_balancedness_of_even_split.unit = "mean / largest GPU load"
    track_gpu_load_over_mean.unit = "largest / mean GPU load"


class Dispatch(SplitBenchmark):
    """Who sends what where, for one layer of a batch that the router has chosen experts for."""

    needs = ("Splitter", "assign", "make_quotas")

    def prepare(self, deployment, planned_for):
        super().prepare(deployment, planned_for)
        rng = np.random.default_rng(0)
        heat = np.log(self.expected[0] + 1.0)
        shape = self.sizes.num_gpus, TOKENS_OF_RANK, len(heat)
        scores = heat + rng.gumbel(size=shape)
        topk_ids = np.argsort(-scores, axis=2)[:, :, :CHOSEN]
        self.counts = np.array([np.bincount(ids.ravel(), minlength=len(heat)) for ids in topk_ids])
        self.topk_ids = np.ascontiguousarray(topk_ids[0])
        self.slot_load = self.splitter.split_layer(0, self.counts.sum(axis=0))
        self.quotas = self.eplb_np.make_quotas(self.plan, self.slot_load, self.counts, layer=0)
        self.log2phy = self.plan.log2phy[0]
        self.time_make_quotas(deployment, planned_for)
        self.time_assign(deployment, planned_for)

    def time_make_quotas(self, deployment, planned_for):
        self.eplb_np.make_quotas(self.plan, self.slot_load, self.counts, layer=0)

    def time_assign(self, deployment, planned_for):
        self.eplb_np.assign(self.topk_ids, self.quotas[0], self.log2phy)

    def track_share_that_leaves_its_gpu(self, deployment, planned_for):
        slots = self.sizes.num_replicas // self.sizes.num_gpus
        ranks = np.arange(self.sizes.num_gpus)
        own = self.quotas.reshape(len(ranks), len(ranks), slots)[ranks, ranks].sum()
        return 1 - float(own / self.counts.sum())

    track_share_that_leaves_its_gpu.unit = "share of (token, expert) pairs"


class SplitMoves(Benchmark):
    """Moves and balance of a `Rebalancer` on a short trace with changes of workload."""

    params = (("DeepSeek-V3 288/8/4/32", "DeepSeek-V3 288 global 32", ROOMY), PLANNED_FOR)
    param_names = ("deployment", "planned for")
    needs = ("Splitter", "Rebalancer", "Topology", "moved_replicas")

    def prepare(self, deployment, planned_for):
        sizes = DEPLOYMENTS[deployment]._replace(num_layers=LAYERS)
        drawn, _ = seeded_windows(sizes, "switches", 12)
        _, experts, replicas, groups, nodes, gpus = sizes
        topology = self.eplb_np.Topology(experts, replicas, gpus, nodes, groups)
        rebalancer = self.eplb_np.Rebalancer(topology, LAYERS, split=planned_for)
        self.moved, busiest, plan = 0, 0.0, None
        for window in drawn:
            if plan is not None:
                busiest += plan.gpu_load(window, split=planned_for).max(axis=1).sum()
            rebalancer.observe(window)
            proposal = rebalancer.propose()
            if plan is not None:
                self.moved += proposal.moves.num_fetched
            plan = proposal.plan
        self.mean_over_largest = float(drawn[1:].sum() / gpus / busiest)

    def track_fetches(self, deployment, planned_for):
        return self.moved

    def track_gpu_balancedness(self, deployment, planned_for):
        return self.mean_over_largest

    track_fetches.unit = "replicas"
    track_gpu_balancedness.unit = "mean / largest GPU load"
