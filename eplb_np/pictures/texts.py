"""Numbers and names as pictures write them."""

from __future__ import annotations

LEGEND_COLUMNS = 52


def times(number: float) -> str:
    """Say how many times as large something is: with two digits after the point, or none."""
    return f"{number:.2f}" if number < 100 else f"{number:.0f}"


def shortened(label: str, most: int = LEGEND_COLUMNS) -> str:
    """Leave out the middle of a text that is too long for a line: both its ends may matter."""
    return label if len(label) <= most else f"{label[: most // 2 - 3]}...{label[-(most // 2) :]}"
