"""Replay a trace: how well each way to plan would have balanced it, and what it would have moved.

Before every window a plan is made from the windows before it. It is judged on the window itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_is, one_line
from eplb_np._loads.host import as_history
from eplb_np._notebook import as_frame, rows_html
from eplb_np.moves.fetches import count_fetches
from eplb_np.plan import Plan
from eplb_np.planners import (
    Planner,
    knowing_the_future,
    mending,
    once,
    planner_named,
    replanning,
)
from eplb_np.policies import Split, check_split

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = [
    "Planner",
    "Replay",
    "ReplayedWindow",
    "knowing_the_future",
    "mending",
    "once",
    "planner_named",
    "replanning",
    "replay",
    "replay_windows",
]


class ReplayedWindow(NamedTuple):
    """What a planner gave for one window of a trace. Made by `replay_windows`.

    Parameters
    ----------
    window : int
        The window that was planned for.
    mean_time, longest_time : float
        Time of perfectly balanced GPUs, and time of the slowest GPU, both summed over the layers,
        in units of load.
    moved : int
        Replicas that GPUs fetched before the window; 0 for the first plan.
    seconds : float
        Time that planning took, in seconds.
    num_replicas : int
        Slots of all layers together.
    """

    window: int
    mean_time: float
    longest_time: float
    moved: int
    seconds: float
    num_replicas: int


@dataclass(frozen=True, eq=False)
class Replay:
    """Results of a planner on a trace, for each window that it planned for.

    Parameters
    ----------
    mean_time, longest_time : ndarray, shape [n], float64
        Time of perfectly balanced GPUs, and time of the slowest GPU, both summed over the layers,
        in units of load.
    moved : ndarray, shape [n], int64
        Replicas that GPUs fetched before each window; 0 for the first plan.
    seconds : ndarray, shape [n], float64
        Time that planning took, in seconds.
    num_replicas : int
        Slots of all layers together; the base of `moved_share`.
    first_window : int, default: 1
        The window of the first figures.
    """

    mean_time: NDArray[np.float64]
    longest_time: NDArray[np.float64]
    moved: NDArray[np.int64]
    seconds: NDArray[np.float64]
    num_replicas: int
    first_window: int = 1

    @classmethod
    def of_windows(cls, windows: Iterable[ReplayedWindow]) -> Replay:
        """Collect what `replay_windows` yielded, all of it or the first part.

        Parameters
        ----------
        windows : iterable of ReplayedWindow
            Consecutive windows of one replay, at least one.

        Returns
        -------
        Replay
            Their results.

        Raises
        ------
        ValueError
            If there are none.

        Examples
        --------
        >>> import numpy as np
        >>> from eplb_np import Topology
        >>> from eplb_np.replay import Replay, once, replay_windows
        >>> load = np.tile([[90.0, 30, 10, 10]], (4, 1, 1))  # the same in four windows
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
        >>> windows = replay_windows(load, once(topology))
        >>> Replay.of_windows([next(windows), next(windows)]).columns["window"].tolist()
        [1, 2]
        """
        rows = list(windows)
        if not rows:
            raise ValueError("no window was replayed: give one or more")
        figures = np.array([(row.mean_time, row.longest_time, row.seconds) for row in rows])
        mean, longest, seconds = np.ascontiguousarray(figures.T)
        moved = np.array([row.moved for row in rows], np.int64)
        return cls(mean, longest, moved, seconds, rows[0].num_replicas, rows[0].window)

    @property
    def window_balancedness(self) -> NDArray[np.float64]:
        """GPU balancedness of each window, shape [n]: 1 is perfect."""
        ratio: NDArray[np.float64] = np.ones_like(self.mean_time)
        np.divide(self.mean_time, self.longest_time, out=ratio, where=self.longest_time > 0)
        return ratio

    @property
    def balancedness(self) -> float:
        """GPU balancedness over all windows, each of which waits for its slowest GPUs."""
        longest = float(self.longest_time.sum())
        return float(self.mean_time.sum()) / longest if longest > 0 else 1.0

    @property
    def moved_share(self) -> float:
        """Mean share of all slots that GPUs had to fetch at a replan."""
        replans = max(len(self.moved) - 1, 1)
        return float(self.moved.sum()) / (replans * self.num_replicas)

    @property
    def milliseconds(self) -> float:
        """Median time of a replan, in milliseconds."""
        return float(np.median(self.seconds)) * 1e3

    def to_dataframe(self) -> DataFrame:
        """Return the figures of each window as a table of pandas.

        Returns
        -------
        pandas.DataFrame
            A row for each window: ``window``, ``balancedness``, ``mean_time``, ``longest_time``,
            ``moved``, ``moved_share`` (of all slots) and ``seconds``.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        return as_frame(self.columns)

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Figures of each window, by name: the columns of `to_dataframe`."""
        return {
            "window": self.first_window + np.arange(len(self.moved)),
            "balancedness": self.window_balancedness,
            "mean_time": self.mean_time,
            "longest_time": self.longest_time,
            "moved": self.moved,
            "moved_share": self.moved / self.num_replicas,
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        return (
            f"Replay(balancedness {self.balancedness:.4f}, {self.moved_share:.2%} moved and "
            f"{self.milliseconds:.1f} ms per replan)"
        )

    def _repr_html_(self) -> str:
        rows = {
            "windows": len(self.moved),
            "GPU balancedness": f"{self.balancedness:.4f}",
            "moved per replan": f"{self.moved_share:.2%} of all slots",
            "time of a replan": f"{self.milliseconds:.1f} ms",
        }
        return rows_html("Replay", rows)


def replay(
    load: ArrayLike, planner: Planner, *, first_window: int = 1, split: Split = "even"
) -> Replay:
    """Replay a trace with one planner.

    Parameters
    ----------
    load : array_like, shape [W, L, E]
        Load of each expert in consecutive windows, recorded or synthetic (`eplb_np.workloads`).
    planner : callable
        ``planner(history, current)`` returns the plan for the coming window, from the windows
        before it and the plan in use: one of those in this module, or your own.
    first_window : int, default: 1
        First window to plan for, at least 1.
    split : {"even", "best"}, default: "even"
        How the load of each window is split over the replicas, as in `Plan.gpu_load`.

    Returns
    -------
    Replay
        Balance, moves and time of each window from ``first_window`` on.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load, or has no more than ``first_window`` windows.

    Notes
    -----
    Moves are counted as in `moved_replicas`: a change of slot within a GPU does not count.

    The time of the planner, and O(W L (E + P log P)) to judge and to count moves.

    Examples
    --------
    >>> import eplb_np
    >>> from eplb_np.replay import mending, replanning, replay
    >>> trace = eplb_np.workloads.draw_trace(np.full((12, 2, 16), 1 / 16), seed=1)
    >>> topology = eplb_np.Topology(num_experts=16, num_replicas=20, num_gpus=4)
    >>> replanned = replay(trace.load, replanning(topology, "deepseek"))
    >>> mended = replay(trace.load, mending(topology))
    >>> mended.moved_share < 0.1 * replanned.moved_share
    True
    """
    return Replay.of_windows(replay_windows(load, planner, first_window=first_window, split=split))


def replay_windows(
    load: ArrayLike, planner: Planner, *, first_window: int = 1, split: Split = "even"
) -> Iterator[ReplayedWindow]:
    """Replay a trace window by window: to show how far it is, or to stop and keep what is done.

    Parameters
    ----------
    load : array_like, shape [W, L, E]
        As for `replay`.
    planner : callable
        As for `replay`.
    first_window : int, default: 1
        First window to plan for, at least 1.
    split : {"even", "best"}, default: "even"
        As for `replay`.

    Returns
    -------
    iterator of ReplayedWindow
        One for each window from ``first_window`` on, each as soon as it is judged.
        `Replay.of_windows` collects them.

    Raises
    ------
    ValueError
        As `replay`, when it is called, before any planning.

    Notes
    -----
    Complexity as `replay`.

    Examples
    --------
    >>> import eplb_np
    >>> from eplb_np.replay import Replay, once, replay_windows
    >>> topology = eplb_np.Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> windows = replay_windows(np.ones((3, 1, 4)), once(topology, "deepseek"))
    >>> next(windows).window
    1
    """
    if not callable(planner):
        raise ValueError(f"planner={one_line(planner)} cannot be called: give one of this module")
    history = as_history(load, "load")
    first = as_size("first_window", first_window)
    check_split(split)
    if len(history) <= first:
        raise ValueError(
            f"load has {len(history)} window(s), so first_window={first} leaves none to plan for: "
            f"give {first + 1} or more windows"
        )
    return _replayed(history, planner, first, split)


def _replayed(
    history: NDArray[np.float32], planner: Planner, first: int, split: Split
) -> Iterator[ReplayedWindow]:
    current: Plan | None = None
    for window in range(first, len(history)):
        start = time.perf_counter()
        plan = planner(history[:window], current)
        seconds = time.perf_counter() - start
        check_is("what planner returned", plan, Plan, "return the plan for the coming window")
        moved = 0
        if current is not None:
            moved = count_fetches(current.phy2log, plan.phy2log, plan.topology.gpu_of_slot)
        at_once = float(history[window].sum(dtype=np.float64)) / plan.topology.active_speed
        longest = float(plan.gpu_time(history[window], split=split).max(axis=1).sum())
        current = plan
        yield ReplayedWindow(window, at_once, longest, moved, seconds, plan.phy2log.size)
