"""How evenly a plan spreads a load, and how much a change of plans moves.

An expert's replicas share its load evenly. All figures are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import LARGEST_SIZE, as_size, check_multiple
from eplb_np._loads.host import as_array, check_loads
from eplb_np.moves.fetches import count_fetches

LARGEST_LOAD = 2.0**960
"""Sums of loads up to this one, over all layers and experts, are finite."""


def replica_load(
    phy2log: NDArray[np.integer], logcnt: NDArray[np.integer], load: ArrayLike
) -> NDArray[np.float64]:
    """Compute the load of the replica in each slot.

    Parameters
    ----------
    phy2log : ndarray, shape [L, P], int
        Logical expert in each slot, -1 in an empty one.
    logcnt : ndarray, shape [L, E], int
        Number of replicas of each expert.
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit.

    Returns
    -------
    ndarray, shape [L, P], float64
        In the unit of ``load``; 0 in an empty slot.

    Raises
    ------
    ValueError
        If the shape of ``load`` is not that of ``logcnt``, or a load is NaN, infinite or
        negative.

    Notes
    -----
    O(L (E + P)).

    Examples
    --------
    >>> from eplb_np import replica_load
    >>> replica_load([[0, 1, 2, 0]], [[2, 1, 1]], [[90, 30, 10]]).tolist()
    [[45.0, 30.0, 10.0, 45.0]]
    """
    experts, counts = _as_ids("phy2log", phy2log), _as_ids("logcnt", logcnt)
    with np.errstate(over="ignore"):
        values = as_array(load, "load").astype(np.float64)
    if values.shape != counts.shape:
        raise ValueError(
            f"load has shape {values.shape}, but the plan is for [layers, experts] = "
            f"{counts.shape}: give loads of that shape"
        )
    check_loads(values, "load")
    if values.max() > LARGEST_LOAD:
        raise ValueError(
            f"load has an entry of {values.max():.3g}, but sums of loads must be finite, too: "
            "scale the loads down (only their ratios matter)"
        )
    if len(experts) != len(counts) or experts.max() >= counts.shape[1] or counts.min() < 1:
        raise ValueError(
            f"phy2log of shape {experts.shape}, with experts up to {experts.max()}, does not fit "
            f"logcnt of shape {counts.shape}, with counts from {counts.min()}: give those of a plan"
        )
    # The -1 of an empty slot has picked the last expert's load: set it to 0.
    loads = np.take_along_axis(values / counts, experts, axis=1)
    return np.where(experts < 0, 0.0, loads) if experts.min() < 0 else loads


def gpu_load(
    phy2log: NDArray[np.integer], logcnt: NDArray[np.integer], load: ArrayLike, num_gpus: int
) -> NDArray[np.float64]:
    """Compute the load of each GPU.

    Parameters
    ----------
    phy2log : ndarray, shape [L, P], int
        Logical expert in each slot, -1 in an empty one.
    logcnt : ndarray, shape [L, E], int
        Number of replicas of each expert.
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit.
    num_gpus : int
        GPUs; divides P.

    Returns
    -------
    ndarray, shape [L, num_gpus], float64
        In the unit of ``load``.

    Raises
    ------
    ValueError
        If the shape of ``load`` is not that of ``logcnt``, a load is NaN, infinite or negative,
        or ``num_gpus`` does not divide P.

    Notes
    -----
    O(L (E + P)).

    Examples
    --------
    >>> from eplb_np import gpu_load
    >>> gpu_load([[0, 1, 2, 0]], [[2, 1, 1]], [[90, 30, 10]], num_gpus=2).tolist()
    [[75.0, 55.0]]
    """
    slots = replica_load(phy2log, logcnt, load)
    gpus = as_size("num_gpus", num_gpus)
    check_multiple("the number of slots", slots.shape[1], "num_gpus", gpus)
    per_gpu: NDArray[np.float64] = slots.reshape(slots.shape[0], gpus, -1).sum(axis=2)
    return per_gpu


def balancedness(loads: NDArray[np.floating]) -> float:
    """Ratio of mean load to largest load, both summed over layers: 1 is perfect.

    Parameters
    ----------
    loads : ndarray, shape [L, n], float
        Load of each GPU (`gpu_load`) or slot (`replica_load`) of each layer.

    Returns
    -------
    float
        Sum over layers of the mean load, divided by the sum over layers of the largest load,
        since every layer waits for its busiest GPU. 1.0 if all loads are zero.

    Raises
    ------
    ValueError
        If ``loads`` is not a table of numbers with two axes, neither of them empty.

    Notes
    -----
    O(L n).

    Examples
    --------
    >>> from eplb_np import balancedness
    >>> round(balancedness([[75, 55], [20, 40]]), 3)  # (65 + 30) / (75 + 40)
    0.826
    """
    checked = _as_table("loads", loads)
    largest = float(checked.max(axis=1).sum())
    return float(checked.mean(axis=1).sum()) / largest if largest > 0 else 1.0


def layer_balancedness(loads: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ratio of mean load to largest load of each layer: 1 is perfect.

    Parameters
    ----------
    loads : ndarray, shape [L, n], float
        Load of each GPU (`gpu_load`) or slot (`replica_load`) of each layer.

    Returns
    -------
    ndarray, shape [L], float64
        1.0 for a layer without load.

    Raises
    ------
    ValueError
        If ``loads`` is not a table of numbers with two axes, neither of them empty.

    Notes
    -----
    O(L n).

    Examples
    --------
    >>> from eplb_np import layer_balancedness
    >>> layer_balancedness([[75, 55], [20, 40], [0, 0]]).round(3).tolist()
    [0.867, 0.75, 1.0]
    """
    checked = _as_table("loads", loads)
    largest = checked.max(axis=1)
    mean = checked.mean(axis=1)
    ratio: NDArray[np.float64] = np.ones_like(mean)
    np.divide(mean, largest, out=ratio, where=largest > 0)
    return ratio


def moved_replicas(
    old_phy2log: NDArray[np.integer], new_phy2log: NDArray[np.integer], num_gpus: int
) -> int:
    """Count the replicas that GPUs must fetch to go from one plan to another.

    Parameters
    ----------
    old_phy2log, new_phy2log : ndarray, shape [L, P], int
        Logical expert in each slot, before and after; -1 in an empty one.
    num_gpus : int
        GPUs; divides P.

    Returns
    -------
    int
        Replicas that a GPU needs and does not hold, summed over GPUs and layers. An expert that
        a GPU needs twice counts twice, although one copy of its weights has to travel:
        `Moves.num_fetched` counts it once. Without an expert twice on a GPU the two are equal.
        Which slot of its GPU a replica is in does not matter.

    Raises
    ------
    ValueError
        If the shapes differ, or ``num_gpus`` does not divide P.

    Notes
    -----
    O(L P log P).

    Examples
    --------
    >>> from eplb_np import moved_replicas
    >>> moved_replicas([[0, 1, 2, 0]], [[1, 0, 2, 1]], num_gpus=2)  # GPU 1 needs expert 1
    1
    """
    old, new = _as_ids("old_phy2log", old_phy2log), _as_ids("new_phy2log", new_phy2log)
    if old.shape != new.shape:
        raise ValueError(
            f"old_phy2log has shape {old.shape}, but new_phy2log has shape "
            f"{new.shape}: compare plans of the same layers and slots"
        )
    gpus = as_size("num_gpus", num_gpus)
    num_slots = old.shape[1]
    check_multiple("the number of slots", num_slots, "num_gpus", gpus)
    return count_fetches(old, new, np.arange(num_slots) // (num_slots // gpus))


def _as_ids(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return a table of expert ids or counts, -1 where there is none, as int64."""
    table = _as_table(name, values, kinds="iu")
    if table.min() < -1 or table.max() > LARGEST_SIZE:
        raise ValueError(
            f"{name} has entries from {table.min()} to {table.max()}: "
            f"give integers from -1 to {LARGEST_SIZE}"
        )
    return table.astype(np.int64, copy=False)


def _as_table(name: str, values: ArrayLike, kinds: str = "biuf") -> NDArray[Any]:
    table = as_array(values, name)
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in kinds:
        raise ValueError(
            f"{name} has shape {table.shape} and dtype {table.dtype}: "
            f"give {'integers' if kinds == 'iu' else 'numbers'} with two axes, neither empty"
        )
    return table
