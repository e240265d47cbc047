"""Ctrl-C that waits until something short has been done whole."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_held() -> Iterator[bool]:
    """Let Ctrl-C come after this block; yields whether this thread is the one that hears of it."""
    came: list[object] = []
    try:
        before = signal.signal(signal.SIGINT, lambda *given: came.append(given))
    except ValueError:  # another thread than the main one
        yield False
        return
    try:
        yield True
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
