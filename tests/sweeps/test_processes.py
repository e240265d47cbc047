"""Sweeps in several processes: what is killed is done again, and nothing is left running."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from eplb_np.sweeps import grid
from eplb_np.sweeps.measure import SweptLoads, as_judging
from eplb_np.sweeps.processes import MOST_DEATHS, measure_in_processes

JUDGING = as_judging(1, 8, None)
LOADS = SweptLoads(np.arange(1.0, 17.0).reshape(2, 8), None)


def cases(number):
    return grid(8, [2], slots_per_gpu=range(4, 4 + number), policies=["deepseek"]).cases


def test_a_killed_process_loses_nothing():
    asked = cases(60)
    found = []
    for row in measure_in_processes(asked, LOADS, JUDGING, 2):
        if len(found) in (0, 10):
            multiprocessing.active_children()[0].kill()
        found.append(row.case)
    assert sorted(found) == sorted(asked)
    assert multiprocessing.active_children() == []


class Deadly:
    """Ends every process that gets it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_case_that_kills_every_process_is_given_up():
    loads = SweptLoads(Deadly(), None)
    with pytest.raises(ChildProcessError, match=f"killed {MOST_DEATHS} times.*fewer processes"):
        list(measure_in_processes(cases(1), loads, JUDGING, 2))
    assert multiprocessing.active_children() == []


def test_an_error_in_a_process_is_raised_here():
    wrong = SweptLoads(np.full((2, 8), 1e38), None)  # sums exceed float32
    with pytest.raises(ValueError, match=r"8 slots on 2 GPUs, deepseek: .*2\*\*127"):
        list(measure_in_processes(cases(1), wrong, JUDGING, 2))


def test_no_process_outlives_a_sweep_that_is_left():
    swept = measure_in_processes(cases(60), LOADS, JUDGING, 2)
    next(swept)
    assert len(multiprocessing.active_children()) == 2
    swept.close()
    assert multiprocessing.active_children() == []


def test_ctrl_c_while_a_process_is_starting_comes_after_it(monkeypatch):
    """Half a start would leave a process that fails with a traceback."""
    seen = []
    start = multiprocessing.get_context("spawn").Process.start

    def start_and_interrupt(process):
        os.kill(os.getpid(), signal.SIGINT)
        start(process)
        seen.append(process)

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start_and_interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(measure_in_processes(cases(2), LOADS, JUDGING, 2))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(seen) == 1
    status = Path(f"/proc/{seen[0].pid}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert blocked >> (signal.SIGINT - 1) & 1  # the process never hears of it
    seen[0].kill()
    seen[0].join()


def test_a_sweep_runs_in_any_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(measure_in_processes(cases(2), LOADS, JUDGING, 2))
    )
    thread.start()
    thread.join()
    assert len(found) == 2
