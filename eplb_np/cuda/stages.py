"""The single stages on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from eplb_np._arguments import as_size, check_enough_replicas, check_multiple
from eplb_np._cuda.arrays import output_arrays, place
from eplb_np._cuda.device import device_errors, require_device
from eplb_np._cuda.launch import choose_threads, launch
from eplb_np._loads.device import as_device_loads


def replicate_experts(
    weight: Any,
    num_phy: int,
    *,
    dtype: DTypeLike = np.int64,
    stream: Any = None,
    out: Sequence[Any] | None = None,
    scratch: Any = None,
    check: bool = True,
    on_host: bool = False,
) -> tuple[Any, Any, Any]:
    """Replicate the logical experts of each row in proportion to their loads, on the GPU.

    Parameters
    ----------
    weight : array, shape [X, E], any real dtype
        Load of each logical expert, as in `rebalance_experts`.
    num_phy : int
        Number of physical experts (replicas) of a row, at least E.
    dtype, stream, out, scratch, check, on_host : optional
        As in `rebalance_experts`.

    Returns
    -------
    phy2log : array, shape [X, num_phy]
        Logical expert of each physical expert, in ascending order.
    rank : array, shape [X, num_phy]
        Which of its expert's replicas it is, from 0.
    logcnt : array, shape [X, E]
        Number of replicas of each logical expert, at least 1.

    Raises
    ------
    ValueError
        As `eplb_np.replicate_experts`, and if ``out``, ``scratch`` or ``stream`` do not fit.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    See Also
    --------
    eplb_np.replicate_experts : The same results, byte for byte, on the CPU.

    Notes
    -----
    One block of threads for each row. Ties and source are those of the CPU's.

    Examples
    --------
    >>> from eplb_np import cuda
    >>> if cuda.is_available():
    ...     phy2log, rank, logcnt = cuda.replicate_experts([[90, 30, 10]], 5, on_host=True)
    ...     assert logcnt.tolist() == [[3, 1, 1]]
    """
    require_device()
    with device_errors():
        from eplb_np.stages.cuda_kernels import REPLICATE_ROWS
        from eplb_np.stages.cuda_scratch import count_bits, scratch_bytes
        from eplb_np.stages.replication.cuda import ReplicationSizes
        from eplb_np.stages.replication.decisions import tail_length

        loads = as_device_loads(weight, stream, check)
        num_rows, num_experts = loads.weight.shape
        num_replicas = as_size("num_phy", num_phy)
        check_enough_replicas(num_replicas, num_experts)
        replicas = num_rows, num_replicas
        shapes = {"phy2log": replicas, "rank": replicas, "logcnt": (num_rows, num_experts)}
        results = output_arrays(shapes, dtype, out, loads.stream)
        num_extra = num_replicas - num_experts
        num_tail = int(tail_length(num_extra))
        threads = choose_threads(num_experts)
        num_bytes, room = scratch_bytes(0, num_experts, num_replicas, 0, threads)
        shift = count_bits(num_experts, num_replicas)
        args = (loads.weight, ReplicationSizes(num_tail, shift, room), *results)
        launch(REPLICATE_ROWS, (num_rows,), threads, num_bytes, loads.stream, scratch, args)
        loads.check()
        return tuple(place(results, loads.stream, on_host))


def balanced_packing(  # noqa: PLR0913
    weight: Any,
    num_packs: int,
    refine_steps: int = 2,
    *,
    dtype: DTypeLike = np.int64,
    stream: Any = None,
    out: Sequence[Any] | None = None,
    scratch: Any = None,
    check: bool = True,
    on_host: bool = False,
) -> tuple[Any, Any]:
    """Pack the items of each row into packs of equal size and nearly equal load, on the GPU.

    Parameters
    ----------
    weight : array, shape [X, n], any real dtype
        Load of each item, as in `rebalance_experts`.
    num_packs : int
        Number of packs; divides n.
    refine_steps : int, default: 2
        Maximum number of swaps between the heaviest and the lightest pack after the packing.
    dtype, stream, out, scratch, check, on_host : optional
        As in `rebalance_experts`; ``out`` has two arrays here.

    Returns
    -------
    pack_index : array, shape [X, n]
        Pack of each item.
    rank_in_pack : array, shape [X, n]
        Place of each item in its pack, from 0.

    Raises
    ------
    ValueError
        As `eplb_np.balanced_packing`, and if ``out``, ``scratch`` or ``stream`` do not fit.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    See Also
    --------
    eplb_np.balanced_packing : The same results, byte for byte, on the CPU.

    Notes
    -----
    One block of threads for each row. Ties and source are those of the CPU's.

    Examples
    --------
    >>> from eplb_np import cuda
    >>> if cuda.is_available():
    ...     pack_index, rank_in_pack = cuda.balanced_packing([[9, 7, 5, 4, 3, 2]], 2, on_host=True)
    ...     assert pack_index.tolist() == [[0, 1, 1, 0, 1, 0]]
    """
    require_device()
    with device_errors():
        from eplb_np.stages.cuda_kernels import PACK_ROWS
        from eplb_np.stages.cuda_scratch import scratch_bytes
        from eplb_np.stages.packing.cuda import PackingSizes

        loads = as_device_loads(weight, stream, check, columns="items")
        num_rows, num_items = loads.weight.shape
        packs = as_size("num_packs", num_packs)
        steps = as_size("refine_steps", refine_steps, minimum=0)
        check_multiple("the number of items", num_items, "num_packs", packs)
        shapes = {"pack_index": (num_rows, num_items), "rank_in_pack": (num_rows, num_items)}
        results = output_arrays(shapes, dtype, out, loads.stream)
        threads = choose_threads(num_items)
        num_bytes, room = scratch_bytes(0, 0, 0, num_items, threads)
        args = (loads.weight, PackingSizes(packs, steps, room), *results)
        launch(PACK_ROWS, (num_rows,), threads, num_bytes, loads.stream, scratch, args)
        loads.check()
        return tuple(place(results, loads.stream, on_host))
