"""`Picture`: a figure of Matplotlib that notebooks show without pyplot.

Imports Matplotlib, so it is imported by functions only.
"""

from __future__ import annotations

import textwrap
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eplb_np.pictures.texts import shortened
from eplb_np.pictures.themes import Theme

WIDTH = 4.75
"""Inches, 456 pixels of a page. On a phone of 390 pixels, text is still 11 pixels high."""

TEXT = 11.0
SMALL = 10.0
TITLE = 12.0
TITLE_COLUMNS = 46

NOTEBOOK_DPI = 192
PAGE_DPI = 96


class Picture(Figure):
    """A figure of one theme, that notebooks show as it is."""

    def __init__(self, height: float, theme: Theme) -> None:
        height = round(height * PAGE_DPI) / PAGE_DPI  # whole pixels
        super().__init__(figsize=(WIDTH, height), layout="constrained")
        self.theme = theme
        self.set_facecolor(theme.paper)
        if theme.paper == "none":
            self.patch.set_alpha(0.0)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Draw for a notebook, sharp on screens with two pixels for each of the page's."""
        png = BytesIO()
        self.savefig(png, format="png", dpi=NOTEBOOK_DPI)
        inches = self.get_size_inches()
        width, height = (round(PAGE_DPI * float(side)) for side in inches)
        return png.getvalue(), {"width": width, "height": height}

    def finish(self, title: str, description: str) -> None:
        """Say what is seen, above the picture, and what it is for those who cannot see it.

        All must have been drawn: its place is settled here, since another run of the layout would
        shift it, if by little.
        """
        shown = textwrap.fill(title, TITLE_COLUMNS)
        self.suptitle(
            shown, x=0.01, ha="left", fontsize=TITLE, fontweight="bold", color=self.theme.ink
        )
        self.set_label(f"{title}. {description}")
        self.draw_without_rendering()
        self.set_layout_engine("none")

    def style(self, axes: Axes, *, grid: bool = True) -> None:
        """Give axes the theme's colours and sizes."""
        ink = self.theme.ink
        axes.set_facecolor("none")
        axes.tick_params(which="both", colors=ink, labelsize=SMALL, labelcolor=ink)
        for side, spine in axes.spines.items():
            spine.set_color(ink)
            spine.set_visible(side in ("left", "bottom"))
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(ink)
            label.set_fontsize(TEXT)
        if grid:
            axes.grid(color=ink, alpha=0.25, linewidth=0.6)
            axes.set_axisbelow(True)

    def name(self, axes: Axes, title: str) -> None:
        """Write above one of several axes what it shows."""
        axes.set_title(title, loc="left", fontsize=TEXT, color=self.theme.ink)

    def add_legend(self, axes: Axes) -> None:
        """Explain below all axes the lines in one of them."""
        handles, labels = axes.get_legend_handles_labels()
        self.legend(
            handles,
            [shortened(label) for label in labels],
            loc="outside lower left",
            frameon=False,
            fontsize=SMALL,
            labelcolor=self.theme.ink,
            handlelength=3.0,
        )
