"""Blocks of layers, on one thread or several.

Layers are independent, so threads share them: each takes the next block when it has finished one,
and writes rows that no other thread touches. The kernels release the GIL. The calling thread works
too, so one-threaded work starts no thread. Between blocks it can be interrupted: Ctrl-C in a large
plan takes effect within the time of a block.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable

from eplb_np._arguments import as_size

BLOCK_SLOTS = 1 << 16
"""Slots planned between two returns to the interpreter: a few milliseconds."""

SMALL_SLOTS = 1 << 17
"""Up to this many slots, one thread by default: a second would not pay for its start."""

DEFAULT_MOST_THREADS = 4

BLOCKS_PER_THREAD = 2
"""Enough that a thread which starts late gets less work, few enough to need the GIL rarely."""


def choose_num_threads(num_threads: int | None, num_layers: int, layer_slots: int) -> int:
    """Threads to use: as requested, else 1 for small work and at most 4 for large."""
    if num_threads is not None:
        return min(as_size("num_threads", num_threads), num_layers)
    if num_layers * layer_slots <= SMALL_SLOTS:
        return 1
    return min(DEFAULT_MOST_THREADS, _available_cpus(), num_layers)


def for_each_block(
    work: Callable[[int, int], None], num_layers: int, layer_slots: int, num_threads: int
) -> None:
    """Call ``work(start, stop)`` on blocks of layers, so that it gets every layer once."""
    block = max(1, BLOCK_SLOTS // layer_slots)
    if num_threads == 1:
        for start in range(0, num_layers, block):
            work(start, min(start + block, num_layers))
        return
    shares = BLOCKS_PER_THREAD * num_threads
    blocks = _Blocks(work, num_layers, min(block, -(-num_layers // shares)))
    helpers: list[_thread.LockType] = []
    try:
        for _ in range(num_threads - 1):
            helpers.append(_start(blocks.run))
        blocks.run()
    finally:
        blocks.stop()
        for finished in helpers:
            finished.acquire()
    if blocks.error is not None:
        raise blocks.error


def _start(run: Callable[[], None]) -> _thread.LockType:
    """Run in a new thread; the returned lock can be acquired when the thread has finished.

    `threading.Thread.start` waits until the thread has begun, which costs as much as planning
    ten layers. Here the caller continues at once.
    """
    finished = _thread.allocate_lock()
    finished.acquire()

    def run_and_release() -> None:
        try:
            run()
        finally:
            finished.release()

    try:
        _thread.start_new_thread(run_and_release, ())
    except RuntimeError:  # no thread could be started: the caller does all the work
        finished.release()
    return finished


class _Blocks:
    """The blocks not yet taken, shared by the threads of one call."""

    def __init__(self, work: Callable[[int, int], None], num_layers: int, block: int) -> None:
        self._work = work
        self._num_layers = num_layers
        self._block = block
        self._next = 0
        self._lock = _thread.allocate_lock()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                with self._lock:
                    start = self._next
                    self._next += self._block
                if start >= self._num_layers:
                    return
                self._work(start, min(start + self._block, self._num_layers))
        except BaseException as error:  # noqa: BLE001 - raised again by the calling thread
            self.stop()
            self.error = error

    def stop(self) -> None:
        with self._lock:
            self._next = self._num_layers


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
