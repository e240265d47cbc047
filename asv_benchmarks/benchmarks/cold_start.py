"""How long does a new process take to make its first plan?"""

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .common import QUICK, package_with

FIRST_PLAN = """
import sys
import eplb_np
assert eplb_np.__file__.startswith(sys.argv[1]), eplb_np.__file__
load = [[float(1 + i % 7) for i in range(256)]]
eplb_np.rebalance_experts(load, 288, 8, 4, 32)
"""


def timeraw_import():
    return "import eplb_np"


def timeraw_import_numpy():
    """Return the yardstick for `timeraw_import`."""
    return "import numpy"


for function in (timeraw_import, timeraw_import_numpy):
    function.version = "1"
    function.number = 1
    function.rounds = 1 if QUICK else 2
    function.repeat = 1 if QUICK else 10
    function.warmup_time = 0
timeraw_import.setup = package_with


class FirstPlan:
    """Seconds from the start of a Python process to its end, with one plan made.

    The process uses a copy of the package, and a cache of its own: the user's may hold the kernels.
    Older commits also cached them beside the installed package.
    """

    version = "1"

    def setup_cache(self):
        """Measure both at once: the process that fills the cache also finds it empty."""
        try:
            eplb_np = package_with("rebalance_experts")
        except NotImplementedError:
            return {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            caches = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(eplb_np.__file__).parent, folder / "eplb_np", ignore=caches)
            compileall.compile_dir(folder, quiet=1)  # as pip does
            empty = [seconds(folder, f"cache{i}") for i in range(1 if QUICK else 2)]
            warm = [seconds(folder, "cache0") for _ in range(2 if QUICK else 15)]
        return {"empty": min(empty), "warm": min(warm)}  # other programs can only add time

    setup_cache.timeout = 300

    def setup(self, measured):
        if not measured:
            raise NotImplementedError("this commit has no eplb_np.rebalance_experts")

    def track_empty_cache(self, measured):
        return measured["empty"]

    def track_warm_cache(self, measured):
        return measured["warm"]

    track_empty_cache.unit = track_warm_cache.unit = "seconds"


def seconds(folder, cache):
    """Time `FIRST_PLAN` with the package in a folder and no other cache than the given one."""
    environment = os.environ | {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home" / ".cache"),
        "NUMBA_CACHE_DIR": str(folder / cache),
        "PYTHONPATH": str(folder),
    }
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_PLAN, folder], env=environment, check=True)
    return time.perf_counter() - start
