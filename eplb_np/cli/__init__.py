"""The command line. One module for each command."""

from __future__ import annotations

import click

from eplb_np.cli.plan import plan_loads


@click.group()
@click.version_option(package_name="eplb-np")
def command() -> None:
    """Balance the experts of a mixture-of-experts model over GPUs."""


command.add_command(plan_loads)
