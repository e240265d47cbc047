"""What notebooks show of plans and other results: tables of HTML, and data frames of pandas.

The tables name no colours, so that they follow the notebook's theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

MOST_IDS = 8
"""Ids that are listed if they are not consecutive."""

LEFT = ' style="text-align: left"'


def rows_html(title: str, rows: Mapping[str, object]) -> str:
    """Write a table with a name and a value in each row."""
    body = "".join(
        f'<tr><th scope="row"{LEFT}>{escape(name)}</th><td{LEFT}>{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption{LEFT}>{escape(title)}</caption><tbody>{body}</tbody></table>"


def grid_html(title: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write a table with a header; the first cell of each row is the row's."""
    head = "".join(f'<th scope="col"{LEFT}>{escape(str(name))}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row"{LEFT}>{escape(str(name))}</th>'
        + "".join(f"<td{LEFT}>{escape(str(cell))}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f"<table><caption{LEFT}>{escape(title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def said_ids(ids: Sequence[int]) -> str:
    """Say which ids these are, in a few words: all in a row, or the first ones."""
    if len(ids) > 1 and all(b - a == 1 for a, b in pairwise(ids)):
        return f"{ids[0]} to {ids[-1]}"
    more = ", ..." if len(ids) > MOST_IDS else ""
    return ", ".join(str(i) for i in ids[:MOST_IDS]) + more


def as_frame(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Make a ``pandas.DataFrame``; ``ModuleNotFoundError`` of one line without pandas."""
    try:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ModuleNotFoundError(
            "pandas is not installed: run pip install pandas", name="pandas"
        ) from None
    return pd.DataFrame(dict(columns))
