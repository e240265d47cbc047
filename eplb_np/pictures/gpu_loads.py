"""The load of every GPU in every layer, before and after, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import check_is
from eplb_np._loads.host import of_layers
from eplb_np.pictures.canvas import cells, name_rows, new_picture
from eplb_np.pictures.texts import times
from eplb_np.pictures.themes import LOADS, ThemeName
from eplb_np.plan import Plan
from eplb_np.policies import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from eplb_np.pictures.picture import Picture

MOST_SHOWN = 3.0
"""Loads above this many times the mean have the same colour: else one GPU would darken all."""

MOST_NAMED_NODES = 9
MOST_MARKED_NODES = 72
"""With more nodes, the lines between them would cover the GPUs."""

HINT = "make one with make_plan, or read it with Plan.load"


def gpu_loads(
    plan: Plan,
    load: ArrayLike,
    *,
    before: Plan | None = None,
    split: Split = "even",
    theme: ThemeName = "light",
) -> Figure:
    """Draw the load of each GPU in each layer, as a heat map.

    Parameters
    ----------
    plan : Plan
        The plan.
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit.
    before : Plan, optional
        Another plan of as many layers, drawn above it on the same scale.
    split : {"even", "best"}, default: "even"
        As in `Plan.gpu_load`.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each layer and one column for each GPU, in units of the layer's mean load; lines
        between nodes; grey where a GPU is gone. Where GPUs differ in speed, it shows times.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load for the plans, or they have different layers.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Notes
    -----
    Loads above 3 times the mean have the same colour.

    Examples
    --------
    >>> from eplb_np import make_plan, pictures
    >>> load = [[90, 30, 10, 10]]
    >>> plan = make_plan(load, num_replicas=6, num_gpus=2)
    >>> figure = pictures.gpu_loads(plan, load)
    >>> pictures.save(figure, "gpu_loads.svg")  # doctest: +SKIP
    """
    check_is("plan", plan, Plan, HINT)
    plans = {"": plan}
    if before is not None:
        check_is("before", before, Plan, HINT)
        if before.num_layers != plan.num_layers:
            raise ValueError(f"before={before} does not fit {plan}: give plans of the same layers")
        plans = {"before": before, "after": plan}
    rows = of_layers(load, plan.moe_layer_ids or (), "load")
    shares = {name: _shares(drawn, rows, split) for name, drawn in plans.items()}
    busiest = {
        name: 1 / max(drawn.balancedness(rows, split=split), 1e-12) for name, drawn in plans.items()
    }
    most = max(float(np.nanmax(share)) for share in shares.values())
    height = 0.9 + min(2.4, 0.5 + 0.035 * plan.num_layers)
    picture = new_picture(1.2 + height * len(plans), theme)
    panels = np.atleast_1d(picture.subplots(len(plans), 1, sharex=False))
    for axes, (name, drawn) in zip(panels, plans.items(), strict=True):
        image = _draw(picture, axes, drawn, shares[name], min(most, MOST_SHOWN))
        name_rows(axes, plan.moe_layer_ids or ())
        if name:
            picture.name(axes, f"{name}: {drawn.policy.replace('_', ' ')}")
    measure = "takes" if plan.topology.gpu_speeds is not None else "carries"
    _add_scale(picture, panels, image, most, measure)
    picture.finish(
        f"The busiest GPU {measure} {_said(busiest)}",
        f"Heat map of {plan.num_layers} layers by {plan.topology.num_gpus} GPUs on "
        f"{plan.topology.num_nodes} nodes, in units of each layer's mean. "
        + "; ".join(
            f"{name}{', ' * bool(name)}the most in one layer is {times(float(np.nanmax(share)))}"
            for name, share in shares.items()
        ),
    )
    return picture


def _said(busiest: dict[str, float]) -> str:
    if "before" not in busiest:
        return f"{times(busiest[''])} times the mean"
    return f"{times(busiest['before'])} times the mean before, {times(busiest['after'])} after"


def _shares(plan: Plan, load: ArrayLike, split: Split) -> NDArray[Any]:
    """Time of each GPU over that of balanced GPUs, [L, D]; NaN where a GPU is gone."""
    topology = plan.topology
    time = plan.gpu_time(load, split=split)
    at_once = (time / topology.slowness).sum(axis=1) / topology.active_speed
    share: NDArray[Any] = np.zeros_like(time)
    np.divide(time, at_once[:, None], out=share, where=at_once[:, None] > 0)
    share[:, topology.active_slots == 0] = np.nan
    return share


def _draw(picture: Picture, axes: Axes, plan: Plan, share: NDArray[Any], most: float) -> AxesImage:
    import matplotlib as mpl

    topology = plan.topology
    colours = mpl.colormaps[LOADS].with_extremes(bad=picture.theme.faint)
    image = axes.imshow(
        share, cmap=colours, vmin=0.0, vmax=most, aspect="auto", interpolation=cells(share)
    )
    for node in range(1, topology.num_nodes) if topology.num_nodes <= MOST_MARKED_NODES else ():
        place = node * topology.gpus_per_node - 0.5
        axes.axvline(place, color=picture.theme.mark, linewidth=1.2)
    picture.style(axes, grid=False)
    if 1 < topology.num_nodes <= MOST_NAMED_NODES:
        nodes = np.arange(topology.num_nodes)
        middles = (nodes + 0.5) * topology.gpus_per_node - 0.5
        axes.set_xticks(
            middles, [f"node {node}" if len(nodes) < 6 else str(node) for node in nodes]
        )
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(f"node, {topology.gpus_per_node} GPUs each" if len(nodes) >= 6 else "")
    else:
        axes.set_xlabel("GPU")
    return image


def _add_scale(
    picture: Picture, panels: NDArray[Any], image: AxesImage, most: float, measure: str
) -> None:
    extend = "max" if most > MOST_SHOWN else "neither"
    bar = picture.colorbar(
        image, ax=list(panels), orientation="horizontal", extend=extend, aspect=35, pad=0.02
    )
    what = "time" if measure == "takes" else "load"
    bar.set_label(f"{what} of a GPU, in means of its layer")
    picture.style(bar.ax, grid=False)
    bar.outline.set_visible(False)
