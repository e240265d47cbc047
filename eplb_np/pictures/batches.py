"""One layer of a batch, before and after it is split over the replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import check_is, one_line
from eplb_np.pictures.canvas import new_picture
from eplb_np.pictures.gpu_loads import HINT
from eplb_np.pictures.texts import times
from eplb_np.pictures.themes import ThemeName
from eplb_np.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def split_batch(
    plan: Plan, counts: ArrayLike, *, layer_id: int | None = None, theme: ThemeName = "light"
) -> Figure:
    """Draw the GPUs of one layer in one batch, with an even split and with the best one.

    Parameters
    ----------
    plan : Plan
        The plan.
    counts : array_like, shape [L, E]
        Load of each logical expert in the batch: usually tokens.
    layer_id : int, optional
        Which layer, by its id. By default the one that is neither balanced well nor badly: the
        median.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        The GPUs, busiest first, with a line at their mean. Where GPUs differ in speed, their times.

    Raises
    ------
    ValueError
        If ``counts`` do not fit the plan, or it has no such layer.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Examples
    --------
    >>> from eplb_np import make_plan, pictures
    >>> load = [[90, 30, 10, 10]]
    >>> plan = make_plan(load, num_replicas=6, num_gpus=2)
    >>> figure = pictures.split_batch(plan, [[60, 50, 5, 15]])
    >>> print(pictures.description(figure))
    The busiest GPU has 1.08 times the mean with the even split, 1.00 with the best split. Bar...
    """
    check_is("plan", plan, Plan, HINT)
    even = plan.gpu_time(counts, split="even")
    ids = list(plan.moe_layer_ids or ())
    if layer_id is None:
        most = even.max(axis=1) / np.where(even.sum(axis=1) > 0, even.mean(axis=1), 1.0)
        row = int(np.argsort(most, kind="stable")[len(most) // 2])
    elif layer_id not in ids:
        raise ValueError(
            f"layer_id={one_line(layer_id)} is no layer of the plan: give one of {one_line(ids)}"
        )
    else:
        row = ids.index(layer_id)
    best = plan.gpu_time(counts, split="best")
    there = plan.topology.active_slots > 0
    gpus = {"even split": even[row, there], "best split": best[row, there]}
    return draw_bars(gpus, f"load of a GPU, layer {ids[row]}", theme)


def draw_bars(gpus: Mapping[str, NDArray[Any]], measure: str, theme: ThemeName = "light") -> Figure:
    """Draw the GPUs [D] of each way to split, busiest first, side by side."""
    names = list(gpus)
    mean = float(np.mean(gpus[names[0]]))
    busiest = {name: float(load.max()) / mean if mean > 0 else 1.0 for name, load in gpus.items()}
    picture = new_picture(3.2 + 0.2 * len(gpus), theme)
    axes = picture.subplots()
    wide = 0.84 / len(gpus)
    for i, (name, load) in enumerate(gpus.items()):
        place = np.arange(len(load)) + wide * (i - (len(gpus) - 1) / 2)
        axes.bar(
            place,
            -np.sort(-load),
            wide,
            color=picture.theme.series[(1, 0, 2)[i] if i < 3 else i],
            label=f"{name}: {times(busiest[name])} times the mean",
        )
    axes.axhline(mean, color=picture.theme.ink, linewidth=1.2)
    axes.set_xlabel("GPU, busiest first")
    axes.set_ylabel(measure)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    picture.style(axes)
    axes.grid(visible=False, axis="x")
    picture.add_legend(axes)
    first, last = names[0], names[-1]
    picture.finish(
        f"The busiest GPU has {times(busiest[first])} times the mean with the {first}, "
        f"{times(busiest[last])} with the {last}",
        f"Bars of {len(gpus[first])} GPUs, busiest first, for each way to split the batch.",
    )
    return picture
