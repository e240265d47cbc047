"""What loads look like: how skewed they are, and how they change from window to window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._loads.host import as_array, as_history
from eplb_np.pictures.canvas import new_picture
from eplb_np.pictures.texts import times
from eplb_np.pictures.themes import ThemeName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eplb_np.pictures.picture import Picture


def expert_loads(load: ArrayLike, *, theme: ThemeName = "light") -> Figure:
    """Draw how unequal the loads of experts are, and how much of them stays where it is.

    Parameters
    ----------
    load : array_like, shape [L, E] or [W, L, E]
        Load of each logical expert, in one window or in W windows, oldest first.
    theme : {"light", "dark", "transparent"}, default: "light"
        Colours.

    Returns
    -------
    matplotlib.figure.Figure
        The experts of each layer, most loaded first, in units of the mean expert: the median layer,
        a band that holds eight of ten layers, and the most skewed layer. With several windows, also
        the share of each window's load that lies where it lay in the window before.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load.
    ModuleNotFoundError
        If Matplotlib is not installed.

    Examples
    --------
    >>> from eplb_np import pictures, workloads
    >>> figure = pictures.expert_loads(workloads.skewed_load(4, 32))
    >>> print(pictures.description(figure))
    The hottest expert of a layer takes 2.26 times the mean. Curves over 32 experts, most load...
    """
    history = as_history(as_array(load, "load"), "load").astype(np.float64)
    shares = sorted_shares(history.sum(axis=0))
    stays = staying_share(history)
    picture = new_picture(3.2 + 1.7 * (stays.size > 0), theme)
    panels = picture.subplots(1 + (stays.size > 0), 1, squeeze=False)[:, 0]
    _draw_skew(picture, panels[0], shares)
    hottest = float(np.median(shares[:, 0])) if len(shares) else 1.0
    described = f"Curves over {shares.shape[1]} experts, most loaded first, of the layers"
    if stays.size:
        _draw_stays(picture, panels[1], stays)
        described += (
            f"; below, the load that stays from window to window, {stays.min():.0%} to "
            f"{stays.max():.0%}"
        )
    picture.finish(
        f"The hottest expert of a layer takes {times(hottest)} times the mean",
        f"{described}. In the most skewed layer it takes {times(float(shares.max()))}.",
    )
    return picture


def sorted_shares(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort the loads [L, E] of layers with any, the most first, in means of their layer."""
    mean = total.mean(axis=1, keepdims=True)
    loaded = total[mean[:, 0] > 0] / mean[mean[:, 0] > 0]
    shares: NDArray[np.float64] = -np.sort(-loaded, axis=1)
    return shares if len(shares) else np.ones((1, total.shape[1]))


def staying_share(history: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the load of each window [W, L, E] after the first that lies as in the one before.

    The mean over layers of the sum of the smaller of an expert's two shares: [W - 1].
    """
    total = history.sum(axis=2, keepdims=True)
    shares = history / np.where(total > 0, total, 1.0)
    both = (total[1:, :, 0] > 0) & (total[:-1, :, 0] > 0)
    same = np.minimum(shares[1:], shares[:-1]).sum(axis=2)
    stays: NDArray[np.float64] = np.where(both, same, 0.0).sum(axis=1) / np.maximum(
        both.sum(axis=1), 1
    )
    return stays


def _draw_skew(picture: Picture, axes: Any, shares: NDArray[np.float64]) -> None:
    colour, accent = picture.theme.series[:2]
    place = np.arange(1, shares.shape[1] + 1)
    low, median, high = np.quantile(shares, [0.1, 0.5, 0.9], axis=0)
    axes.fill_between(
        place, low, high, color=colour, alpha=0.25, linewidth=0, label="8 of 10 layers"
    )
    axes.plot(place, median, color=colour, linewidth=2, label="median layer")
    worst = shares[shares[:, 0].argmax()]
    axes.plot(place, worst, color=accent, linewidth=1.5, linestyle=(0, (5, 1.5)),
              label="most skewed layer")  # fmt: skip
    axes.axhline(1.0, color=picture.theme.ink, linewidth=1, alpha=0.6)
    axes.set_xlabel("expert of a layer, most loaded first")
    axes.set_ylabel("load, in mean experts")
    axes.set_ylim(0, None)
    axes.set_xlim(1, max(shares.shape[1], 2))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("")
    picture.style(axes)
    axes.legend(frameon=False, fontsize=10, labelcolor=picture.theme.ink)


def _draw_stays(picture: Picture, axes: Any, stays: NDArray[np.float64]) -> None:
    axes.plot(
        np.arange(1, len(stays) + 1), 100 * stays, color=picture.theme.series[0], linewidth=2,
        marker="o" if len(stays) < 30 else "", markersize=4,
    )  # fmt: skip
    axes.set_ylim(min(60.0, 100 * float(stays.min()) - 5), 101)
    axes.set_xlabel("window")
    axes.set_ylabel("load that stays, %")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    picture.style(axes)
