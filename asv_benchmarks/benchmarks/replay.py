"""What do planning from history and mending gain, and how long does a replan take?

For the figures of quality, whole traces are replayed once, in `setup_cache`. The figures are
deterministic. As in `quality`, people compare the points above DeepSeek's policy, and asv watches
the longest times over the ceiling's, since it treats growth as a regression.
"""

import numpy as np

from .common import DEPLOYMENTS, MAIN, MODELS, QUICK, Benchmark, package_with, seeded_windows

SCENARIOS = ("switches", "drift", "stationary", "decode")
REPLAYED = ("DeepSeek-V3 288 global 32", "DeepSeek-V3 288 global 72", MAIN)
LOOKBACK = 8
# A trace of all layers takes ten times as long and shows the same.
NUM_LAYERS = 2 if QUICK else 12
NUM_WINDOWS = 12 if QUICK else 48
HISTORY = 8  # windows before a timed replan
# On the large deployment a replan takes seconds: too long to repeat.
REPLANNED = tuple(name for name in MODELS if not name.startswith("large"))


class Replay:
    """Figures of a replay of mending, from the 9th window on."""

    version = "1"
    timeout = 120
    params = (SCENARIOS, REPLAYED)
    param_names = ("trace", "deployment")

    def setup_cache(self):
        """Replay every trace on every deployment, since asv asks for all figures of a commit."""
        try:
            eplb_np = package_with("replay", "Rebalancer", "Topology")
        except NotImplementedError:
            return {}
        return {
            (scenario, deployment): figures(eplb_np, scenario, deployment)
            for scenario in SCENARIOS
            for deployment in REPLAYED
        }

    setup_cache.timeout = 600

    def setup(self, measured, trace, deployment):
        if not measured:
            raise NotImplementedError("this commit has no eplb_np.replay")

    def track_points_above_deepseek(self, measured, trace, deployment):
        return measured[trace, deployment]["points"]

    def track_longest_time_over_ceiling(self, measured, trace, deployment):
        return measured[trace, deployment]["over_ceiling"]

    def track_moved(self, measured, trace, deployment):
        return measured[trace, deployment]["moved"]

    track_points_above_deepseek.unit = "hundredths of balancedness"
    track_longest_time_over_ceiling.unit = "longest time / that of the future known"
    track_moved.unit = "% of slots per replan"


def figures(eplb_np, scenario, deployment):
    """Compare mended plans with DeepSeek's policy and a planner that knows the future."""
    sizes = DEPLOYMENTS[deployment]._replace(num_layers=NUM_LAYERS)
    _, experts, replicas, groups, nodes, gpus = sizes
    topology = eplb_np.Topology(experts, replicas, gpus, nodes, groups)
    windows, mean = seeded_windows(sizes, scenario, NUM_WINDOWS)
    mended, deepseek, ceiling = (
        eplb_np.replay.replay(windows, planner, first_window=LOOKBACK)
        for planner in (
            eplb_np.replay.mending(topology),
            eplb_np.replay.replanning(topology, "deepseek", LOOKBACK),
            eplb_np.replay.knowing_the_future(topology, mean),
        )
    )
    return {
        "points": 100 * (mended.balancedness - deepseek.balancedness),
        "over_ceiling": ceiling.balancedness / mended.balancedness,
        "moved": 100 * mended.moved_share,
    }


class Replan(Benchmark):
    """Steps of a serving loop, for a load that drifts and for a change of workload."""

    params = (REPLANNED, ("drift", "another workload"))
    param_names = ("deployment", "change")
    needs = ("Rebalancer", "Topology")

    def prepare(self, deployment, change):
        """Observe some windows, with a plan in use that fits all but the last."""
        layers, experts, replicas, groups, nodes, gpus = self.sizes
        self.topology = self.eplb_np.Topology(experts, replicas, gpus, nodes, groups)
        rng = np.random.default_rng(7)
        mean = np.linspace(self.load, 0.9 * self.load + 0.1 * self.later_load, HISTORY)
        if change == "another workload":
            mean[:-1] = self.load
            mean[-1] = self.later_load
        self.windows = rng.poisson(mean).astype(np.float32)
        self.rebalancer = self.eplb_np.Rebalancer(self.topology, layers)
        for window in self.windows[:-1]:
            self.rebalancer.observe(window)
        self.in_use = self.rebalancer.propose().plan
        self.rebalancer.observe(self.windows[-1])
        self.mended = self.rebalancer.propose().plan

    def time_propose(self, deployment, change):
        self.rebalancer.use(self.in_use)
        self.rebalancer.propose()

    def time_moves_from(self, deployment, change):
        self.mended.moves_from(self.in_use)


class Observe(Benchmark):
    """Take in one window of loads."""

    params = (MODELS,)
    needs = ("Rebalancer", "Topology")

    def prepare(self, deployment):
        layers, experts, replicas, groups, nodes, gpus = self.sizes
        topology = self.eplb_np.Topology(experts, replicas, gpus, nodes, groups)
        self.windows = np.random.default_rng(7).poisson(self.load, (HISTORY, *self.load.shape))
        self.windows = self.windows.astype(np.float32)
        self.rebalancer = self.eplb_np.Rebalancer(topology, layers)
        self.next = 0
        for _ in self.windows:
            self.time_observe(deployment)

    def time_observe(self, deployment):
        self.rebalancer.observe(self.windows[self.next])
        self.next = (self.next + 1) % HISTORY
