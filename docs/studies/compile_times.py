"""What compiling costs, once on a machine: CPU seconds of the first calls, with empty caches.

    python docs/studies/compile_times.py

Prints a Markdown table. Each row is a new process with a cache of its own, and counts CPU time from
the end of the imports. Mending is timed after a plan from scratch, so it is what comes on top.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

PREPARE = """
import time
import eplb_np
load = eplb_np.workloads.deepseek_v3_load(seed=0)[3:]
start = time.process_time()
"""
MEND = """
plan = eplb_np.make_plan(load, num_replicas=288, num_gpus=32)
start = time.process_time()
eplb_np.make_plan([load, load[:, ::-1]], current=plan)
"""
FIRST_CALLS = {
    "a hybrid plan, global": "eplb_np.make_plan(load, num_replicas=288, num_gpus=72, "
    "policy='hybrid')",
    "a hybrid plan in SIMD batches": "eplb_np.make_plan(load, num_replicas=288, num_gpus=32, "
    "num_nodes=4, num_groups=8, policy='hybrid')",
    "a refined plan": "eplb_np.make_plan(load, num_replicas=288, num_gpus=32)",
    "a mended plan, on top": MEND,
    "`warmup()`: everything but splits": "eplb_np.warmup()",
}
PRINT = "\nprint(time.process_time() - start)"


def seconds(call: str) -> float:
    """CPU seconds of a call in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        # The cache of the home folder is read, too.
        others = {"NUMBA_CACHE_DIR": folder, "XDG_CACHE_HOME": "", "HOME": folder}
        environment = os.environ | others
        done = subprocess.run(
            [sys.executable, "-c", PREPARE + call + PRINT],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(done.stdout)


def main() -> None:
    print("| first call | CPU s |")
    print("|---|--:|")
    for name, call in FIRST_CALLS.items():
        print(f"| {name} | {seconds(call):.1f} |", flush=True)


if __name__ == "__main__":
    main()
