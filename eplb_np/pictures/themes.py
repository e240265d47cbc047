"""Colours of the pictures: two themes, and one for pages that may be either."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from eplb_np._arguments import is_one_of, one_line

ThemeName: TypeAlias = Literal["light", "dark", "transparent"]
"""``"transparent"`` has no background, and colours that can be seen on white and on black."""

LOADS = "cividis"
"""The colour map of loads: its lightness grows evenly, also for those who see few colours."""

DASHES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (0, ()),
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1, 1, 1)),
    (0, (3, 1)),
    (0, (8, 2)),
    (0, (4, 1, 1, 1, 1, 1)),
)
MARKERS = "os^Dv<>"
"""Lines differ in dashes or markers too, not in colour alone."""


class Theme(NamedTuple):
    """Colours, as Matplotlib takes them."""

    paper: str
    ink: str
    faint: str
    """What is not there, such as the GPUs that are gone."""
    ground: str
    """What there is most of: experts with one replica."""
    darkest: float
    """The lowest place in the colour map `LOADS` that stands out from the ground."""
    mark: str
    """Lines between nodes, on a heat map."""
    series: tuple[str, ...]


# The series are the colours of M. Okabe and K. Ito, "Color Universal Design" (2002), without those
# that can hardly be seen on the paper.
THEMES: dict[str, Theme] = {
    "light": Theme(
        paper="#ffffff",
        ink="#24292f",
        faint="#d0d4d9",
        ground="#e6e9ed",
        darkest=0.0,
        mark="#ffffff",
        series=("#0072b2", "#d55e00", "#009e73", "#b5588c", "#b07a00", "#3d8fc4", "#24292f"),
    ),
    "dark": Theme(
        paper="#15191e",
        ink="#e3e6e9",
        faint="#4a5058",
        ground="#262c34",
        darkest=0.4,
        mark="#ffffff",
        series=("#56b4e9", "#e69f00", "#1ec28f", "#e59ac4", "#f0e442", "#ff8a4c", "#e3e6e9"),
    ),
    "transparent": Theme(
        paper="none",
        ink="#7d7d7d",
        faint="#7d7d7d",
        ground="#7d7d7d40",
        darkest=0.2,
        mark="#ffffff",
        series=("#3a8ee6", "#e0762f", "#2f9e6e", "#c2609b", "#b08a2e", "#9a86c9", "#2e9dab"),
    ),
}


def theme_named(name: ThemeName) -> Theme:
    """Return a theme, or raise ``ValueError`` if there is none of this name."""
    if not is_one_of(name, THEMES):
        raise ValueError(f"theme={one_line(name)} is unknown: give one of {', '.join(THEMES)}")
    return THEMES[name]
