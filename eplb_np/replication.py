"""Replica allocation: how many replicas each logical expert gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._check import as_load, as_size


def replicate_experts(
    weight: ArrayLike, num_phy: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give every logical expert of each row a number of replicas that fits its load.

    Parameters
    ----------
    weight : array_like, shape [X, E], any real dtype
        Load of each logical expert, in any unit; rows are planned independently. Cast to
        float32.
    num_phy : int
        Number of physical experts (replicas) of a row, at least E.

    Returns
    -------
    phy2log : ndarray, shape [X, num_phy], int64
        Logical expert of each physical expert: ascending, an expert's replicas side by side.
    rank : ndarray, shape [X, num_phy], int64
        Which of its expert's replicas it is, from 0.
    logcnt : ndarray, shape [X, E], int64
        Number of replicas of each logical expert, at least 1.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if ``num_phy`` is not an integer or
        less than E.

    See Also
    --------
    balanced_packing : The next stage, which places the replicas.

    Notes
    -----
    Every expert starts with one replica; each further one goes to the expert with the largest
    ``load / count``, Adams' divisor method [1]_, but for the last tenth, which goes by
    Sainte-Lague's ``load / (2 count + 1)``. A last step would move a replica from the largest
    average to the smallest if that lowered the largest, which it never does. Of equal quotients
    the lower expert wins. O(E + (P - E) log E) for each row.

    References
    ----------
    .. [1] M. L. Balinski and H. P. Young, "Fair Representation", 2nd ed., Brookings, 2001.

    Examples
    --------
    >>> phy2log, rank, logcnt = replicate_experts([[90, 30, 10]], 5)
    >>> logcnt.tolist(), phy2log.tolist()
    ([[3, 1, 1]], [[0, 0, 0, 1, 2]])
    """
    load = as_load(weight)
    num_layers, num_experts = load.shape
    num_replicas = as_size("num_phy", num_phy)
    check_enough(num_replicas, num_experts)
    from eplb_np.kernels.replication import replicate_layers

    phy2log = np.empty((num_layers, num_replicas), np.int64)
    rank = np.empty((num_layers, num_replicas), np.int64)
    logcnt = np.empty((num_layers, num_experts), np.int64)
    replicate_layers(load, phy2log, rank, logcnt)
    return phy2log, rank, logcnt


def check_enough(num_replicas: int, num_experts: int) -> None:
    """Raise ``ValueError`` where there are fewer replicas than experts."""
    if num_replicas < num_experts:
        raise ValueError(
            f"num_phy={num_replicas} is less than the {num_experts} experts of weight: "
            f"every expert needs a replica, so give num_phy={num_experts} or more"
        )
