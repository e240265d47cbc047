"""Pictures that commands write: checked before anything is read, drawn and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eplb_np import pictures
from eplb_np._files.reading import suffix_of
from eplb_np._files.targets import check_not_read_from, target_of
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.streams import is_dash, stand_in, write_through
from eplb_np.pictures.files import SUFFIXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIPED = ".svg"
"""What is written to standard output."""

theme_option = click.option(
    "--theme",
    type=click.Choice(["light", "dark", "transparent"]),
    default="light",
    show_default=True,
    help="Colours of the picture.",
)


def check_picture(output: Path, *sources: Path | None) -> None:
    """Raise, before anything is read, what saving a picture would; or if it would replace a source.

    Errors are those of the command.
    """
    with one_line():
        suffix_of(stand_in(output, PIPED), SUFFIXES)
        if is_dash(output):
            return
        target_of(output)
        for source in sources:
            if source is not None:
                check_not_read_from(output, source)


def save_picture(output: Path, draw: Callable[[], Figure]) -> None:
    """Draw a picture, and save it; errors are those of the command."""
    with one_line(NOT_WRITTEN):
        try:
            figure = draw()
        except ModuleNotFoundError as error:
            raise OneLineError(str(error), NOT_WRITTEN) from None
        write_through(output, PIPED, lambda path: pictures.save(figure, path))
