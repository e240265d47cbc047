"""Draw the pictures of the pages, from the traces of `replays.py`, but for those of the split.

    python docs/studies/pictures.py [FOLDER]

Writes SVG files into FOLDER, by default `docs/pictures`. The same Matplotlib writes the same
bytes. Backgrounds are transparent, and all colors are distinguishable on white and on black.
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
from replays import LOOKBACK, planners, read_profiles, topology_of

import eplb_np
from eplb_np import pictures as draw
from eplb_np import workloads
from eplb_np.forecast import LoadForecast
from eplb_np.replay import Replay, mending, replay
from eplb_np.workloads.traces import Scenario

FOLDER = Path(__file__).parents[1] / "pictures"
DEPLOYMENT = "288 global 72"
SEED = 1
PRICES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # in mean GPU loads
INK = "#7d7d7d"  # readable on white and on black
FEW_EXPERTS = [[120, 20, 20, 20, 20, 20, 10, 10]]  # of `why.md`, on 4 GPUs
LINES: dict[str, dict[str, Any]] = {
    "ceiling": {"color": "#2f9e6e", "linestyle": (0, (1, 1)), "label": "ceiling: the future known"},
    "mended": {"color": "#3a8ee6", "linewidth": 2.0, "label": "mended"},
    "deepseek": {
        "color": "#e0762f",
        "linestyle": (0, (5, 1.5)),
        "label": f"from scratch (deepseek, last {LOOKBACK} windows)",
    },
    "never": {"color": "#9a86c9", "linestyle": (0, (6, 1, 1, 1)), "label": "never replanned"},
}
SCENARIO_LINES: dict[Scenario, dict[str, Any]] = {
    "stationary": {"color": "#b08a2e", "linestyle": (0, (1, 1))},
    "drift": {"color": "#c2609b", "linestyle": (0, (5, 1.5))},
    "switches": {"color": "#2e9dab", "linewidth": 2.0},
}
STYLE = {
    "svg.hashsalt": "eplb_np",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "savefig.transparent": True,
}


def new_picture(xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    """Make an empty picture with one pair of axes."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def mark_switches(axes: Any, trace: workloads.LoadTrace) -> None:
    """Draw a line at each window in which another workload begins."""
    for i, window in enumerate(trace.switches):
        label = "another workload" if i == 0 else None
        axes.axvline(window - 0.5, color=INK, linewidth=1, alpha=0.7, label=label)


def draw_replays(replays: dict[str, Replay], trace: workloads.LoadTrace) -> Figure:
    """Draw the balancedness of each window, and the replicas fetched so far."""
    names = {"deepseek": "from scratch", "never": "never replanned"}
    shown = ("mended", "deepseek", "never", "ceiling")
    named = {names.get(name, name): replays[name] for name in shown}
    return draw.replays(named, marks=trace.switches, theme="transparent")


def draw_against_deepseek(replays: dict[str, Replay], trace: workloads.LoadTrace) -> Figure:
    """Draw the same for a `Rebalancer` and DeepSeek's policy alone."""
    named = {"Rebalancer": replays["mended"], "DeepSeek's policy": replays["deepseek"]}
    return draw.replays(named, marks=trace.switches, theme="transparent")


def draw_gpu_loads() -> Figure:
    """Draw the load of each GPU, before and after, of the example in `notebooks.md`."""
    load = workloads.deepseek_v3_load(seed=0)
    ids = np.flatnonzero(load.any(axis=1))
    topology = eplb_np.Topology(256, 288, num_gpus=32, num_nodes=4, num_groups=8)
    plan = eplb_np.make_plan(load[ids], topology, policy="refined", moe_layer_ids=ids)
    before = eplb_np.in_order_plan(len(ids), topology)
    return draw.gpu_loads(plan, load, before=before, theme="transparent")


def draw_busiest_gpu() -> Figure:
    """Draw a few experts on GPUs: in order, packed, and with replicas, as in `why.md`."""
    plans = {
        "in order": eplb_np.in_order_plan(1, eplb_np.Topology(8, 8, num_gpus=4)),
        "packed": eplb_np.make_plan(FEW_EXPERTS, num_replicas=8, num_gpus=4),
        "with replicas": eplb_np.make_plan(FEW_EXPERTS, num_replicas=12, num_gpus=4),
    }
    figure = Figure(figsize=(4.75, 5.4), layout="constrained")
    panels = figure.subplots(len(plans), 1, sharex=True)
    mean = sum(FEW_EXPERTS[0]) / 4
    for axes, (name, plan) in zip(panels, plans.items(), strict=True):
        experts = plan.phy2log[0].reshape(4, -1)
        replica_load = (np.array(FEW_EXPERTS[0]) / plan.logcnt[0])[experts]
        for gpu in range(4):
            left = 0.0
            for expert, load in zip(experts[gpu], replica_load[gpu], strict=True):
                hot = expert == 0
                color = LINES["mended"]["color"] if hot else INK + "40"
                axes.barh(gpu, load, left=left, color=color, edgecolor=INK, height=0.8)
                ink = "white" if hot else INK
                axes.text(left + load / 2, gpu, expert, ha="center", va="center", color=ink)
                left += load
        axes.axvline(mean, color=LINES["deepseek"]["color"], linestyle=(0, (5, 1.5)), zorder=0)
        busiest = plan.gpu_load(FEW_EXPERTS).max()
        axes.set_title(f"{name}: the busiest GPU has {busiest:.0f}", loc="left", fontsize=10)
        axes.set_yticks(range(4), [f"GPU {gpu}" for gpu in range(4)])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    panels[-1].set_xlabel("tokens; dashed: the mean GPU")
    return figure


def draw_expert_loads() -> Figure:
    """Draw how unequal the experts of a layer are."""
    load = workloads.deepseek_v3_load(seed=0)
    return draw.expert_loads(load[load.any(axis=1)], theme="transparent")


def draw_windows_used(traces: dict[Scenario, workloads.LoadTrace]) -> Figure:
    """Draw how many windows the forecast is based on."""
    figure, axes = new_picture("window", "windows behind the forecast")
    for scenario, style in SCENARIO_LINES.items():
        mark_switches(axes, traces[scenario])
        axes.plot(windows_used(traces[scenario]), label=scenario, **style)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.legend(loc="upper left")
    return figure


def windows_used(trace: workloads.LoadTrace) -> list[float]:
    """Effective number of windows behind the forecast, after each window."""
    forecast = LoadForecast(*trace.load.shape[1:])
    used = []
    for load in trace.load.astype(np.float32):
        forecast.observe(load)
        used.append(forecast.windows_used)
    return used


def draw_balance_against_moves(
    replays: dict[str, Replay], trace: workloads.LoadTrace, topology: eplb_np.Topology
) -> Figure:
    """Draw what moving less costs: mending at several prices, and planning from scratch."""
    figure, axes = new_picture("slots fetched per replan, %", "GPU balancedness")
    mean_gpu_load = float(trace.load[0].sum(axis=1).mean()) / topology.num_gpus
    mended = [
        replay(
            trace.load,
            mending(topology, eplb_np.MoveLimits(price=price * mean_gpu_load)),
            first_window=LOOKBACK,
        )
        for price in PRICES
    ]
    shares = [100 * result.moved_share for result in mended]
    style = LINES["mended"] | {"marker": "o", "label": "mended, at several prices of a fetch"}
    axes.plot(shares, [result.balancedness for result in mended], **style)
    for price, share, result in zip(PRICES, shares, mended, strict=True):
        where = (share, result.balancedness)
        axes.annotate(f"{price:g}", where, (4, -11), textcoords="offset points", fontsize=8)
    for name, marker in (("deepseek", "s"), ("refined", "^"), ("forecast", "D")):
        label = {"refined": f"refined, last {LOOKBACK} windows", "forecast": "refined, forecast"}
        axes.plot(
            100 * replays[name].moved_share,
            replays[name].balancedness,
            marker,
            color=LINES["deepseek"]["color"],
            label=label.get(name, f"deepseek, last {LOOKBACK} windows"),
        )
    for name in ("ceiling", "never"):
        axes.axhline(replays[name].balancedness, **LINES[name])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.36))
    return figure


def draw_all(profiles: NDArray[np.float64], num_windows: int = 64) -> dict[str, Figure]:
    """Draw all pictures; return them by file name."""
    traces = {
        scenario: workloads.scenario_trace(scenario, profiles, num_windows=num_windows, seed=SEED)
        for scenario in SCENARIO_LINES
    }
    trace = traces["switches"]
    topology = topology_of(DEPLOYMENT, profiles.shape[2])
    replays = {
        name: replay(trace.load, planner, first_window=LOOKBACK)
        for name, planner in planners(topology, trace).items()
    }
    with mpl.rc_context(STYLE):
        return {
            "busiest_gpu": draw_busiest_gpu(),
            "expert_loads": draw_expert_loads(),
            "gpu_loads": draw_gpu_loads(),
            "replays": draw_replays(replays, trace),
            "against_deepseek": draw_against_deepseek(replays, trace),
            "windows_used": draw_windows_used(traces),
            "balance_against_moves": draw_balance_against_moves(replays, trace, topology),
        }


def write_all(figures: dict[str, Figure], folder: Path) -> None:
    """Write figures as SVG files, without what differs from run to run."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in figures.items():
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            lines = (line.rstrip() for line in path.read_text().splitlines())
            path.write_text("\n".join(lines) + "\n")


def main(arguments: Sequence[str]) -> None:
    """Write the pictures."""
    folder = Path(arguments[0]) if arguments else FOLDER
    write_all(draw_all(read_profiles(None)), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
