"""A sweep: balance against memory, and from where on more memory is hardly worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eplb_np._arguments import check_is
from eplb_np.pictures.canvas import new_picture
from eplb_np.pictures.themes import DASHES, MARKERS, ThemeName
from eplb_np.sweeps import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = len(DASHES)


def sweep_curves(found: Sweep, *, within: float = 0.01, theme: ThemeName = "light") -> Figure:
    """Draw a sweep: balance against slots, with a ring around what to buy.

    Parameters
    ----------
    found : Sweep
        What `eplb_np.sweeps.sweep` returned.
    within : float, default: 0.01
        As in `Sweep.knee`.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        A curve for each deployment and policy, over the slots of a layer on each GPU. A ring for
        each number of GPUs: the fewest slots that balance nearly as well as the best.

    Raises
    ------
    ValueError
        If ``found`` is no sweep, has no results or more than 7 curves, or ``within`` is not from 0
        to 1.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Examples
    --------
    >>> from eplb_np import pictures
    >>> from eplb_np.sweeps import grid, sweep
    >>> found = sweep([[8, 1, 1, 1]], grid(4, [2], policies=["deepseek"]))
    >>> print(pictures.description(pictures.sweep_curves(found)))
    10 slots on 2 GPUs balance at 0.987: more gain less than 1%. Curves of GPU balancedness ov...
    """
    check_is("found", found, Sweep, "sweep makes one")
    found.knee(within=within)  # says what is wrong with it
    curves = found.curves
    if len(curves) > MOST_CURVES:
        raise ValueError(
            f"found has {len(curves)} curves, too many for one picture: sweep at most {MOST_CURVES}"
        )
    picture = new_picture(3.4 + 0.2 * len(curves), theme)
    axes = picture.subplots()
    for number, (curve, rows) in enumerate(curves.items()):
        axes.plot(
            [row.num_replicas / row.num_gpus for row in rows],
            [row.judged for row in rows],
            color=picture.theme.series[number],
            linestyle=DASHES[number],
            marker=MARKERS[number],
            markersize=5,
            linewidth=1.8,
            label=str(curve),
        )
    outside = found.rows[0].next_windows
    gpus = list(dict.fromkeys(row.num_gpus for row in found.rows))
    knees = [found.knee(within=within, num_gpus=number) for number in gpus]
    axes.plot(
        [knee.num_replicas / knee.num_gpus for knee in knees],
        [knee.judged for knee in knees],
        "o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=picture.theme.ink,
        markeredgewidth=1.8,
        label="what to buy" + ("" if outside is None else ", judged on the next windows"),
    )
    axes.set_xlabel("slots of a layer on each GPU")
    axes.set_ylabel("GPU balancedness")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    picture.style(axes)
    picture.add_legend(axes)
    said = "; ".join(
        f"{knee.num_replicas} slots on {knee.num_gpus} GPUs balance at {knee.judged:.3f}"
        for knee in knees
    )
    picture.finish(
        f"{said}: more gain less than {within:.0%}" if len(knees) == 1 else said,
        f"Curves of GPU balancedness over the slots of each GPU, for "
        f"{', '.join(map(str, curves))}.",
    )
    return picture
