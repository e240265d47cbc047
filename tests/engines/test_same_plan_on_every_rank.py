"""Ranks are processes that differ in all but their arguments, and make the same plans."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import TESTS, output_of, run_python

pytestmark = pytest.mark.same_without_jit  # one of the ranks runs without

SCRIPT = str(TESTS / "rank_plans.py")
ONE_THREAD = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
RANKS = [  # what each does differently, and its environment
    ((), {}),
    (("history",), ONE_THREAD),
    (("threads",), {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "5", "PYTHONHASHSEED": "1"}),
    (("threads", "history"), {"PYTHONHASHSEED": "7", "MKL_NUM_THREADS": "3"}),
    (("history", "threads"), {"LC_ALL": "C", "TZ": "Asia/Tokyo"}),
    (("fork",), {"PYTHONMALLOC": "malloc"}),
    (("fork", "threads"), {"NUMBA_NUM_THREADS": "2"}),
    ((), {"NUMBA_DISABLE_JIT": "1"}),
]
OLD_CPU = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}

DISPATCHED = """
import json
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(json.dumps([name for name in __cpu_dispatch__ if __cpu_features__.get(name)]))
"""

COMPILED_AFRESH = """
import re, numba
from eplb_np._numba import jit

entries = []
def entry(function):
    entries.append(numba.njit(error_model="numpy", nogil=True)(function))
    return entries[-1]
jit.entry = entry

import rank_plans
from eplb_np.engines.planning import Wishes, plan_for
rank_plans.digests()
name = r"(?:movabsq\\s+\\$|callq?\\s+|jmp\\s+)([A-Za-z]\\w*)"
ours = r"NRT_|Py|numba_(?!frexp)|r[a-ds189]|mem(?:set|cpy|move)$"
code = [text for one in entries for text in one.inspect_asm().values()]
called = {found for text in code for found in re.findall(name, text)}
print(len(entries), sorted(found for found in called if not re.match(ours, found)))
print(sum(len(re.findall(r"\\bvfn?m(?:add|sub)|\\bfn?m(?:add|sub)\\b", text)) for text in code))
"""


def plans_of(words: tuple[str, ...], env: dict[str, str]) -> str:
    """What a rank prints. JIT is on unless the rank turns it off."""
    result = run_python("-W", "error", SCRIPT, *words, **{"NUMBA_DISABLE_JIT": "0", **env})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_eight_ranks_that_differ_make_the_same_plans():
    first = plans_of(*RANKS[0])  # it compiles, if nobody has
    assert len(set(first.split())) > len(first.split()) / 2  # most plans differ from each other
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(plans_of, *zip(*RANKS[1:], strict=True))) == {first}


@pytest.mark.parametrize("env", [{}, pytest.param(OLD_CPU, marks=pytest.mark.slow)])
def test_a_rank_with_an_older_cpu_makes_the_same_plans(env):
    """NumPy without vector instructions and, compiled anew, the kernels too."""
    try:
        features = json.loads(output_of(DISPATCHED))
    except AssertionError:
        pytest.skip("this NumPy does not say what it dispatches to")
    without = {"NPY_DISABLE_CPU_FEATURES": ",".join(features)}
    assert plans_of((), {**without, **env}) == plans_of((), {})


@pytest.mark.slow
def test_kernels_call_no_function_of_the_systems_library_and_fuse_nothing():
    """But frexp, which is exact. A fused multiply-add rounds once less than the two of it."""
    number, rest = output_of(COMPILED_AFRESH, NUMBA_DISABLE_JIT="0").split(maxsplit=1)
    assert int(number) >= 6
    assert rest.splitlines() == ["['numba_frexp']", "0"]
