"""A planner beside an inference engine: side threads, forks, interrupts, and no leak.

Each case runs in a process of its own, with a timeout, so that a hang or a crash is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numba
import pytest

pytestmark = pytest.mark.same_without_jit

PRELUDE = """
import hashlib
import numpy as np
import eplb_np

LOADS = [np.random.default_rng(seed).lognormal(0, 1, (12, 64)) for seed in range(8)]

def digest(load, **options):
    arrays = eplb_np.rebalance_experts(load, 96, 8, 2, 16, **options)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

EXPECTED = [digest(load) for load in LOADS]
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
needs_jit = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),
    reason="about compiled code, which NUMBA_DISABLE_JIT switches off",
)


def run(script: str, timeout: float = 180) -> str:
    """Run a script after the prelude; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_jit
def test_eight_threads_plan_at_once_for_three_seconds() -> None:
    output = run(
        """
        import threading, time
        end = time.monotonic() + 3
        wrong, plans = [], [0] * 8

        def plan(i):
            while time.monotonic() < end:
                threads = 1 + plans[i] % 2
                if digest(LOADS[i], num_threads=threads) != EXPECTED[i]:
                    wrong.append(i)
                plans[i] += 1

        threads = [threading.Thread(target=plan, args=(i,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not wrong, wrong
        assert min(plans) > 10, plans
        print("ok")
        """
    )
    assert output == "ok\n"


@needs_fork
def test_fork_after_use() -> None:
    run(
        """
        import os
        child = os.fork()
        if child == 0:
            ok = digest(LOADS[0], num_threads=2) == EXPECTED[0]
            os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        """
    )


@needs_fork
def test_fork_while_other_threads_plan() -> None:
    run(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork with threads
        stop = threading.Event()

        def plan():
            while not stop.is_set():
                digest(LOADS[1], num_threads=2)

        thread = threading.Thread(target=plan)
        thread.start()
        try:
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    ok = digest(LOADS[0], num_threads=2) == EXPECTED[0]
                    os._exit(0 if ok else 1)
                _, status = os.waitpid(child, 0)
                assert status == 0, status
        finally:
            stop.set()
            thread.join()
        assert digest(LOADS[0]) == EXPECTED[0]
        """
    )


def test_spawned_processes(tmp_path) -> None:
    script = tmp_path / "spawned.py"
    body = """
    def plan(i):
        return digest(LOADS[i]) == EXPECTED[i]

    if __name__ == "__main__":
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert all(pool.map(plan, range(8)))
    """
    script.write_text(PRELUDE + textwrap.dedent(body))
    subprocess.run([sys.executable, str(script)], timeout=180, check=True)


def test_thread_pool_executor() -> None:
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(digest, LOADS * 10))
        assert got == EXPECTED * 10
        """
    )


@needs_jit
@pytest.mark.parametrize("num_threads", [1, 2])
def test_interrupt_comes_back_promptly_and_leaves_all_well(num_threads: int) -> None:
    run(
        f"""
        import signal, threading, time
        big = np.random.default_rng(0).lognormal(0, 1, (4000, 256))
        eplb_np.make_plan(big[:2], num_replicas=288, num_gpus=72)
        start = time.perf_counter()
        eplb_np.make_plan(big, num_replicas=288, num_gpus=72, num_threads={num_threads})
        whole = time.perf_counter() - start
        main = threading.get_ident()
        sent = []

        def interrupt():
            time.sleep(whole / 5)
            sent.append(time.perf_counter())
            signal.pthread_kill(main, signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may ignore it
        alive = threading.active_count()
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            for _ in range(5):  # so that the signal finds a plan under way on any machine
                eplb_np.make_plan(big, num_replicas=288, num_gpus=72, num_threads={num_threads})
        except KeyboardInterrupt:
            delay = time.perf_counter() - sent[0]
        else:
            raise AssertionError("not interrupted")
        thread.join()
        assert delay < 1, delay
        assert threading.active_count() == alive
        assert digest(LOADS[0]) == EXPECTED[0]
        """
    )


def test_settings_of_the_host_process_stay() -> None:
    run(
        """
        import numba, os, signal, sys, threading, warnings

        def settings():
            names = [name for name in dir(numba.config) if name.isupper()]
            config = {name: getattr(numba.config, name) for name in names}
            return (config, dict(os.environ), sys.getswitchinterval(),
                    signal.getsignal(signal.SIGINT), threading.active_count(), warnings.filters[:])

        before = settings()
        eplb_np.warmup(["hybrid"])
        digest(LOADS[0], num_threads=2)
        eplb_np.make_plan(LOADS[0], num_replicas=96, num_gpus=16).log2phy
        assert settings() == before
        try:
            numba.threading_layer()
        except ValueError:
            pass  # no threading layer was ever started
        else:
            raise AssertionError("a threading layer was started")
        """
    )


@needs_jit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_level_over_eight_thousand_plans() -> None:
    run(
        """
        from pathlib import Path

        def resident_mb():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * 4096 / 2**20

        for count in range(8_000):
            eplb_np.rebalance_experts(LOADS[count % 8], 96, 8, 2, 16)
            if count == 1_000:
                before = resident_mb()
        assert resident_mb() < before + 5, (before, resident_mb())
        """
    )
