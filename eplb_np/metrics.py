"""How evenly a plan spreads a load, and how much a change of plans moves.

An expert's replicas share its load evenly. All figures are float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_multiple
from eplb_np._loads.host import as_array, check_loads
from eplb_np.moves.fetches import count_fetches


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
    """
    values = as_array(load, "load").astype(np.float64)
    if values.shape != logcnt.shape:
        raise ValueError(
            f"load has shape {values.shape}, but the plan is for [layers, experts] = "
            f"{logcnt.shape}: give loads of that shape"
        )
    check_loads(values, "load")
    experts = np.asarray(phy2log, np.int64)
    # The -1 of an empty slot has picked the last expert's load: set it to 0.
    loads = np.take_along_axis(values / logcnt, experts, axis=1)
    return np.where(experts < 0, 0.0, loads) if experts.min(initial=0) < 0 else loads


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

    Notes
    -----
    O(L n).
    """
    largest = float(loads.max(axis=1).sum())
    return float(loads.mean(axis=1).sum()) / largest if largest > 0 else 1.0


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

    Notes
    -----
    O(L n).
    """
    largest = loads.max(axis=1)
    mean = loads.mean(axis=1)
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
        a GPU needs twice counts twice. Which slot of its GPU a replica is in does not matter.
        `Moves.num_fetched` differs only if a GPU is to hold an expert more often than before and
        held it before.

    Raises
    ------
    ValueError
        If the shapes differ, or ``num_gpus`` does not divide P.

    Notes
    -----
    O(L P log P).
    """
    if old_phy2log.shape != new_phy2log.shape:
        raise ValueError(
            f"old_phy2log has shape {old_phy2log.shape}, but new_phy2log has shape "
            f"{new_phy2log.shape}: compare plans of the same layers and slots"
        )
    gpus = as_size("num_gpus", num_gpus)
    num_slots = old_phy2log.shape[1]
    check_multiple("the number of slots", num_slots, "num_gpus", gpus)
    return count_fetches(old_phy2log, new_phy2log, np.arange(num_slots) // (num_slots // gpus))
