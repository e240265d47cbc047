"""What importing costs, and where it works."""

import os
import stat

import pytest
from support import copy_package, output_of

HEAVY = [
    "numba",
    "llvmlite",
    "torch",
    "jax",
    "tensorflow",
    "matplotlib",
    "pandas",
    "distributed",
    "multiprocessing",
    "click",
    "rich",
    "scipy",
]
LOADED = f"import eplb_np, sys; print([m for m in {HEAVY} if m in sys.modules])"
PLAN = "import eplb_np; print(eplb_np.replicate_experts([[9, 1, 1]], 5)[2].tolist())"


def test_importing_loads_nothing_heavy():
    assert output_of(LOADED) == "[]"


def test_reading_files_loads_no_numba(tmp_path):
    code = f"""
import sys
from eplb_np import Plan, Topology, in_order_plan
plan = in_order_plan(2, Topology(4, 8, 2))
plan.save({str(tmp_path / "plan.json")!r})
assert Plan.load({str(tmp_path / "plan.json")!r}) == plan
print(plan.balancedness([[1, 2, 3, 4]] * 2), "numba" in sys.modules)
"""
    assert output_of(code) == "1.0 False"


@pytest.mark.parametrize("home", [None, os.devnull])
def test_a_read_only_package_without_a_home_works(home, tmp_path):
    package = copy_package(tmp_path)
    for path in [package, *package.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    nowhere = {"HOME": home, "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    try:
        assert output_of(PLAN, package=package, cwd=tmp_path, **nowhere) == "[[3, 1, 1]]"
    finally:
        for path in [package, *package.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
