"""Replays: the balance of each window, and the moves under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eplb_np._arguments import as_list, as_size, check_is, one_line
from eplb_np.pictures.canvas import new_picture
from eplb_np.pictures.texts import shortened
from eplb_np.pictures.themes import DASHES, ThemeName
from eplb_np.replay import Replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eplb_np.pictures.picture import Picture

MOST_REPLAYS = len(DASHES)
FAR_APART = 10.0
"""Ratio of the most to the fewest moves from which they are drawn on a logarithmic scale."""


def replays(
    results: Mapping[str, Replay],
    *,
    marks: Sequence[int] = (),
    theme: ThemeName = "light",
) -> Figure:
    """Draw replays of one trace: the balance of each window, and under it the moves so far.

    Parameters
    ----------
    results : mapping of str to Replay
        The replays by name, 1 to 7.
    marks : sequence of int, optional
        Windows with which something else begins, such as `LoadTrace.switches`: a line before each.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        Two pairs of axes over the windows. The legend says the balancedness over all windows, and
        the share of all slots that were fetched at a replan.

    Raises
    ------
    ValueError
        If ``results`` is no mapping of 1 to 7 replays, or a mark is no window.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Topology, pictures
    >>> from eplb_np.replay import once, replay
    >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))
    >>> results = {"once": replay(load, once(Topology(4, 6, num_gpus=2)))}
    >>> print(pictures.description(pictures.replays(results)))
    once: 1.000 over all windows, 0.0% of the slots fetched at a replan. Lines over the window...
    """
    given = _as_replays(results)
    listed = as_list("marks", marks, "give windows", most=10_000)
    windows = [as_size("a mark", mark, 0) for mark in listed]
    picture = new_picture(3.9 + 0.2 * len(given), theme)
    top, bottom = picture.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes in (top, bottom):
        for mark in windows:
            axes.axvline(mark - 0.5, color=picture.theme.ink, linewidth=1, alpha=0.5)
    for number, (name, result) in enumerate(given.items()):
        _draw(picture, number, top, bottom, name, result)
    top.set_ylabel("GPU balancedness")
    bottom.set_ylabel("fetched so far")
    bottom.set_xlabel("window")
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    bottom.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    totals = [int(result.moved.sum()) for result in given.values()]
    moving = [total for total in totals if total]
    if moving and max(moving) > FAR_APART * min(moving):
        bottom.set_yscale("log", nonpositive="mask")
        bottom.yaxis.set_major_locator(LogLocator(numticks=4))
        bottom.yaxis.set_minor_locator(NullLocator())
    else:
        bottom.set_ylim(0, max([1, *totals]) * 1.05)
        bottom.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    bottom.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (top, bottom):
        picture.style(axes)
    picture.add_legend(top)
    name, best = max(given.items(), key=lambda item: item[1].balancedness)
    name = shortened(name)
    picture.finish(
        f"{name}: {best.balancedness:.3f} over all windows, {best.moved_share:.1%} of the slots "
        "fetched at a replan" if len(given) == 1 else f"Best balanced: {name}, "
        f"{best.balancedness:.3f}; it fetches {best.moved_share:.1%} of the slots at a replan",
        "Lines over the windows: GPU balancedness above, replicas fetched so far below. "
        + "; ".join(
            f"{name}: balancedness {result.balancedness:.3f}, {result.moved_share:.1%} fetched"
            for name, result in given.items()
        ),
    )  # fmt: skip
    return picture


def _as_replays(results: Mapping[str, Replay]) -> dict[str, Replay]:
    if not isinstance(results, Mapping) or not 1 <= len(results) <= MOST_REPLAYS:
        raise ValueError(
            f"results={one_line(results)} must be 1 to {MOST_REPLAYS} replays by name: give a dict"
        )
    for name, result in results.items():
        check_is("a name in results", name, str, "give text")
        check_is(f"results[{one_line(name)}]", result, Replay, "replay makes one")
    return dict(results)


def _draw(picture: Picture, number: int, top: Any, bottom: Any, name: str, result: Replay) -> None:
    style = {
        "color": picture.theme.series[number],
        "linestyle": DASHES[number],
        "linewidth": 1.8,
    }
    window = result.first_window + np.arange(len(result.moved))
    marker = "o" if len(window) == 1 else ""
    label = f"{name}: {result.balancedness:.3f}, {result.moved_share:.1%} fetched"
    top.plot(window, result.window_balancedness, label=label, marker=marker, **style)
    bottom.plot(window, result.moved.cumsum(), marker=marker, **style)
