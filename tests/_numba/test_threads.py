"""Sharing layers out over threads."""

import _thread
import threading
import time

import numpy as np
import pytest
from support import assert_same

from eplb_np import rebalance_experts
from eplb_np._numba.threads import (
    BLOCK_SLOTS,
    DEFAULT_MOST_THREADS,
    SMALL_SLOTS,
    choose_num_threads,
    for_each_block,
)

THREADS = [1, 2, 5, 16]


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = _thread._count()
    yield
    end = time.monotonic() + 10
    while _thread._count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert _thread._count() == before


@pytest.mark.parametrize("num_threads", THREADS)
@pytest.mark.parametrize("num_layers", [1, 7, 100])
@pytest.mark.parametrize("layer_slots", [1, BLOCK_SLOTS // 3, 2 * BLOCK_SLOTS])
def test_every_layer_is_seen_once(num_layers, layer_slots, num_threads):
    seen = np.zeros(num_layers, int)

    def work(start, stop):
        assert 0 <= start < stop <= num_layers
        seen[start:stop] += 1

    for_each_block(work, num_layers, layer_slots, num_threads)
    assert seen.tolist() == [1] * num_layers


def test_more_threads_than_layers():
    load = np.random.default_rng(6).random((3, 12))
    sizes = 16, 4, 2, 8
    assert_same(
        rebalance_experts(load, *sizes, num_threads=50), rebalance_experts(load, *sizes), "50"
    )


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    met = set()

    def work(start, stop):
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            both.wait()

    for_each_block(work, 16, BLOCK_SLOTS, 2)
    assert len(met) == 2


def test_the_slowest_thread_is_waited_for():
    main = threading.get_ident()
    begun = threading.Event()
    done = []

    def work(start, stop):
        if threading.get_ident() == main:
            begun.wait(60)
        else:
            begun.set()
            time.sleep(0.2)
        done.append(start)

    for_each_block(work, 16, BLOCK_SLOTS, 3)
    assert sorted(done) == list(range(16))


@pytest.mark.parametrize("num_threads", THREADS)
@pytest.mark.parametrize("bad_layer", [0, 40, 99])
def test_an_error_in_any_thread_is_raised(bad_layer, num_threads):
    def work(start, stop):
        if start <= bad_layer < stop:
            raise OverflowError(f"layer {bad_layer}")

    with pytest.raises(OverflowError, match=f"layer {bad_layer}"):
        for_each_block(work, 100, BLOCK_SLOTS, num_threads)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_an_error_stops_the_rest(error):
    """An interrupt arrives in the calling thread, here the main one."""
    main = threading.get_ident()
    done = []

    def work(start, stop):
        if threading.get_ident() == main:
            raise error
        time.sleep(0.001)
        done.append(start)

    with pytest.raises(error):
        for_each_block(work, 10_000, BLOCK_SLOTS, 3)
    assert len(done) < 5_000


def test_without_a_thread_to_be_had_the_caller_does_it_all(monkeypatch):
    def fail(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", fail)
    seen = []
    for_each_block(lambda start, stop: seen.extend(range(start, stop)), 100, 1, 4)
    assert seen == list(range(100))


@pytest.mark.parametrize(
    ("num_threads", "num_layers", "layer_slots", "chosen"),
    [
        (None, 1, SMALL_SLOTS, 1),
        (None, 58, 288, 1),
        (1, 10_000, 10_000, 1),
        (3, 58, 288, 3),
        (64, 58, 288, 58),
        (np.int64(2), 58, 288, 2),
    ],
)
def test_number_of_threads(num_threads, num_layers, layer_slots, chosen):
    assert choose_num_threads(num_threads, num_layers, layer_slots) == chosen


@pytest.mark.parametrize("cpus", [1, 2, 64])
def test_number_of_threads_for_much_work(cpus, monkeypatch):
    monkeypatch.setattr("eplb_np._numba.threads._available_cpus", lambda: cpus)
    assert choose_num_threads(None, 1000, SMALL_SLOTS) == min(cpus, DEFAULT_MOST_THREADS)
    assert choose_num_threads(None, 1, 2 * SMALL_SLOTS) == 1


@pytest.mark.parametrize("system", ["with affinity", "without"])
def test_available_cpus(system, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    if system == "without":
        monkeypatch.delattr("os.sched_getaffinity", raising=False)
        assert choose_num_threads(None, 1000, SMALL_SLOTS) == 3
    else:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {4, 7}, raising=False)
        assert choose_num_threads(None, 1000, SMALL_SLOTS) == 2
