"""What the command says when something is wrong with what it was given."""

from __future__ import annotations

from typing import Any

import click


class OneLineError(click.ClickException):
    """Bad input: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Write the message without a traceback."""
        click.echo(f"eplb-np: {self.format_message()}", err=True, file=file)
