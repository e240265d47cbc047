"""The command line. One module for each command."""

from __future__ import annotations

import click

from eplb_np.cli.errors import exit_code_of
from eplb_np.cli.plan import plan_loads


@click.group(no_args_is_help=False)
@click.version_option(package_name="eplb-np")
def command() -> None:
    """Balance the experts of a mixture-of-experts model over GPUs.

    Exit codes: 0, done; 1, the output could not be written; 2, bad input or options; 130, stopped
    by Ctrl-C. Errors are one line on standard error.
    """


command.add_command(plan_loads)


def run() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    return exit_code_of(command, "eplb-np")
