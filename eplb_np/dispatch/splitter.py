"""`Splitter` and `split_load`: the load that each replica should take, batch by batch."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_is, one_line
from eplb_np._forks import let_forks_wait_for
from eplb_np._loads.host import as_array, as_history
from eplb_np.forecast import LoadForecast
from eplb_np.maps.maps import read_only
from eplb_np.metrics import LARGEST_LOAD, replica_load
from eplb_np.plan import Plan

if TYPE_CHECKING:
    from eplb_np.dispatch.graph import SplitGraph
    from eplb_np.dispatch.split_cpu import SplitScratch

LARGEST_COUNT = 2.0**53
"""Counts of a layer add up to at most this: up to it, floats tell all integers apart."""


class Splitter:
    """Splits each batch over the replicas of a plan so that no GPU takes longer than it must.

    Prepares a plan once, and splits as many batches as needed. A split depends on nothing but the
    plan, ``expected`` and the counts: every rank that computes it gets the same numbers.

    Parameters
    ----------
    plan : Plan
        Any plan. Its GPUs may differ in slots and speed, or be gone.
    expected : array_like, shape [L, E], optional
        Load that batches are expected to have, in any unit; by default equal for all experts. It
        makes splits faster, up to a few times, and decides nothing but which of several equally
        good splits is found.

    Attributes
    ----------
    plan : Plan
        The plan given.
    graph : SplitGraph
        What was prepared, for `eplb_np.kernels.split_layer`.

    Raises
    ------
    ValueError
        If ``plan`` is not a `Plan`, or ``expected`` does not fit it.

    Notes
    -----
    Preparing takes O(L P log P). A split of a layer fills a spanning forest of experts and GPUs in
    O(P), and repairs what is left along shortest paths, O(K) for each of a few, where K is the
    number of replicas of experts that have several. Thread-safe: each thread has working memory
    of its own. A pickled copy starts without the batches that were observed.

    Several splits may be equally good. Which one it is depends on ``expected``; other ties go to
    the GPU with the lower number.

    The method: maximum flow by shortest augmenting paths, with Newton's method on the makespan.
    For the evened-out split: S. Fujishige, "Lexicographically optimal base of a polymatroid with
    respect to a weight vector", Mathematics of Operations Research 5 (1980); for integers:
    A. Frank and K. Murota, "Decreasing minimization on M-convex sets", Mathematical Programming
    195 (2022).

    Examples
    --------
    >>> from eplb_np import make_plan
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> plan.phy2log.tolist()
    [[0, 1, 2, 0, 1, 3]]
    >>> splitter = Splitter(plan)
    >>> splitter.split([[60, 50, 5, 15]]).tolist()
    [[35, 25, 5, 25, 25, 15]]
    """

    def __init__(self, plan: Plan, expected: ArrayLike | None = None) -> None:
        check_is("plan", plan, Plan, "make one with make_plan, or read it with Plan.load")
        from eplb_np.dispatch.graph import build_graph

        self.plan = plan
        self._shape = plan.logcnt.shape
        if expected is None:
            self._expected = np.ones(self._shape)
        else:
            self._expected = self._as_counts(expected, "expected").astype(np.float64)
        # Read-only whatever the plan's dtype: kernels are compiled once for each kind of array.
        phy2log = read_only(plan.phy2log.astype(np.int64, copy=False))
        logcnt = read_only(plan.logcnt.astype(np.int64, copy=False))
        gpus = plan.topology.gpus
        even = replica_load(phy2log, logcnt, self._expected)
        self.graph: SplitGraph = build_graph(phy2log, logcnt, gpus, even)
        self._lock = threading.RLock()  # for the forecast and the shares
        let_forks_wait_for(self, self._lock)
        self._forecast = LoadForecast(*self._shape)
        self._shares: NDArray[np.float64] | None = None
        self._any_expected = expected is not None
        self._memory = threading.local()
        self.graph = build_graph(phy2log, logcnt, gpus, self.split(self._expected))

    def split(
        self, counts: ArrayLike, *, evened: bool = True, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Split the load of every layer.

        Parameters
        ----------
        counts : array_like, shape [L, E]
            Load of each logical expert in the batch: usually tokens, as integers.
        evened : bool, default: True
            Whether to even out the GPUs below the slowest one too. That can take twenty times as
            long (docs/dispatch.md), and is worth it if the split is used for other batches as well.
        out : ndarray, shape [L, P], int64 or float64, optional
            C-contiguous array to write to, of the dtype that is returned.

        Returns
        -------
        ndarray, shape [L, P], int64 or float64
            Load of each slot, in the unit of ``counts``; 0 in an empty slot. Integers for integer
            counts, and then the slots of an expert add up to exactly its count.

        Raises
        ------
        ValueError
            If ``counts`` has another shape, a count is negative or not finite, the counts of a
            layer add up to more than 2**53 (integers) or 2**960 (floats), ``evened`` is not a
            bool, or ``out`` does not fit.

        Notes
        -----
        As `Splitter`.

        Examples
        --------
        >>> from eplb_np import Splitter, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> splitter = Splitter(plan)
        >>> slot_load = splitter.split([[60, 50, 5, 15]])
        >>> slot_load.tolist(), slot_load.dtype.name
        ([[35, 25, 5, 25, 25, 15]], 'int64')
        >>> splitter.split([[60, -1, 5, 15]])
        Traceback (most recent call last):
            ...
        ValueError: counts[0, 1] = -1: a count must be finite and not negative: clean the coun...
        """
        given = self._as_counts(counts, "counts")
        return self._split(given, evened, self._as_out(out, given.dtype, self.plan.phy2log.shape))

    def split_layer(
        self,
        layer: int,
        counts: ArrayLike,
        *,
        evened: bool = True,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Split the load of one layer.

        Parameters
        ----------
        layer : int
            Row of the plan, 0 .. L - 1.
        counts : array_like, shape [E]
            As a row of those of `split`.
        evened : bool, default: True
            As in `split`.
        out : ndarray, shape [P], int64 or float64, optional
            As in `split`.

        Returns
        -------
        ndarray, shape [P], int64 or float64
            As a row of what `split` returns.

        Raises
        ------
        ValueError
            As in `split`, or if there is no such layer.

        Notes
        -----
        As `Splitter`.

        Examples
        --------
        >>> from eplb_np import Splitter, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> splitter = Splitter(plan)
        >>> splitter.split_layer(0, [60, 50, 5, 15]).tolist()
        [35, 25, 5, 25, 25, 15]
        """
        row = as_size("layer", layer, minimum=0, maximum=self._shape[0] - 1)
        given = self._as_counts(counts, "counts", self._shape[1:])
        result = self._as_out(out, given.dtype, self.plan.phy2log.shape[1:])
        self._split(given[None], evened, result[None], row)
        return result

    def observe(self, counts: ArrayLike) -> None:
        """Take in the counts of a batch, for the `shares` of the batches after it.

        Parameters
        ----------
        counts : array_like, shape [L, E]
            As in `split`, in the same unit each time; below 2**127 in a layer.

        Raises
        ------
        ValueError
            As in `split`. Then nothing has been taken in.

        Notes
        -----
        O(L E), in memory that does not grow. Batches are weighted as windows are in a
        `Rebalancer`: noisy ones count for less, and old ones are forgotten where the workload
        changes. Counts on one rank are not those on another: give each the counts of all.

        Examples
        --------
        >>> from eplb_np import Splitter, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> splitter = Splitter(plan)
        >>> splitter.shares.tolist()  # before: even
        [[0.5, 0.5, 1.0, 0.5, 0.5, 1.0]]
        >>> splitter.observe([[60, 50, 5, 15]])
        >>> splitter.shares.round(3).tolist()
        [[0.583, 0.5, 1.0, 0.417, 0.5, 1.0]]
        """
        with np.errstate(over="ignore"):
            given = self._as_counts(counts, "counts").astype(np.float32)
        history = as_history(given, "counts")
        with self._lock:
            self._forecast.observe(history)
            self._shares = None

    @property
    def shares(self) -> NDArray[np.float64]:
        """Shares that come late: for a batch whose counts cannot be waited for.

        Shape [L, P], float64, read-only: the share of its expert's load that each slot should
        take, by the evened-out split of the load that the batches so far lead to expect. The
        slots of an expert add up to 1; empty slots have 0. Before the first `observe`, shares
        are those of ``expected``; without that, replicas share evenly.

        Large batches profit most: see docs/dispatch.md for what is left of the gain.
        """
        with self._lock:
            if self._shares is None:
                expected = self._expected
                if self._forecast.num_windows > 0:
                    expected = self._forecast.expected().load.astype(np.float64)
                self._shares = read_only(self._shares_of(expected))
            return self._shares

    def _shares_of(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        plan = self.plan
        filled = plan.phy2log >= 0
        total = np.take_along_axis(load, plan.phy2log, axis=1)
        even: NDArray[np.float64] = filled / np.take_along_axis(plan.logcnt, plan.phy2log, axis=1)
        if not self._any_expected and self._forecast.num_windows == 0:
            return even
        np.divide(self.split(load), total, out=even, where=filled & (total > 0))
        return even

    def binding_gpus(self, counts: ArrayLike) -> NDArray[np.bool_]:
        """Find the GPUs that prove a split optimal: no split of these counts can relieve them.

        Their load is that of the experts whose replicas are all on them, so no other GPU can take
        any of it; and they have no more room, as all of them take the longest time, or a unit of
        load less. A replica of one of their experts elsewhere is what the plan lacks.

        Parameters
        ----------
        counts : array_like, shape [L, E]
            As in `split`.

        Returns
        -------
        ndarray, shape [L, num_gpus], bool
            The slowest GPUs of each layer under the evened-out split, and all GPUs that these
            share experts with, directly or through others. At least one in each layer.

        Raises
        ------
        ValueError
            As in `split`.

        Notes
        -----
        For a set S of GPUs, (load that only S can take) / (speed of S) is a lower bound on the
        makespan. For the set returned, it is the makespan itself; rounded up, if GPUs are alike
        and counts are integers.

        Examples
        --------
        >>> from eplb_np import Splitter, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> splitter = Splitter(plan)
        >>> splitter.binding_gpus([[60, 50, 5, 15]]).tolist()  # both are as busy
        [[True, True]]
        >>> splitter.binding_gpus([[10, 10, 90, 10]]).tolist()  # only GPU 0 holds expert 2
        [[True, False]]
        """
        given = self._as_counts(counts, "counts")
        _, evened_cpu = _kernels()
        binding = np.empty((self._shape[0], self.plan.topology.num_gpus), np.bool_)
        slots = np.empty(self.plan.phy2log.shape, given.dtype)
        evened_cpu.find_binding_gpus(self.graph, given, self._scratch(given.dtype), slots, binding)
        return binding

    def _split(
        self, counts: NDArray[Any], evened: bool, out: NDArray[Any], first_layer: int = 0
    ) -> NDArray[Any]:
        if not isinstance(evened, (bool, np.bool_)):
            raise ValueError(f"evened={one_line(evened)} is unknown: give True or False")
        split_cpu, evened_cpu = _kernels()
        split = evened_cpu.split_layers_evenly if evened else split_cpu.split_layers
        split(self.graph, first_layer, counts, self._scratch(counts.dtype), out)
        return out

    def _scratch(self, dtype: np.dtype[Any]) -> SplitScratch:
        """Return the calling thread's working memory, which is allocated once."""
        name = dtype.name
        scratch: SplitScratch | None = getattr(self._memory, name, None)
        if scratch is None:
            scratch = _kernels()[0].make_split_scratch(self.graph, dtype.type)
            setattr(self._memory, name, scratch)
        return scratch

    def _as_counts(
        self, counts: ArrayLike, name: str, shape: tuple[int, ...] | None = None
    ) -> NDArray[Any]:
        """Return counts as a C-contiguous int64 or float64 array that can be split."""
        given = as_array(counts, name)
        wanted = self._shape if shape is None else shape
        if given.shape != wanted:
            axes = "[layers, experts]" if len(wanted) == 2 else "[experts]"
            raise ValueError(
                f"{name} has shape {given.shape}, but the plan is for {axes} = {wanted}: give "
                "counts of that shape"
            )
        whole = given.dtype.kind in "biu"
        dtype = np.int64 if whole else np.float64
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(given, dtype, order="C")
        if not array.flags.carray:
            array = array.copy()
        rows = array.reshape(-1, wanted[-1])
        bad = int(_kernels()[0].first_bad_count(rows, LARGEST_COUNT if whole else LARGEST_LOAD))
        if bad >= 0:
            _raise_bad_count(given, name, bad, rows.size)
        return array

    def _as_out(
        self, out: NDArray[Any] | None, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        if out is None:
            return np.empty(shape, dtype)
        if not isinstance(out, np.ndarray) or (out.dtype, out.shape) != (dtype, shape):
            said = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else one_line(out)
            raise ValueError(f"out={said} does not fit: give a {dtype.name} array of shape {shape}")
        if not out.flags.carray:
            raise ValueError("out cannot be written in place: give a C-contiguous, writable array")
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return Splitter, (self.plan, self._expected if self._any_expected else None)

    def __repr__(self) -> str:
        return f"Splitter({self.plan})"


@cache
def _kernels() -> tuple[Any, Any]:
    """Import the kernels when they are needed, once: that loads Numba."""
    from eplb_np.dispatch import evened_cpu, split_cpu

    return split_cpu, evened_cpu


def split_load(plan: Plan, load: ArrayLike, *, evened: bool = True) -> NDArray[Any]:
    """Split a load over the replicas of a plan so that no GPU takes longer than it must.

    Parameters
    ----------
    plan : Plan
        Any plan.
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit.
    evened : bool, default: True
        Whether to even out the GPUs below the slowest one too: the longest GPU time is the least
        that any split allows, then the second longest, and so on.

    Returns
    -------
    ndarray, shape [L, P], int64 or float64
        Load of each slot; integers for integer loads, and then the slots of an expert add up to
        exactly its load.

    Raises
    ------
    ValueError
        If ``plan`` is not a `Plan`, or ``load`` is not a valid load for it (see `Splitter.split`).

    See Also
    --------
    Splitter : Prepares a plan once, for many batches.

    Notes
    -----
    As `Splitter`, which has the method and its source.

    Examples
    --------
    >>> from eplb_np import make_plan
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> plan.phy2log.tolist()
    [[0, 1, 2, 0, 1, 3]]
    >>> split_load(plan, [[60, 50, 5, 15]]).tolist()
    [[35, 25, 5, 25, 25, 15]]
    """
    return Splitter(plan, load).split(load, evened=evened)


def _raise_bad_count(given: NDArray[Any], name: str, position: int, size: int) -> None:
    if position >= size:
        where = f" of layer {position - size}" if given.ndim == 2 else ""
        raise ValueError(
            f"the {name}{where} add up to more than can be summed exactly (2**53 for integers, "
            "2**960 for floats): scale them down"
        )
    index = np.unravel_index(position, given.shape)
    place = ", ".join(str(int(i)) for i in index)
    raise ValueError(
        f"{name}[{place}] = {given[index]!s}: a count must be finite and not negative: clean the "
        "counts first"
    )
