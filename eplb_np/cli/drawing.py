"""Pictures that commands write: by the library's functions, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eplb_np._files.reading import suffix_of
from eplb_np._files.targets import check_not_read_from, target_of
from eplb_np.cli.errors import NOT_WRITTEN, OneLineError, one_line
from eplb_np.cli.output import print_rows
from eplb_np.cli.streams import is_dash, stand_in, stream_beside, write_through, written_name
from eplb_np.pictures import description, save
from eplb_np.pictures.files import SUFFIXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIPED = ".svg"
"""What a picture on standard output is."""

theme_option = click.option(
    "--theme",
    type=click.Choice(["light", "dark", "transparent"]),
    default="light",
    show_default=True,
    help="Colours of the picture.",
)


def check_picture(output: Path, *sources: Path | None) -> None:
    """Say before any work what keeps a picture from being drawn or written."""
    with one_line():
        suffix_of(stand_in(output, PIPED), SUFFIXES)
        if not is_dash(output):
            for source in sources:
                if source is not None:
                    check_not_read_from(output, source)
            target_of(output)
    if find_spec("matplotlib") is None:
        raise OneLineError(
            "pictures need matplotlib, which is not installed: run pip install 'eplb-np[pictures]'",
            NOT_WRITTEN,
        )


def write_picture(output: Path, draw: Callable[[], Figure]) -> None:
    """Draw a picture, write it, and say what it shows; errors are those of the command."""
    print_rows(save_picture(output, draw), to=stream_beside(output))


def save_picture(output: Path, draw: Callable[[], Figure]) -> dict[str, str]:
    """Draw a picture and write it; return what there is to say, in rows of a table."""
    with one_line():
        figure = draw()
    with one_line(NOT_WRITTEN, about=output):
        write_through(output, PIPED, lambda path: save(figure, path))
    return {"picture": description(figure), "written to": written_name(output)}
