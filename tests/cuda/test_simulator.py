"""The CUDA kernels equal the slow twin, bit for bit, in Numba's simulator."""

from pathlib import Path

import pytest
from support import run_python

pytestmark = pytest.mark.same_without_jit

CHECKS = [
    "packing", "replication", "hybrid", "deepseek", "hierarchical", "large_rows", "many_keys",
    "real_layers", "arrays_on_the_gpu", "output_buffers", "bad_input", "plan_objects", "splits",
    "split_arguments", "thread_counts", "assigned", "selftest",
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_simulator(check):
    script = str(Path(__file__).with_name("simulated_cuda.py"))
    options = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    result = run_python("-W", "error", script, check, **options)
    assert result.returncode == 0, result.stderr
