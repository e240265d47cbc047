"""How balanced the policies' plans are, and how balanced any plan could be at most.

    python docs/studies/policies.py [LOADS ...]

LOADS are files that `eplb-np plan` can read; by default, the load that ships with the package.
GPU balancedness is on the load that the plan was made from, averaged over the files. The last two
columns are the refined policy's time for a file on one thread, and the duplicates in the hybrid
policy's plans: replicas that share a GPU with another of the same expert. The refined policy's
plans have none.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

from ablation import read_or_make

import eplb_np
from eplb_np.workloads.deployments import DEPLOYMENTS

PLANNED = (
    "288/8/4/32", "256/8/4/32", "288 global 72", "320 global 64", "288 global 32",
    "384 global 128",
)  # fmt: skip
POLICIES = ("deepseek", "hybrid", "refined")


def num_duplicates(plan: eplb_np.Plan) -> int:
    """Replicas that share a GPU with another of their expert."""
    gpus = plan.phy2log.reshape(-1, plan.topology.slots_per_gpu).tolist()
    return sum(len(gpu) - len(set(gpu)) for gpu in gpus)


def main(paths: Sequence[str]) -> None:
    loads = read_or_make(paths)
    eplb_np.warmup()
    columns = (*POLICIES, "at most", "ms", "duplicates")
    print(f"| replicas / GPUs / nodes / groups | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name in PLANNED:
        num_replicas, num_groups, num_nodes, num_gpus = DEPLOYMENTS[name].sizes
        figures: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        bounds, seconds, duplicates = [], [], 0
        for load in loads:
            topology = eplb_np.Topology(
                load.shape[1], num_replicas, num_gpus, num_nodes, num_groups
            )
            for policy in POLICIES:
                start = time.perf_counter()
                plan = eplb_np.make_plan(load, topology, policy=policy, num_threads=1)
                if policy == "refined":
                    seconds.append(time.perf_counter() - start)
                if policy == "hybrid":
                    duplicates += num_duplicates(plan)
                figures[policy].append(plan.balancedness(load))
            bounds.append(load.sum() / num_gpus / plan.lower_bound(load).sum())
        cells = [f"{statistics.mean(figures[policy]):.4f}" for policy in POLICIES]
        cells.append(f"{statistics.mean(bounds):.4f}")
        cells.append(f"{statistics.median(seconds) * 1e3:.1f}")
        cells.append(str(duplicates))
        sizes = f"{num_replicas} / {num_gpus} / {num_nodes} / {num_groups}"
        print(f"| {sizes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
