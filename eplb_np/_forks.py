"""Locks across a fork: the child must find none that nobody will ever release.

A fork copies the locks as they are, but only the thread that forks: what another thread holds would
never be released in the child, and what it was changing would stay half changed.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any
from weakref import WeakKeyDictionary

_locks_of: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()
_registering = threading.RLock()  # one fork, or one new owner of locks, at a time


class _OfThisThread(threading.local):
    """What a thread that is about to fork holds; a signal handler may fork during a fork."""

    def __init__(self) -> None:
        self.held: list[list[Any]] = []


_of_this_thread = _OfThisThread()


def let_forks_wait_for(owner: object, *locks: Any) -> None:
    """Let a fork wait until no other thread holds an object's reentrant locks.

    ``locks`` are in the order in which the object's methods take them.
    """
    if hasattr(os, "register_at_fork"):
        _register_at_fork()
        with _registering:
            _locks_of[owner] = locks


@functools.cache
def _register_at_fork() -> None:
    # The hook that was registered last runs first, and logging's takes a lock that Numba needs
    # in order to compile, maybe while our locks are held. So that one must come after ours.
    import logging  # noqa: F401

    os.register_at_fork(
        before=_wait_until_nobody_is_inside,
        after_in_parent=_let_everybody_in,
        after_in_child=_let_everybody_in,
    )


def _wait_until_nobody_is_inside() -> None:
    held: list[Any] = []
    _of_this_thread.held.append(held)  # first, for the case of an interrupt below
    _take(_registering, held)
    # Other threads hold the locks of one owner at most, in this order, so nobody waits for us
    # who we wait for. They are reentrant because this thread may be interrupted inside.
    for owner in sorted(_locks_of, key=id):
        for lock in _locks_of[owner]:
            _take(lock, held)


def _take(lock: Any, held: list[Any]) -> None:
    lock.acquire()
    held.append(lock)


def _let_everybody_in() -> None:
    for lock in reversed(_of_this_thread.held.pop()):
        lock.release()
