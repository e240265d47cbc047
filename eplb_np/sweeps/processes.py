"""Cases on the processors of this machine: several processes, each on one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import connection, process, resource_tracker
from typing import Any, TypeAlias

from eplb_np.sweeps.cases import Case
from eplb_np.sweeps.interrupts import interrupts_held
from eplb_np.sweeps.measure import Judging, SweptCase, SweptLoads, load_kernels, measure

MOST_DEATHS = 3
"""Processes that a case may take with it."""

Answer: TypeAlias = SweptCase | ValueError | MemoryError


class Worker:
    """A process that plans for one case after another."""

    case: Case

    def __init__(self, loads: SweptLoads, judging: Judging) -> None:
        # Not a fork: other threads may hold locks, which nobody would release in the child.
        spawn = multiprocessing.get_context("spawn")
        self.connection: connection.Connection
        self.connection, theirs = spawn.Pipe()
        self.process: process.BaseProcess = spawn.Process(
            target=serve, args=(theirs, loads, judging), daemon=True
        )
        with _starting():
            self.process.start()
        theirs.close()  # so that reading fails once the process is gone

    def start(self, case: Case) -> None:
        """Let the process plan for a case."""
        self.case = case
        with contextlib.suppress(OSError):  # it is gone, which reading will find
            self.connection.send(case)

    def answer(self) -> Answer | None:
        """Return what became of the case; None if the process is gone."""
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def serve(ours: Any, loads: SweptLoads, judging: Judging) -> None:
    """Plan for each case that comes, until the process that asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends this process
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = ours.recv()
            try:
                ours.send(measure(case, loads, judging))
            except (ValueError, MemoryError) as error:
                ours.send(type(error)(f"{case}: {error}"))


def measure_in_processes(
    cases: Sequence[Case], loads: SweptLoads, judging: Judging, num_jobs: int
) -> Generator[SweptCase]:
    """Measure the cases in several processes, and yield each result as it comes.

    What a process was at when it was killed is done again. Raises ``ChildProcessError`` if that
    happens to one case again and again.
    """
    load_kernels(tuple(cases), loads, judging)
    waiting = list(reversed(cases))
    deaths = dict.fromkeys(cases, 0)
    workers: list[Worker] = []
    try:
        for _ in range(min(num_jobs, len(cases))):
            workers.append(Worker(loads, judging))
            workers[-1].start(waiting.pop())
        while workers:
            ready = connection.wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                case, answer = worker.case, worker.answer()
                if isinstance(answer, Exception):
                    raise answer
                workers.remove(worker)
                if answer is None:
                    worker.end()
                    deaths[case] += 1
                    _check_deaths(case, deaths[case])
                    waiting.append(case)
                    worker = Worker(loads, judging)
                if waiting:
                    workers.append(worker)
                    worker.start(waiting.pop())
                else:
                    worker.end()
                if answer is not None:
                    yield answer
    finally:
        for worker in workers:
            worker.end()


def _check_deaths(case: Case, deaths: int) -> None:
    if deaths == MOST_DEATHS:
        raise ChildProcessError(
            f"{case}: the process that planned for it was killed {deaths} times, perhaps for lack "
            "of memory: use fewer processes"
        )


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Let Ctrl-C come after this block, and never to a process that is started in it.

    In a process that is just starting it would be a traceback, as would half a start.
    """
    with interrupts_held() as here:
        if not here or not hasattr(signal, "pthread_sigmask"):
            yield
            return
        resource_tracker.ensure_running()  # it would change the mask, if it were started inside
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
