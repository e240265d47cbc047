"""``python -m eplb_np``, and the ``eplb-np`` script."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from eplb_np._interrupts import STOPPED, stop_at_once


class _Stopped(BaseException):
    """Ctrl-C, for which click would print an empty line."""


def main() -> None:
    """Run the command line, or say in one line what is not installed."""
    try:
        with _stopped_by_interrupts():
            try:
                from eplb_np.cli import run
            except ModuleNotFoundError as error:
                if error.name not in ("click", "rich"):
                    raise
                sys.exit(f"eplb-np: {error.name} is not installed: run pip install 'eplb-np[cli]'")
            code = run()
    except (_Stopped, KeyboardInterrupt):
        code = STOPPED
    sys.exit(code)


@contextlib.contextmanager
def _stopped_by_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise `_Stopped`, so that what is half written is removed."""
    before = signal.getsignal(signal.SIGINT)
    if before not in (signal.default_int_handler, stop_at_once):  # ignored, perhaps by nohup
        yield
        return

    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(signal.SIGINT, stop_at_once)  # in case somebody swallows this one
        raise _Stopped

    def end_or_report(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, _Stopped):  # raised where Python can only ignore it
            stop_at_once()
        if not stopping:  # what was interrupted half made may fail to be unmade
            report(what)

    report = sys.unraisablehook
    sys.unraisablehook = end_or_report
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        # A process that is about to end has nothing left to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN if before is stop_at_once else before)
        if not stopping:
            sys.unraisablehook = report


if __name__ == "__main__":
    main()
