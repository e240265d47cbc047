"""Ctrl-C while the command is still importing this package: no traceback of an import."""

from __future__ import annotations

# The public module signal imports enum, 2 ms in which Ctrl-C would still be Python's.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys

STOPPED = 130
"""Exit code of a command that Ctrl-C has stopped, as shells have it."""


def _is_command() -> bool:
    """Whether this process was started as our command; not one that only looks like it."""
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""  # noqa: PTH119
    if program == "-m":  # while Python looks for the module to run
        given = sys.orig_argv
        return "-m" in given and given[given.index("-m") + 1 :][:1] == ["eplb_np"]
    return program in ("eplb-np", "eplb-np.exe")


def stop_at_once(*_: object) -> None:
    """End the process: nothing has been written yet."""
    os._exit(STOPPED)


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    try:  # noqa: SIM105 - no import of contextlib before
        signal.signal(signal.SIGINT, stop_at_once)
    except ValueError:  # in another thread than the main one
        pass
