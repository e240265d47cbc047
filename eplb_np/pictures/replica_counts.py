"""How many replicas each expert has, in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import check_is
from eplb_np._loads.host import of_layers
from eplb_np.pictures.canvas import cells, name_rows, new_picture
from eplb_np.pictures.gpu_loads import HINT
from eplb_np.pictures.themes import LOADS, ThemeName
from eplb_np.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLOURS = 9
FEWEST_SHOWN = 16
"""Sorted experts that are shown, even if all have one replica."""


def replicas(plan: Plan, load: ArrayLike | None = None, *, theme: ThemeName = "light") -> Figure:
    """Draw how many replicas each expert has in each layer.

    Parameters
    ----------
    plan : Plan
        The plan.
    load : array_like, shape [L, E], optional
        Load of each logical expert. With it, the experts of each layer are in descending order of
        load; without it, in the order of their numbers.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each layer and one column for each expert; of sorted ones, those beyond the last
        that has several in some layer are left out. Counts of 9 and more have the same colour.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load for the plan.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Examples
    --------
    >>> from eplb_np import make_plan, pictures
    >>> load = [[90, 30, 10, 10]]
    >>> plan = make_plan(load, num_replicas=6, num_gpus=2)
    >>> print(pictures.description(pictures.replicas(plan, load)))
    50% of the experts have more than one replica, and at most 2. Heat map of 1 layers by 4 ex...
    """
    check_is("plan", plan, Plan, HINT)
    counts = np.asarray(plan.logcnt)
    if load is not None:
        plan.gpu_load(load)  # says what is wrong with it
        rows = of_layers(load, plan.moe_layer_ids or (), "load")
        order = np.argsort(-np.asarray(rows, np.float64), axis=1, kind="stable")
        counts = np.take_along_axis(counts, order, axis=1)
    most = int(counts.max())
    levels = min(most, MOST_COLOURS)
    several = float((counts > 1).mean())
    label = "expert"
    if load is not None:
        counts, label = _without_tail(counts)
    picture = new_picture(1.9 + min(2.4, 0.5 + 0.035 * plan.num_layers), theme)
    axes = picture.subplots()
    import matplotlib as mpl
    from matplotlib.colors import BoundaryNorm, ListedColormap

    places = np.linspace(picture.theme.darkest, 1.0, levels - 1)
    colours = ListedColormap([picture.theme.ground, *mpl.colormaps[LOADS](places)])
    norm = BoundaryNorm(np.arange(levels + 1) + 0.5, levels)
    shown = np.minimum(counts, levels)
    image = axes.imshow(shown, cmap=colours, norm=norm, aspect="auto", interpolation=cells(shown))
    name_rows(axes, plan.moe_layer_ids or ())
    axes.set_xlabel(label)
    picture.style(axes, grid=False)
    bar = picture.colorbar(
        image, ax=axes, orientation="horizontal", aspect=35, ticks=range(1, levels + 1)
    )
    names = [str(count) for count in range(1, levels + 1)]
    bar.set_ticklabels([*names[:-1], f"{names[-1]} or more"] if most > levels else names)
    bar.set_label("replicas of an expert")
    picture.style(bar.ax, grid=False)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    picture.finish(
        f"{several:.0%} of the experts have more than one replica, and at most {most}",
        f"Heat map of {plan.num_layers} layers by {counts.shape[1]} experts"
        f"{'' if load is None else ' in descending order of load'}, in {levels} colours",
    )
    return picture


def _without_tail(counts: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Leave out the last columns of sorted experts, which have one replica in every layer."""
    several = np.flatnonzero((counts > 1).any(axis=0))
    last = int(several[-1]) + 1 if several.size else 0
    shown = min(counts.shape[1], max(last + 1, FEWEST_SHOWN))
    left_out = counts.shape[1] - shown
    rest = f"; the other {left_out} have one" if left_out else ""
    return counts[:, :shown], f"expert, most loaded first{rest}"
