"""`sweep`: many cases, measured wherever there are processors, and what to buy of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from eplb_np._arguments import as_amount, as_size, check_is
from eplb_np._notebook import as_frame
from eplb_np.policies import PolicyName
from eplb_np.sweeps.cases import Case, Grid, check_cases
from eplb_np.sweeps.measure import (
    Judging,
    SweptCase,
    SweptLoads,
    as_judging,
    as_swept_loads,
    measure,
    version,
)
from eplb_np.sweeps.results import ResultsFile

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped,import-not-found,unused-ignore]

WITHIN = 0.01
"""Share of the best balance that is given up for less memory, unless somebody says another."""


class Curve(NamedTuple):
    """What the cases of one curve have in common: they differ in slots only.

    Parameters
    ----------
    num_gpus, num_nodes, num_groups : int
        As in `Topology`.
    policy : str
        As in `make_plan`.
    """

    num_gpus: int
    num_nodes: int
    num_groups: int
    policy: PolicyName

    def __str__(self) -> str:
        nodes = "" if self.num_nodes == 1 else f" on {self.num_nodes} nodes"
        groups = "" if self.num_groups == 1 else f", {self.num_groups} groups"
        return f"{self.num_gpus} GPUs{nodes}{groups}, {self.policy}"


@dataclass(frozen=True, eq=False)
class Sweep:
    """Results of a sweep. Made by `sweep`.

    Parameters
    ----------
    rows : tuple of SweptCase
        What each case gives, in the order of the cases.
    left_out : tuple of str
        Combinations that did not fit together, and why.
    num_layers, num_experts, num_windows : int
        Of the loads; one window if there is no history.
    """

    rows: tuple[SweptCase, ...]
    left_out: tuple[str, ...]
    num_layers: int
    num_experts: int
    num_windows: int

    @property
    def curves(self) -> dict[Curve, tuple[SweptCase, ...]]:
        """Rows that differ in slots only, the fewest slots first."""
        found: dict[Curve, list[SweptCase]] = {}
        for row in self.rows:
            curve = Curve(row.num_gpus, row.num_nodes, row.num_groups, row.policy)
            found.setdefault(curve, []).append(row)
        return {
            curve: tuple(sorted(rows, key=lambda row: row.num_replicas))
            for curve, rows in found.items()
        }

    def knee(
        self,
        *,
        within: float = WITHIN,
        num_gpus: int | None = None,
        num_nodes: int | None = None,
        num_groups: int | None = None,
        policy: PolicyName | None = None,
    ) -> SweptCase:
        """Find what to buy: the least memory that balances nearly as well as the most.

        Parameters
        ----------
        within : float, default: 0.01
            Share of the best balance that may be given up.
        num_gpus, num_nodes, num_groups : int, optional
            Only rows with these sizes are looked at. Where a sweep has several numbers of GPUs,
            give one: fewer GPUs are easier to balance, but do less.
        policy : {"hybrid", "deepseek", "refined"}, optional
            Only rows of this policy are looked at.

        Returns
        -------
        SweptCase
            Of the rows whose `SweptCase.judged` is at least ``1 - within`` times the highest, the
            one that takes the least memory on all GPUs, each as large as the largest:
            ``num_gpus * slots_per_gpu``. Of several, the best balanced; then the first.

        Raises
        ------
        ValueError
            If there is no such row, or ``within`` is not from 0 to 1.

        Notes
        -----
        A threshold, and no angle: where a curve bends depends on how its axes are drawn.

        Examples
        --------
        >>> from eplb_np.sweeps import grid, sweep
        >>> found = sweep([[8, 1, 1, 1]], grid(4, [2], policies=["deepseek"]))
        >>> [(row.num_replicas, round(row.judged, 2)) for row in found.rows]
        [(4, 0.61), (6, 0.87), (8, 0.95), (10, 0.99), (12, 0.99), (14, 0.99)]
        >>> found.knee().num_replicas
        10
        """
        given = as_amount("within", within)
        if given > 1:
            raise ValueError(f"within={within} is more than 1: give a share, such as {WITHIN}")
        wanted = {
            "num_gpus": num_gpus, "num_nodes": num_nodes, "num_groups": num_groups,
            "policy": policy,
        }  # fmt: skip
        asked = {name: value for name, value in wanted.items() if value is not None}
        rows = [
            row
            for row in self.rows
            if all(getattr(row, name) == value for name, value in asked.items())
        ]
        if not rows:
            said = ", ".join(f"{name}={value!r}" for name, value in asked.items())
            raise ValueError(f"the sweep has no results{said and ' with '}{said}: ask for others")
        enough = (1 - given) * max(row.judged for row in rows)
        good = [row for row in rows if row.judged >= enough]
        return min(good, key=lambda row: (row.num_gpus * row.slots_per_gpu, -row.judged))

    def to_dataframe(self) -> DataFrame:
        """Return the rows as a table of pandas.

        Returns
        -------
        pandas.DataFrame
            A row for each case, and a column for each field of `SweptCase`.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        names = [field.name for field in fields(SweptCase)]
        return as_frame(
            {name: np.array([getattr(row, name) for row in self.rows]) for name in names}
        )

    def __repr__(self) -> str:
        return (
            f"Sweep({len(self.rows)} cases, {self.num_layers} layers, "
            f"{self.num_experts} experts, {self.num_windows} windows)"
        )


def sweep(
    load: ArrayLike,
    cases: Grid | Iterable[Case],
    *,
    first_window: int = 1,
    num_windows: int = 8,
    expert_bytes: float | None = None,
    path: str | os.PathLike[str] | None = None,
    num_jobs: int = 1,
    dask: str | None = None,
) -> Sweep:
    """Measure how balanced each of many deployments would be, and what memory it takes.

    Parameters
    ----------
    load : array_like, shape [L, E] or [W, L, E]
        Load of each expert, in one window or in W windows, oldest first. With several, cases are
        judged out of sample too: on windows that the plans were not made from.
    cases : Grid or iterable of Case
        What to measure: `grid` makes it.
    first_window : int, default: 1
        First window to judge out of sample, at least 1.
    num_windows : int, default: 8
        Windows that a plan is made from out of sample: the sum of the last ones.
    expert_bytes : float, optional
        Bytes of one expert of one layer, for `SweptCase.bytes_per_gpu`.
    path : path-like, optional
        File to write results to as they come, one line of JSON for each case. Cases that it holds
        are not done again, so a sweep that was stopped can be called again.
    num_jobs : int, default: 1
        Processes, each on one thread. With more than one, a script must protect its main part
        with ``if __name__ == "__main__"``.
    dask : str, optional
        Address of a Dask scheduler, whose workers do the work instead. They need the same version
        of this package.

    Returns
    -------
    Sweep
        The results, the same wherever they were measured.

    Raises
    ------
    ValueError
        If the load is not valid or has no more than ``first_window`` windows, a case does not
        fit, or ``path`` holds something else than results of this sweep.
    ModuleNotFoundError
        If ``distributed`` is asked for and not installed.
    OSError
        If the file cannot be written; a `ChildProcessError` if processes are killed again and
        again; a `ConnectionError` if the cluster does not answer or cannot work.

    Notes
    -----
    For each case the time of `make_plan`, once, and once more for each window of a history that is
    judged.

    Examples
    --------
    >>> from eplb_np.sweeps import grid, sweep
    >>> found = sweep([[90, 30, 10, 10]], grid(4, [2], num_redundant=[0, 2]))
    >>> [(row.num_redundant, round(row.balancedness, 2)) for row in found.rows]
    [(0, 0.7), (2, 1.0)]
    """
    asked = ask(load, cases, as_judging(first_window, num_windows, expert_bytes))
    jobs = as_size("num_jobs", num_jobs)
    if dask is not None:
        check_is("dask", dask, str, "give the address of a scheduler")
    with running(asked, path) as run:
        for _ in run.missing(jobs, dask):
            pass
    return run.result()


class Asked(NamedTuple):
    """A sweep that has been checked, and not begun."""

    cases: tuple[Case, ...]
    left_out: tuple[str, ...]
    loads: SweptLoads
    judging: Judging


def ask(load: ArrayLike, cases: Grid | Iterable[Case], judging: Judging) -> Asked:
    """Check what is to be swept."""
    loads = as_swept_loads(load, judging.first_window)
    left_out = cases.left_out if isinstance(cases, Grid) else ()
    wanted = cases.cases if isinstance(cases, Grid) else cases
    return Asked(check_cases(wanted, loads.total.shape[1]), left_out, loads, judging)


class Running:
    """A sweep under way: what is done, and what is missing."""

    def __init__(self, asked: Asked, file: ResultsFile | None) -> None:
        self._asked = asked
        self._file = file
        self.done: dict[Case, SweptCase] = {} if file is None else file.done

    @property
    def num_missing(self) -> int:
        """Cases that are not done."""
        return sum(case not in self.done for case in self._asked.cases)

    def missing(self, num_jobs: int = 1, dask: str | None = None) -> Iterator[SweptCase]:
        """Do what is missing, and yield each case when it has been done and kept."""
        _, _, loads, judging = self._asked
        cases = [case for case in self._asked.cases if case not in self.done]
        if not cases:
            return
        if dask is not None:
            from eplb_np.sweeps.cluster import measure_on_cluster

            swept = measure_on_cluster(cases, loads, judging, dask)
        elif num_jobs > 1 and len(cases) > 1:
            from eplb_np.sweeps.processes import measure_in_processes

            swept = measure_in_processes(cases, loads, judging, num_jobs)
        else:
            swept = (measure(case, loads, judging) for case in cases)
        with contextlib.closing(swept):  # its processes end, too, where this stops
            for row in swept:
                if self._file is not None:
                    self._file.append(row)
                self.done[row.case] = row
                yield row

    def result(self) -> Sweep:
        """Return what is done."""
        loads = self._asked.loads
        num_layers, num_experts = loads.total.shape
        return Sweep(
            tuple(self.done[case] for case in self._asked.cases if case in self.done),
            self._asked.left_out,
            num_layers,
            num_experts,
            1 if loads.history is None else len(loads.history),
        )


@contextlib.contextmanager
def running(asked: Asked, path: str | os.PathLike[str] | None = None) -> Iterator[Running]:
    """Begin a sweep, or go on with one whose results are in a file."""
    if path is None:
        yield Running(asked, None)
        return
    with ResultsFile(path, _header(asked)) as file:
        yield Running(asked, file)


def _header(asked: Asked) -> dict[str, Any]:
    """Return what decides the results of a case."""
    loads = asked.loads
    digest = hashlib.sha256(loads.total.tobytes())
    if loads.history is not None:
        digest.update(loads.history.tobytes())
    num_layers, num_experts = loads.total.shape
    return {
        "version": version(),
        "num_layers": num_layers,
        "num_experts": num_experts,
        "num_history_windows": 1 if loads.history is None else len(loads.history),
        **asked.judging._asdict(),
        "loads": digest.hexdigest(),
    }
