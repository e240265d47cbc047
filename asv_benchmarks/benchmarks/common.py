"""Shared by all benchmarks: profiles, deployments, seeded loads, and the base class.

Neither this file nor the top of any benchmark file imports ``eplb_np``: an old commit may lack what
a file measures, and the time and memory of an import belong to the benchmark's own process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import ModuleType
from typing import NamedTuple

import numpy as np

PROFILE = os.environ.get("EPLB_NP_BENCH_PROFILE", "full")
"""``full`` measures; ``quick`` runs every benchmark on few deployments, to check that it works."""
if PROFILE not in ("full", "quick"):
    raise ValueError(f"EPLB_NP_BENCH_PROFILE={PROFILE!r} is unknown: give 'full' or 'quick'")
QUICK = PROFILE == "quick"


class Deployment(NamedTuple):
    """A model's MoE layers and the GPUs that they are spread over."""

    num_layers: int
    num_experts: int
    num_replicas: int
    num_groups: int
    num_nodes: int
    num_gpus: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Replicas, groups, nodes, GPUs: what follows the load in ``rebalance_experts``."""
        return self.num_replicas, self.num_groups, self.num_nodes, self.num_gpus


# Replicas/groups/nodes/GPUs, or replicas "global" GPUs. The names are the parameters on the
# dashboard: it loses results that were recorded under another name.
DEPLOYMENTS = {
    "DeepSeek-V3 288/8/4/32": Deployment(58, 256, 288, 8, 4, 32),
    "DeepSeek-V3 288 global 72": Deployment(58, 256, 288, 1, 1, 72),
    "DeepSeek-V3 288 global 32": Deployment(58, 256, 288, 1, 1, 32),
    "DeepSeek-V3 320 global 64": Deployment(58, 256, 320, 1, 1, 64),
    "DeepSeek-V3 384 global 128": Deployment(58, 256, 384, 1, 1, 128),
    "Qwen3-235B 160 global 32": Deployment(94, 128, 160, 1, 1, 32),
    "Kimi-K2 448 global 64": Deployment(60, 384, 448, 1, 1, 64),
    "large 6144 global 1024": Deployment(64, 4096, 6144, 1, 1, 1024),
    "one layer 72 global 8": Deployment(1, 64, 72, 1, 1, 8),
    "DeepSeek-V3 360 global 72": Deployment(58, 256, 360, 1, 1, 72),
}
SMALLEST = "one layer 72 global 8"
ROOMY = "DeepSeek-V3 360 global 72"  # for the split, which profits from spare slots
MAIN = "DeepSeek-V3 288/8/4/32"
MODELS = tuple(name for name in DEPLOYMENTS if name not in (SMALLEST, ROOMY))
POLICIES = ("hybrid", "deepseek", "refined")
MAX_LOG2PHY_BYTES = 1 << 30
IN_QUICK_PROFILE = {MAIN, "DeepSeek-V3 288 global 72", SMALLEST}


def seeded_loads(deployment: Deployment, seed: int) -> dict[str, np.ndarray]:
    """Make the inputs of a deployment, in tokens, float32.

    The package has such generators too, but a commit under test must not choose its own inputs, so
    every commit is measured on these. They have the skew of recorded DeepSeek-V3 loads, with the
    hottest expert at about six times the mean, and the groups differ in load.

    Returns
    -------
    dict
        ``load`` [L, E]; ``later_load`` [L, E], the same experts some time later; and ``items``
        [L, P], a load for each of as many items as there are slots.
    """
    rng = np.random.default_rng(seed)
    layers, experts = deployment.num_layers, deployment.num_experts
    group_heat = rng.standard_normal((layers, deployment.num_groups))
    heat = 0.75 * rng.standard_normal((layers, experts))
    heat += 0.2 * np.repeat(group_heat, experts // deployment.num_groups, axis=1)
    drift = 0.3 * rng.standard_normal((layers, experts))
    item_heat = 0.4 * rng.standard_normal((layers, deployment.num_replicas))
    heats = {"load": heat, "later_load": heat + drift, "items": item_heat}
    return {name: np.rint(10_000 * np.exp(h)).astype(np.float32) for name, h in heats.items()}


# As in recorded loads: Dirichlet concentration of a window's shares around their mean, tokens of a
# layer in a window of prefill and in one of small decode batches, standard deviation of an expert's
# logarithm between workloads, and total variation of a slow drift in a window.
CONCENTRATION = 20_000
WINDOW_TOKENS = 10_000_000
DECODE_WINDOW_TOKENS = 12_000
WORKLOAD_SPREAD = 0.23
DRIFT = 0.005


def seeded_windows(
    deployment: Deployment, scenario: str, num_windows: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make a trace, since a commit under test must not choose its own traces either.

    Parameters
    ----------
    scenario : {"switches", "drift", "stationary", "decode"}
        Three successive workloads that drift a little, one that drifts towards another, one that
        stays the same, and the last in windows of few tokens.

    Returns
    -------
    windows, mean : ndarray, [W, L, E], float32 and float64
        Tokens, and the shares from which they were drawn.
    """
    rng = np.random.default_rng(seed)
    base = seeded_loads(deployment, seed)["load"]
    spread = WORKLOAD_SPREAD * rng.standard_normal((4, *base.shape))
    workload = base * np.exp(spread)
    workload /= workload.sum(axis=2, keepdims=True)
    mean = np.empty((num_windows, *base.shape))
    for window in range(num_windows):
        part, age = 0, window
        if scenario == "switches":
            part, age = divmod(window, -(-num_windows // 3))
        here, there = workload[part], workload[part + 1]
        drifts = scenario in ("switches", "drift")
        variation = 0.5 * np.abs(there - here).sum(axis=1).mean()
        gone = min(1.0, DRIFT * age / variation) if drifts else 0.0
        mean[window] = (1 - gone) * here + gone * there
    shares = rng.gamma(CONCENTRATION * mean)
    shares /= shares.sum(axis=2, keepdims=True)
    tokens = DECODE_WINDOW_TOKENS if scenario == "decode" else WINDOW_TOKENS
    return rng.multinomial(tokens, shares).astype(np.float32), mean


def input_file(deployment: str) -> str:
    """Name of a deployment's inputs in the folder that asv gives ``setup_cache``."""
    return f"{deployment.replace(' ', '_').replace('/', '_')}.npz"


def package_with(*names: str) -> ModuleType:
    """Import ``eplb_np``, or skip the benchmark if an old commit lacks what it measures.

    The quick profile is for the current commit. There a missing name is an error, since a
    benchmark of something renamed would otherwise be skipped from then on.
    """
    try:
        import eplb_np

        for name in names:
            getattr(eplb_np, name)
    except (ImportError, AttributeError) as error:
        if QUICK:
            raise
        raise NotImplementedError(f"this commit: {error}") from error
    return eplb_np


class Benchmark:
    """Base of the benchmarks that plan in their own process.

    The first parameter is the name of a deployment. Subclasses list in ``needs`` the names of
    ``eplb_np`` that they measure, and do in ``prepare`` what must not be measured.
    """

    # asv drops recorded results if a benchmark's version changes, which by default is whenever its
    # code changes. Raise the version in a subclass if it measures something else from now on.
    version = "1"
    timeout = 120
    rounds = 1 if QUICK else 2
    warmup_time = 0.0 if QUICK else 0.1
    repeat = (1, 3, 0.1) if QUICK else (5, 300, 0.3)  # least, most, seconds

    params: tuple[tuple[object, ...], ...] = (MODELS,)
    param_names: tuple[str, ...] = ("deployment",)
    needs: tuple[str, ...] = ()
    prepared_for: tuple[object, ...] | None = None

    def setup_cache(self) -> None:
        """Write the inputs once for all benchmarks, and compile the kernels to disk.

        Otherwise the first benchmark's peak memory would be the compiler's.
        """
        for seed, (name, deployment) in enumerate(DEPLOYMENTS.items()):
            np.savez(input_file(name), **seeded_loads(deployment, seed))
        with suppress(NotImplementedError):
            package_with("warmup").warmup()

    def setup(self, *params: object) -> None:
        """Skip what this commit or profile lacks, else prepare once: asv calls this per sample."""
        if params == self.prepared_for:
            return
        deployment = str(params[0])
        if QUICK and deployment not in IN_QUICK_PROFILE:
            raise NotImplementedError(f"{deployment} is left out of the quick profile")
        self.eplb_np = package_with(*self.needs)
        self.sizes = DEPLOYMENTS[deployment]
        with np.load(input_file(deployment)) as inputs:
            self.load = inputs["load"]
            self.later_load = inputs["later_load"]
            self.items = inputs["items"]
        try:
            self.prepare(*params)
        except ValueError as error:
            if QUICK or not str(error).startswith("policy="):
                raise
            raise NotImplementedError(f"this commit: {error}") from error
        self.prepared_for = params

    def prepare(self, *params: object) -> None:
        """Prepare what is measured: make its other inputs, and compile by calling it once."""
        raise NotImplementedError

    def make_plan(self, load: np.ndarray, *, policy: str = "hybrid", **options: object) -> object:
        """Plan for this deployment."""
        sizes = self.sizes
        return self.eplb_np.make_plan(
            load,
            num_replicas=sizes.num_replicas,
            num_groups=sizes.num_groups,
            num_nodes=sizes.num_nodes,
            num_gpus=sizes.num_gpus,
            policy=policy,
            **options,
        )

    def skip_huge_log2phy(self) -> None:
        """Skip if hybrid ``log2phy``, [L, E, P - E + 1] int64, would fill a machine's memory."""
        layers, experts, replicas = self.sizes[:3]
        size = layers * experts * (replicas - experts + 1) * 8
        if size > MAX_LOG2PHY_BYTES:
            raise NotImplementedError(f"log2phy would take {size / 2**30:.1f} GiB")

    def rebalance_experts(self, load: np.ndarray, **options: object) -> object:
        """Plan for this deployment under the published name, which also makes ``log2phy``."""
        return self.eplb_np.rebalance_experts(load, *self.sizes.sizes, **options)
