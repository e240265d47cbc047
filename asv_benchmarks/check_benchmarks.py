"""Run every benchmark once in this process, to see that each still works on the code as it is.

``asv run --quick`` does the same with a new process for each benchmark and parameter, and takes
four times as long. The times measured here mean nothing and are not kept.
"""

import io
import itertools
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

os.environ["EPLB_NP_BENCH_PROFILE"] = "quick"  # before any benchmark is imported

from asv_runner.discovery import disc_benchmarks

HERE = Path(__file__).parent


def main() -> None:
    """Run all benchmarks, and print how many combinations of parameters the profile has."""
    sys.path.insert(0, str(HERE))
    caches = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where benchmarks leave what they set up
        for benchmark in disc_benchmarks("benchmarks"):
            key = benchmark.setup_cache_key
            if key is not None and key not in caches:
                caches[key] = benchmark.do_setup_cache()
            combinations = len(list(itertools.product(*benchmark.params)))
            ran = sum(run(benchmark, index, caches.get(key)) for index in range(combinations))
            print(f"{benchmark.name}: {ran} of {combinations}", flush=True)
        os.chdir(HERE)


def run(benchmark, index: int, cache: object) -> bool:
    """Run one combination of parameters; return whether the profile has it."""
    benchmark.set_param_idx(index)
    if cache is not None:
        benchmark.insert_param(cache)
    try:
        with redirect_stdout(io.StringIO()):  # says at length what is skipped
            skipped = benchmark.do_setup()
        if skipped:
            return False
        benchmark.do_run()
    finally:
        benchmark.do_teardown()
    return True


if __name__ == "__main__":
    main()
