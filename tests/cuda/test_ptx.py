"""Every CUDA kernel compiles for real GPUs, with the arithmetic that the CPU has."""

import json
from pathlib import Path

import pytest
from support import needs_jit, run_python


@pytest.fixture(scope="module")
def kernels():
    result = run_python(str(Path(__file__).with_name("cuda_ptx.py")), NUMBA_ENABLE_CUDASIM=None)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    if "missing" in printed:
        pytest.skip(f"no CUDA toolkit to compile with: {printed['missing']}")
    return printed["found"]


@needs_jit
def test_every_kernel_has_the_arithmetic_of_the_cpu(kernels):
    assert len(kernels) == 2 * 20
    for name, found in kernels.items():
        assert name.endswith(found["target"][0]), name
        assert found["fused"] == 0, name
        assert found["inexact divisions"] == 0, name
        assert found["flushed"] == 0, name
        assert found["added products"] == [], name


@needs_jit
def test_loads_are_divided_as_ieee_says(kernels):
    for name, found in kernels.items():
        if name.startswith(("plan", "replicate")):
            assert found["divisions"] > 0, name


@needs_jit
def test_blocks_know_their_memory_and_call_nothing(kernels):
    for name, found in kernels.items():
        assert found["calls"] == 0, name
        if name.startswith(("plan", "replicate", "pack", "split", "number", "assign")):
            assert found["loads of unknown memory"] == 0, name


@needs_jit
def test_the_code_of_both_packings_and_of_all_grants_is_there_once(kernels):
    def instructions(name):
        return {found["instructions"] for key, found in kernels.items() if key.startswith(name)}

    for name in ("plan_slots(", "plan_maps("):
        stages = max(instructions("replicate_rows(")) + max(instructions("pack_rows("))
        assert max(instructions(name)) < stages
