"""The command line. One module for each command."""

from __future__ import annotations

import click

from eplb_np.cli.errors import exit_code_of
from eplb_np.cli.options import EXIT_CODES
from eplb_np.cli.plan import plan_loads


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="eplb-np")
@click.pass_context
def command(context: click.Context) -> None:
    """Balance the experts of a mixture-of-experts model over GPUs."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


command.add_command(plan_loads)


def run() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    return exit_code_of(command, "eplb-np")
