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


FORKS = """
import os, signal, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork with threads
topology = eplb_np.Topology(64, 96, 16, 2, 8)
rebalancers = [eplb_np.Rebalancer(topology, 12) for _ in range(3)]
for rebalancer in rebalancers:
    rebalancer.observe(LOADS[0])
    rebalancer.propose()
draws = np.random.default_rng(0)
stop = threading.Event()

def until_stopped(work):
    while not stop.is_set():
        work()

def fork_and_wait(in_child):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        in_child()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status

def beside(works, in_child, count):
    threads = [threading.Thread(target=until_stopped, args=(work,)) for work in works]
    for thread in threads: thread.start()
    try:
        for _ in range(count):
            time.sleep(draws.uniform(0, 0.01))
            fork_and_wait(in_child)
    finally:
        stop.set()
        for thread in threads: thread.join()
"""


@needs_fork
def test_a_child_can_use_a_rebalancer_that_another_thread_was_using(tmp_path) -> None:
    run(
        FORKS
        + textwrap.dedent(f"""
        path = {str(tmp_path / "state.npz")!r}
        in_order = eplb_np.in_order_plan(12, topology)

        def serve(rebalancer):
            loads = np.random.default_rng(id(rebalancer))
            rebalancer.observe(loads.lognormal(0, 1, (12, 64)))
            rebalancer.use(in_order)
            rebalancer.propose()

        def serve_all():
            for rebalancer in rebalancers:
                serve(rebalancer)
                rebalancer.save(f"{{path}}.{{os.getpid()}}.npz")
                restored = eplb_np.Rebalancer.load(f"{{path}}.{{os.getpid()}}.npz")
                assert restored.propose().plan == rebalancer.propose().plan  # a whole state
                rebalancer.use_gpus(None)

        works = [lambda r=r: serve(r) for r in rebalancers[:2]]
        works += [lambda: rebalancers[2].save(path), lambda: eplb_np.Rebalancer(topology, 12)]
        beside(works, serve_all, 12)
        serve_all()
        """)
    )


@needs_fork
def test_a_fork_in_the_middle_of_a_proposal_of_its_own_thread() -> None:
    """As a signal handler or a finalizer can make one."""
    run(
        FORKS
        + textwrap.dedent("""
        rebalancer = rebalancers[0]
        with rebalancer._proposing, rebalancer._observing:
            fork_and_wait(rebalancer.propose)
        rebalancer.propose()
        fork_and_wait(lambda: fork_and_wait(rebalancer.propose))
        """)
    )


@needs_fork
def test_an_interrupt_while_a_fork_waits_leaves_no_lock_behind() -> None:
    run(
        FORKS
        + textwrap.dedent("""
        import sys
        sys.unraisablehook = lambda unraisable: caught.append(unraisable.exc_type)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        caught = []
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with rebalancers[1]._proposing:
                inside.set()
                leave.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait()
        main = threading.get_ident()
        threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        fork_and_wait(lambda: None)
        assert caught == [KeyboardInterrupt], caught
        leave.set()
        holder.join()
        ended = threading.Thread(target=lambda: [one.propose() for one in rebalancers])
        ended.start()
        ended.join(20)
        assert not ended.is_alive()
        """)
    )


@needs_fork
@needs_jit
def test_after_a_warmup_a_child_plans_whatever_other_threads_compiled() -> None:
    """Numba's compiler lock is not released in a child, so a child must not need it."""
    run(
        FORKS
        + textwrap.dedent("""
        import numba
        eplb_np.warmup()

        def compile_something():
            numba.njit(lambda x: x + 1)(1)

        def plan():
            for policy in ("hybrid", "deepseek", "refined"):
                eplb_np.rebalance_experts(LOADS[1], 96, 8, 2, 16, policy=policy, num_threads=2)
                plan = eplb_np.make_plan(np.stack(LOADS[:3]), topology, policy=policy)
            eplb_np.make_plan(LOADS[3], current=plan, policy="refined")
            rebalancers[0].propose()

        beside([compile_something, lambda: rebalancers[0].propose()], plan, 20)
        """)
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
