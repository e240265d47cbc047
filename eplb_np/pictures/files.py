"""Pictures as files: PNG or SVG, whole or not at all, the same bytes each time."""

from __future__ import annotations

import re
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING, Any

from eplb_np._files.reading import suffix_of
from eplb_np._files.targets import write_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
PNG_DPI = 200

MADE_UP_ID = re.compile(rb'(?<=id=")[a-zA-Z]+[0-9a-f]{10}(?=")')
"""Ids that Matplotlib makes up anew each time, unless a global setting says otherwise."""


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write a picture to a ``.png`` or ``.svg`` file, atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What a function of this module returned, or any other figure.
    path : path-like
        File to write. Its suffix selects the format. An existing file is replaced; it is left
        unchanged if writing fails.

    Raises
    ------
    ValueError
        If ``figure`` is none, the suffix is neither ``.png`` nor ``.svg``, or the path leads to
        something that is not a regular file.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    The same picture, Matplotlib and settings of Matplotlib give the same bytes: there is no date in
    them.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from eplb_np import make_plan, pictures
    >>> load = [[90, 30, 10, 10]]
    >>> plan = make_plan(load, num_replicas=6, num_gpus=2)
    >>> with TemporaryDirectory() as folder:
    ...     pictures.save(pictures.gpu_loads(plan, load), f"{folder}/gpu_loads.svg")
    """
    suffix = suffix_of(path, SUFFIXES)
    content = drawn(figure, suffix[1:])
    write_to(path, lambda file: file.write(content))


def description(figure: Figure) -> str:
    """Say what a picture shows, for those who cannot see it: ``alt`` of a page of HTML.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What a function of this module returned.

    Returns
    -------
    str
        A few sentences, with the numbers that matter.

    Raises
    ------
    ValueError
        If ``figure`` is no figure.

    Examples
    --------
    >>> from eplb_np import make_plan, pictures
    >>> load = [[90, 30, 10, 10]]
    >>> plan = make_plan(load, num_replicas=6, num_gpus=2)
    >>> print(pictures.description(pictures.gpu_loads(plan, load)))
    The busiest GPU carries 1.00 times the mean. Heat map of 1 layers by 2 GPUs on 1 nodes, in...
    """
    _check_figure(figure)
    return str(figure.get_label())


def drawn(figure: Figure, form: str) -> bytes:
    """Draw a figure as ``"png"`` or ``"svg"``, the same each time."""
    _check_figure(figure)
    content = BytesIO()
    about: dict[str, Any] = {"Description": str(figure.get_label()) or None}
    if form == "svg":
        about |= {"Date": None, "Creator": None}
    else:
        about = {name: said for name, said in about.items() if said} | {"Software": None}
    figure.savefig(content, format=form, metadata=about, dpi=PNG_DPI)
    return content.getvalue() if form == "png" else _with_plain_ids(content.getvalue())


def _with_plain_ids(svg: bytes) -> bytes:
    """Replace the ids that were made up by numbers, in the order of the text."""
    found = dict.fromkeys(MADE_UP_ID.findall(svg))
    names = {old: b"i%d" % number for number, old in enumerate(found)}
    if not names:
        return svg
    anywhere = re.compile(b'(?<=["#])(?:%s)(?=[")])' % b"|".join(map(re.escape, names)))
    return anywhere.sub(lambda match: names[match[0]], svg)


def _check_figure(figure: object) -> None:
    if not callable(getattr(figure, "savefig", None)):
        raise ValueError(
            f"figure must be a Figure, not {type(figure).__name__}: give what a function of "
            "eplb_np.pictures returned"
        )
