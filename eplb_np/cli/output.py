"""What commands print: tables, JSON, and on a terminal a spinner or a bar.

Results go to standard output, and what is shown meanwhile to standard error. A table that is piped
has a line for each row, however long. Bars and spinners are for terminals only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import click
from numba.core.event import Event, Listener, install_listener
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table

from eplb_np._files.reading import printable
from eplb_np.cli.streams import is_terminal, width_of

COMPILING = "compiling kernels, once on this machine"
HEIGHT = 25
UNBROKEN = 1 << 16
"""Columns of a table that is piped: no line is folded."""


def console_for(stream: TextIO) -> Console:
    """Return a console that prints text as it is, as wide as the terminal, or unbroken."""
    width = width_of(stream) if is_terminal(stream) else UNBROKEN
    # Of a dumb terminal, rich would not take the width alone.
    return Console(
        file=stream, width=width, height=HEIGHT, markup=False, emoji=False, highlight=False
    )


def print_rows(
    rows: Mapping[str, str], notes: Iterable[str] = (), to: TextIO | None = None
) -> None:
    """Print names and what is said of each; then notes, in the same columns."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, printable(text))
    for note in notes:
        table.add_row("note", printable(note))
    _print(table, to)


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Iterable[str] = (),
    to: TextIO | None = None,
) -> None:
    """Print a table. The first column, and those named in ``left``, are text; others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    texts = {header[0], *left}
    for name in header:
        table.add_column(name, justify="left" if name in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    _print(table, to)


def _print(table: Table, to: TextIO | None) -> None:
    stream = sys.stdout if to is None else to
    console = console_for(stream)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().rstrip("\n").split("\n"):
        stream.write(f"{line.rstrip()}\n")


def print_json(value: Any, to: TextIO | None = None) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value), sys.stdout if to is None else to)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Say so once kernels are compiled in this block; with a spinner where the terminal can."""
    console = console_for(sys.stderr)
    status = Status(COMPILING, console=console)

    def say() -> None:
        if _can_animate(sys.stderr):
            status.start()
            console.show_cursor()  # a process that is killed would leave it hidden
        elif is_terminal(sys.stderr):
            console.print(COMPILING)

    with _compilation(began=_once(say)):
        try:
            yield
        finally:
            status.stop()


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left where the terminal can; it moves by the steps it is told.

    While kernels are compiled, it says so: `compiling` is not needed inside.
    """
    console = console_for(sys.stderr)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not _can_animate(sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task(what, total=total)

    def describe(text: str) -> Callable[[], None]:
        return lambda: bar.update(task, description=text)

    with _compilation(began=describe(COMPILING), ended=describe(what)), bar:
        console.show_cursor(_can_animate(sys.stderr))
        yield lambda steps: bar.advance(task, steps)


def _can_animate(stream: TextIO) -> bool:
    return is_terminal(stream) and os.environ.get("TERM", "") not in ("dumb", "unknown")


def _once(call: Callable[[], None]) -> Callable[[], None]:
    calls = [call]
    return lambda: calls.pop()() if calls else None


class _Compilation(Listener):  # type: ignore[misc]
    """Hears when Numba compiles a kernel that it has not found in its cache."""

    def __init__(self, began: Callable[[], None], ended: Callable[[], None]) -> None:
        self._began, self._ended = began, ended
        self._depth = 0
        self._lock = threading.Lock()

    def on_start(self, event: Event) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._began()

    def on_end(self, event: Event) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._ended()


@contextlib.contextmanager
def _compilation(
    began: Callable[[], None], ended: Callable[[], None] = lambda: None
) -> Iterator[None]:
    with install_listener("numba:compile", _Compilation(began, ended)):
        yield
