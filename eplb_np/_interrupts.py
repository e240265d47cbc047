"""Ctrl-C while the command is still importing this package: no traceback of an import."""

from __future__ import annotations

import os
import signal
import sys

STOPPED = 130
"""Exit code of a command that Ctrl-C has stopped, as shells have it."""


def _is_command() -> bool:
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""  # noqa: PTH119
    return program.startswith("eplb-np") or (program == "-m" and "eplb_np" in sys.orig_argv)


def stop_at_once(*_: object) -> None:
    """End the process: nothing has been written yet."""
    os._exit(STOPPED)


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, stop_at_once)
