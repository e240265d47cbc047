"""Faults that an attack found and that are still there.

Each mark is strict: once an attack no longer succeeds, its test fails until the mark is removed.
Whoever mends a fault removes its mark, here and where it is used.
"""

from __future__ import annotations

import pytest


def _fault(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, reason=reason)


BUDGETS = _fault("limits of moves are broken when a lost GPU comes back")
BOTH_LIMITS = _fault("with both a total and a limit per GPU, the total can be exceeded")
RESTARTS = _fault("a GPU lost and back between two proposals is taken to hold what it held")
SPEEDS = _fault("GPU speeds without a sensible ratio crash the process or give NaN")
PLANTED_CODE = _fault("the kernel cache runs files that somebody else planted")
SIZES = _fault("sizes are believed before they are compared")
BIG_FILES = _fault("a file can take any time and memory")
OUTPUT = _fault("the output replaces what it must not")
COMMAND = _fault("the command shows tracebacks, warnings or raw bytes")
INTERRUPTIONS = _fault("use() is lost, a fork hangs, or temporary files stay")
ODD_ARGUMENTS = _fault("an odd argument raises another library's TypeError")
