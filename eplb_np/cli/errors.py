"""How the command reports errors: one line on standard error, and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from eplb_np._files.reading import printable, printable_error
from eplb_np.cli.streams import drop_output, name_of

NOT_WRITTEN = 1
BAD_INPUT = 2

OPTIONS = {
    "num_replicas": "--replicas",
    "num_gpus": "--gpus",
    "num_nodes": "--nodes",
    "num_groups": "--groups",
    "num_hidden_layers": "--hidden-layers",
    "moe_layer_ids": "--layers",
    "num_redundant": "--redundant",
    "slots_per_gpu": "--slots",
    "first_window": "--first-window",
    "policy=": "--policy=",
    "split=": "--split=",
    "format=": "--format=",
}
"""What the command calls arguments of the library, which errors name."""


class OneLineError(click.ClickException):
    """What the user is told instead of a traceback."""

    def __init__(self, message: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.code = exit_code


@contextlib.contextmanager
def one_line(exit_code: int = BAD_INPUT, about: Path | None = None) -> Iterator[None]:
    """Turn the errors of bad input, and of files, into a `OneLineError`.

    ``exit_code`` is that of errors of the system. Bad input is about the file ``about``.
    """
    try:
        yield
    except BrokenPipeError:  # nobody reads standard output on
        raise
    except OSError as error:
        said = error.strerror or printable_error(error)
        if error.filename is not None:
            said = f"{printable(os.fsdecode(error.filename))}: {said}"
        raise OneLineError(said, exit_code) from None
    except (ValueError, MemoryError) as error:
        where = "" if about is None else f"{name_of(about)}: "
        raise OneLineError(f"{where}{in_options(printable_error(error))}") from None


def in_options(error: str) -> str:
    """Name options of the command where the library named its arguments."""
    return re.sub(rf"\b({'|'.join(OPTIONS)})(?!\w)", lambda found: OPTIONS[found[0]], error)


def exit_code_of(command: click.Command, name: str) -> int:
    """Run a command; print an error as one line, and return the exit code."""
    for name_of_stream in ("stdout", "stderr"):
        if getattr(sys, name_of_stream) is None:  # it was closed
            setattr(sys, name_of_stream, Path(os.devnull).open("w"))  # noqa: SIM115
    # A name that the terminal's encoding lacks is no reason to fail.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        returned = command.main(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return returned if isinstance(returned, int) else 0
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        _say(f"{name}: {printable(' '.join(error.format_message().split()))}{hint}")
        return getattr(error, "code", BAD_INPUT)
    except BrokenPipeError:  # nobody reads on, as after `| head -1`
        drop_output()
        return NOT_WRITTEN
    except OSError as error:  # only printing is left, as on a full disk
        drop_output()
        _say(f"{name}: standard output: {error.strerror or printable_error(error)}")
        return NOT_WRITTEN


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(line, err=True)
