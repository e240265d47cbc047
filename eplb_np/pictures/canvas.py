"""A new picture, or one line that says what to install."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from eplb_np.pictures.themes import ThemeName, theme_named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eplb_np.pictures.picture import Picture

MOST_TICKS = 6
MOST_CELLS = 1 << 17
"""Cells of a heat map that are kept one by one in a file."""


def new_picture(height: float, theme: ThemeName) -> Picture:
    """Make an empty picture; ``ModuleNotFoundError`` of one line without Matplotlib."""
    colours = theme_named(theme)
    try:
        from eplb_np.pictures.picture import Picture
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "matplotlib is not installed: run pip install 'eplb-np[pictures]'", name="matplotlib"
        ) from None
    return Picture(height, colours)


def name_rows(axes: Axes, ids: Sequence[int]) -> None:
    """Put the ids of layers beside the rows of a heat map."""
    step = max(1, -(-len(ids) // MOST_TICKS))
    rows = range(0, len(ids), step)
    axes.set_yticks(list(rows), [str(ids[row]) for row in rows])
    axes.set_ylabel("layer")


def cells(values: NDArray[Any]) -> Literal["none", "nearest"]:
    """Choose how a heat map is drawn: cell by cell, or as many of them as can be told apart."""
    return "none" if values.size <= MOST_CELLS else "nearest"
