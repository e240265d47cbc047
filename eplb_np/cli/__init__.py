"""The command line. One module for each command."""

from __future__ import annotations

import click

from eplb_np.cli.compare import compare_policies
from eplb_np.cli.convert import convert
from eplb_np.cli.diff import diff
from eplb_np.cli.errors import exit_code_of
from eplb_np.cli.formats import formats
from eplb_np.cli.options import EXIT_CODES
from eplb_np.cli.plan import plan_loads
from eplb_np.cli.replay import replay_loads
from eplb_np.cli.report import report
from eplb_np.cli.show import show
from eplb_np.cli.sweep import sweep_sizes


class Commands(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


@click.group(
    cls=Commands,
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
command.add_command(compare_policies)
command.add_command(show)
command.add_command(diff)
command.add_command(replay_loads)
command.add_command(sweep_sizes)
command.add_command(report)
command.add_command(convert)
command.add_command(formats)


def run() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    return exit_code_of(command, "eplb-np")
