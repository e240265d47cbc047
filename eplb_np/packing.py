"""Balanced packing: weighted items into packs that take equally many."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._check import as_load, as_size
from eplb_np.topology import check_multiple


def balanced_packing(
    weight: ArrayLike, num_packs: int, refine_steps: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack the items of each row into packs of equal size and nearly equal load.

    Parameters
    ----------
    weight : array_like, shape [X, n], any real dtype
        Load of each item, in any unit; rows are packed independently. Cast to float32.
    num_packs : int
        Number of packs; divides n.
    refine_steps : int, default: 2
        Most swaps between the heaviest and the lightest pack after the packing; 0 for none.

    Returns
    -------
    pack_index : ndarray, shape [X, n], int64
        Pack of each item.
    rank_in_pack : ndarray, shape [X, n], int64
        Place of each item in its pack, from 0.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if a size is not an integer or too
        small, or ``num_packs`` does not divide n.

    See Also
    --------
    replicate_experts : The stage before.

    Notes
    -----
    Longest processing time first [1]_ under the constraint of equal sizes: the heaviest item
    goes to the lightest pack that is not full, and so on. Then, at most ``refine_steps`` times,
    the two items whose exchange brings the heaviest and the lightest pack closest together
    change packs, as long as that narrows the gap. Ties go to the lower index. With one item for
    each pack, item i goes to pack i. O(n log num_packs) for each row.

    References
    ----------
    .. [1] R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied
       Mathematics 17(2), 1969.

    Examples
    --------
    >>> pack_index, rank_in_pack = balanced_packing([[9, 7, 5, 4, 3, 2]], 2)
    >>> pack_index.tolist(), rank_in_pack.tolist()
    ([[0, 1, 1, 0, 1, 0]], [[0, 0, 1, 1, 2, 2]])
    """
    load = as_load(weight, columns="items")
    packs = as_size("num_packs", num_packs)
    steps = as_size("refine_steps", refine_steps, minimum=0)
    check_multiple("the number of items", load.shape[1], "num_packs", packs)
    from eplb_np.kernels.packing import pack_layers

    pack_index = np.empty(load.shape, np.int64)
    rank_in_pack = np.empty(load.shape, np.int64)
    pack_layers(load, packs, steps, pack_index, rank_in_pack)
    return pack_index, rank_in_pack
