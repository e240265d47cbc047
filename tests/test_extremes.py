"""At the ends of what is accepted, plans are sound; and no file or NaN can kill the process."""

from pathlib import Path

import numpy as np
import pytest
from extremes import check_extremes
from support import TESTS, copy_package, fewer, needs_jit, refused, run_python

import eplb_np
from eplb_np import Plan, Rebalancer, Topology


def test_plans_at_the_ends_of_the_ranges_are_sound() -> None:
    for seed in range(fewer(200, 15)):
        check_extremes(seed)


@pytest.mark.same_without_jit
@needs_jit
@pytest.mark.parametrize("boundscheck", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_no_index_is_bad_whatever_nan_decides(boundscheck, tmp_path) -> None:
    """In a process of its own, which a bad index would kill, or end with an `IndexError`."""
    package = copy_package(tmp_path) if boundscheck == "1" else Path(eplb_np.__file__).parent
    settings = {"NUMBA_BOUNDSCHECK": boundscheck}
    if boundscheck == "1":  # nothing compiled without it may be found
        settings["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    last = "1000" if boundscheck == "1" else "100"
    result = run_python(str(TESTS / "extremes.py"), "0", last, package=package, **settings)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "sound"


@pytest.mark.parametrize("speed", [5e-324, 1e-300, 1e300, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", ["plan", "state"])
def test_files_with_speeds_out_of_range_are_refused(speed, kind, tmp_path) -> None:
    topology = Topology(8, 12, 4, gpu_speeds=[1, 2, 1, 1])
    rebalancer = Rebalancer(topology, 1)
    rebalancer.observe(np.arange(1.0, 9.0)[None])
    plan = rebalancer.propose().plan
    object.__setattr__(topology, "gpu_speeds", (speed,) * 4)
    saved, read = (plan.save, Plan.load) if kind == "plan" else (rebalancer.save, Rebalancer.load)
    saved(tmp_path / "saved.npz")
    with refused("gpu_speeds is", "2**-40 to 2**40"):
        read(tmp_path / "saved.npz")
