"""Draw the pictures of `dispatch.md`, from synthetic workloads.

    python docs/studies/split_pictures.py [FOLDER]

Writes SVG files into FOLDER, by default `docs/pictures`, in the style of `pictures.py`. All are of
windows of prefill and of every tenth layer, on windows that no plan was made from.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pictures import FOLDER, INK, STYLE, new_picture, write_all
from replays import read_profiles
from split_rounds import SHAPES, windows
from splitting import (
    BATCH_TOKENS,
    HISTORY,
    SPARES,
    batch_curves,
    following,
    plan_for,
    spare_curves,
    topology_of,
)

import eplb_np
from eplb_np import workloads
from eplb_np.pictures.batches import draw_bars
from eplb_np.replay import once, replay

Loads = NDArray[np.float64]

DEPLOYMENT = "288 global 32"
BATCH = 4_000  # tokens
PRICES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)  # in mean GPU loads
FIRST_WINDOW = 2
EVEN = {"color": "#e0762f", "linestyle": (0, (5, 1.5))}
LATE = {"color": "#b08a2e", "linestyle": (0, (1, 1))}
BEST = {"color": "#3a8ee6"}
LINES: dict[str, dict[str, Any]] = {
    "best best": {**BEST, "marker": "o", "label": "made for the split, best split"},
    "best late": {**LATE, "marker": "o", "label": "made for the split, late shares"},
    "best even": {**EVEN, "marker": "o", "label": "made for the split, even split"},
    "even best": {**BEST, "marker": "^", "alpha": 0.65, "label": "refined, best split"},
    "even late": {**LATE, "marker": "^", "alpha": 0.65, "label": "refined, late shares"},
    "even even": {**EVEN, "marker": "^", "alpha": 0.65, "label": "refined, even split"},
}


def draw_batch(profile: Loads) -> Figure:
    """Draw the GPUs of one layer in one batch, before and after, busiest first."""
    rng = np.random.default_rng(0)
    history = windows(profile, HISTORY, "prefill", rng)
    topology = topology_of(SHAPES[DEPLOYMENT], profile.shape[1])
    share = windows(profile, 1, "prefill", rng)[0]
    counts = rng.multinomial(8 * BATCH, share / share.sum(axis=1, keepdims=True))
    refined = plan_for(history, topology, "even")
    made = plan_for(history, topology, "best")
    even = refined.gpu_load(counts)
    layer = int(np.argsort(even.max(axis=1))[len(even) // 2])  # neither the best nor the worst
    gpus = {
        "even split": even[layer],
        "best split": refined.gpu_load(counts, split="best")[layer],
        "best split of a plan for it": made.gpu_load(counts, split="best")[layer],
    }
    return draw_bars(gpus, "tokens x 8 experts", "transparent")


def draw_batch_size(profile: Loads) -> Figure:
    """Draw balance against the number of tokens in a batch."""
    figure, axes = new_picture("tokens in a batch", "GPU balancedness")
    curves = batch_curves(profile, SHAPES[DEPLOYMENT], "prefill")
    for name, style in LINES.items():
        axes.plot(BATCH_TOKENS, curves[name], markersize=4, **style)
    axes.set_xscale("log", base=4)
    axes.set_xticks(BATCH_TOKENS, [f"{tokens // 1000}k" for tokens in BATCH_TOKENS])
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.36))
    return figure


def draw_spares(profile: Loads) -> Figure:
    """Draw balance against the number of spare slots, on 32 and 72 GPUs."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, num_gpus in zip(panels, (32, 72), strict=True):
        curves = spare_curves(profile, num_gpus, "prefill")
        for name in ("best best", "even best", "even even"):
            axes.plot(SPARES, curves[name], markersize=4, **LINES[name])
        axes.axvline(
            num_gpus, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="one on each GPU"
        )
        axes.set_ylim(0.8, 1.01)
        axes.set_title(f"{num_gpus} GPUs", fontsize=10, color=INK)
        axes.set_xlabel(f"spare slots, beside {profile.shape[1]} experts")
    panels[0].set_ylabel("GPU balancedness")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=2, loc="outside upper center")
    return figure


def draw_split_moves(profiles: Loads, num_windows: int) -> Figure:
    """Draw balance against moves on a trace with ramps: mended for either split."""
    trace = workloads.scenario_trace("ramps", profiles, num_windows=num_windows)
    num_layers, num_experts = profiles.shape[1:]
    topology = topology_of(SHAPES[DEPLOYMENT], num_experts)
    mean = float(trace.load[0].sum(axis=1).mean()) / topology.num_gpus
    figure, axes = new_picture("slots fetched per replan, %", "GPU balancedness")
    for split, style in (("even", LINES["even even"]), ("best", LINES["best best"])):
        found = []
        for price in PRICES:
            limits = eplb_np.MoveLimits(price=price * mean)
            planner = eplb_np.Rebalancer(topology, num_layers, limits=limits, split=split)
            found.append(
                replay(trace.load, following(planner), first_window=FIRST_WINDOW, split=split)
            )
        label = f"mended for the {split} split, at several prices of a fetch"
        axes.plot(
            [100 * result.moved_share for result in found],
            [result.balancedness for result in found],
            markersize=4,
            **{**style, "label": label, "alpha": 1.0},
        )
    made = plan_for(profiles * 1e6, topology, "best")
    never = {
        "made for all workloads, never moved": (lambda *_: made, "best", LINES["best best"]),
        "refined, never moved": (once(topology), "even", LINES["even even"]),
    }
    for label, (planner, split, style) in never.items():
        level = replay(trace.load, planner, first_window=FIRST_WINDOW, split=split).balancedness
        axes.axhline(level, color=style["color"], linewidth=1, linestyle=(0, (1, 2)), label=label)
    axes.legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.24))
    return figure


def draw_all(profiles: Loads, num_windows: int = 48) -> dict[str, Figure]:
    """Draw all pictures; return them by file name."""
    profiles = profiles / profiles.sum(axis=2, keepdims=True)
    with mpl.rc_context(STYLE):
        return {
            "split_batch": draw_batch(profiles[0]),
            "split_batch_size": draw_batch_size(profiles[0]),
            "split_spares": draw_spares(profiles[0]),
            "split_moves": draw_split_moves(profiles, num_windows),
        }


def main(arguments: Sequence[str]) -> None:
    """Write the pictures."""
    folder = Path(arguments[0]) if arguments else FOLDER
    write_all(draw_all(read_profiles(None)[:, ::10]), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
