"""How the command reports bad input."""

from __future__ import annotations

from typing import Any

import click


class OneLineError(click.ClickException):
    """Bad input: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message to stderr, without a traceback."""
        click.echo(f"eplb-np: {self.format_message()}", err=True, file=file)
