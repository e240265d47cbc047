"""Write ``golden/plans.json``: digests of the plans on real loads, by the slow twin alone.

python tests/reference/make_golden.py        (a minute; see ``recorded.py`` for the loads)
"""

import hashlib
import json
from pathlib import Path

import naive
import numpy as np
from recorded import recorded_loads

GOLDEN = Path(__file__).parent / "golden" / "plans.json"

# replicas, groups, nodes, GPUs
DEPLOYMENTS = {
    "288/8/4/32": (288, 8, 4, 32),
    "288 global 72": (288, 1, 1, 72),
    "320 global 64": (320, 1, 1, 64),
    "288 global 32": (288, 1, 1, 32),
    "256/8/4/32": (256, 8, 4, 32),
    "384 global 128": (384, 1, 1, 128),
}
POLICIES = ("hybrid", "deepseek")


def digests_of(arrays: tuple[np.ndarray, ...]) -> dict[str, str]:
    """SHA-256 of ``phy2log``, ``log2phy`` and ``logcnt``."""
    digests = [hashlib.sha256(array.astype("<i8").tobytes()).hexdigest() for array in arrays]
    return dict(zip(("phy2log", "log2phy", "logcnt"), digests, strict=True))


def describe(arrays: tuple[np.ndarray, ...], load: np.ndarray, num_gpus: int) -> dict[str, object]:
    """Digests of the arrays, and what the plan is worth."""
    phy2log, _, logcnt = arrays
    balancedness = naive.balancedness(naive.gpu_load(phy2log, logcnt, load, num_gpus))
    return {"balancedness": round(balancedness, 4), **digests_of(arrays)}


def main() -> None:
    plans = {
        name: {
            deployment: {
                policy: describe(
                    naive.rebalance_experts(load, *sizes, policy=policy), load, sizes[-1]
                )
                for policy in POLICIES
            }
            for deployment, sizes in DEPLOYMENTS.items()
        }
        for name, load in recorded_loads()
    }
    GOLDEN.write_text(json.dumps(plans, indent=1) + "\n")


if __name__ == "__main__":
    main()
