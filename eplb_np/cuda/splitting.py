"""`GpuSplitter` and `assign`: each batch split over the replicas of a plan, on the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from eplb_np._arguments import as_size
from eplb_np._cuda import launch
from eplb_np._cuda.arrays import output_arrays, place, take_integers
from eplb_np._cuda.device import as_stream, device_errors, require_device
from eplb_np._cuda.launch import choose_threads, configured
from eplb_np.dispatch.splitter import Splitter
from eplb_np.plan import Plan

if TYPE_CHECKING:
    from eplb_np.dispatch.cuda_graph import RoundGraphs

MOST_BLOCKS_OF_IDS = 32
"""Each block adds up what all before it counted; beyond this many, blocks take several tiles."""


class GpuSplitter:
    """Splits each batch over the replicas of a plan on the GPU, from counts that are there.

    Prepares a plan once, and splits as many batches as needed: no GPU takes longer than it must.
    A split depends on nothing but the plan, ``expected`` and the counts: every rank that computes
    it gets the same numbers.

    Parameters
    ----------
    plan : Plan
        Any plan. Its GPUs may differ in slots and speed, or be gone.
    expected : array_like, shape [L, E], optional
        Load that batches are expected to have, in any unit; by default equal for all experts. It
        makes splits faster, and decides nothing but which of several equally good splits is found.
    stream : optional
        Stream on which the plan is copied to the GPU. Splits on other streams must come after it.

    Attributes
    ----------
    plan : Plan
        The plan given.

    Raises
    ------
    ValueError
        If ``plan`` is not a `Plan`, or ``expected`` does not fit it.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    Notes
    -----
    One block of threads splits one layer, in one launch. The split is exact: it does what can be
    done at once in rounds, and makes as many as the counts take. Splits of one splitter may run on
    several streams at once, unless layers are too large for shared memory, as at 6144 global 1024;
    then its splits share working memory.

    The method and its source are those of `eplb_np.Splitter`. Of several splits that are equally
    good, this may be another one.

    Examples
    --------
    >>> from eplb_np import cuda, make_plan
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> if cuda.is_available():
    ...     splitter = cuda.GpuSplitter(plan)
    ...     slot_load = splitter.split([[60, 50, 5, 15]], on_host=True)
    ...     assert slot_load.reshape(2, 3).sum(axis=1).tolist() == [65, 65]
    """

    def __init__(
        self, plan: Plan, expected: ArrayLike | None = None, *, stream: Any = None
    ) -> None:
        graph = Splitter(plan, expected).graph
        cuda = require_device()
        from eplb_np.dispatch.cuda_graph import build_round_graphs
        from eplb_np.dispatch.cuda_steps import scratch_words

        self.plan = plan
        self.graphs: RoundGraphs = build_round_graphs(
            plan.phy2log.astype(np.int64, copy=False),
            plan.topology.gpus.first_slot,
            graph,
        )
        sizes = self.graphs.sizes
        with device_errors():
            own = as_stream(stream)
            self._words = cuda.to_device(self.graphs.words, stream=own)
            self._doubles = cuda.to_device(self.graphs.doubles, stream=own)
            num_words = int(scratch_words(sizes))
            self._num_bytes = 8 * num_words
            self._memory: tuple[Any, ...] = ()
            if self._num_bytes > launch.SHARED_BYTES:
                memory = cuda.device_array((plan.num_layers, num_words), np.int64, stream=own)
                self._memory = memory, memory.view(np.float64)

    def split(
        self,
        counts: Any,
        *,
        dtype: DTypeLike = np.int64,
        stream: Any = None,
        out: Any = None,
        on_host: bool = False,
    ) -> Any:
        """Split the load of every layer.

        Parameters
        ----------
        counts : array, shape [L, E], int64 or int32
            Tokens of each logical expert in the batch: anything on the GPU with
            ``__cuda_array_interface__`` or DLPack, C-contiguous, or integers on the host. Those of
            a layer must add up to less than 2**38; nothing checks that, nor that they are not
            negative.
        dtype : {int64, int32}, default: int64
            Integer type of the result, unless ``out`` is given.
        stream : optional
            Stream to work on, as in `eplb_np.cuda.rebalance_experts`.
        out : array, shape [L, P], int64 or int32, optional
            C-contiguous array on the GPU for the result. With ``counts`` on the GPU, the call then
            allocates nothing and waits for nothing: it can be captured in a CUDA graph.
        on_host : bool, default: False
            Whether to return a NumPy array.

        Returns
        -------
        array, shape [L, P]
            Load of each slot, 0 in an empty one. The slots of an expert add up to its count.

        Raises
        ------
        ValueError
            If an array has another shape or type.
        DeviceError
            If the GPU fails.

        Notes
        -----
        As `GpuSplitter`.

        Examples
        --------
        >>> from eplb_np import cuda, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> if cuda.is_available():
        ...     splitter = cuda.GpuSplitter(plan)
        ...     slot_load = splitter.split([[60, 50, 5, 15]], on_host=True)
        ...     assert slot_load.sum() == 130
        """
        return self._split(0, counts, self.plan.logcnt.shape, dtype, stream, out, on_host)

    def split_layer(
        self,
        layer: int,
        counts: Any,
        *,
        dtype: DTypeLike = np.int64,
        stream: Any = None,
        out: Any = None,
        on_host: bool = False,
    ) -> Any:
        """Split the load of one layer.

        Parameters
        ----------
        layer : int
            Row of the plan, 0 .. L - 1.
        counts : array, shape [E], int64 or int32
            As a row of those of `split`.
        dtype, stream : optional
            As in `split`.
        out : array, shape [P], int64 or int32, optional
            As in `split`.
        on_host : bool, default: False
            As in `split`.

        Returns
        -------
        array, shape [P]
            As a row of what `split` returns.

        Raises
        ------
        ValueError
            As in `split`, or if there is no such layer.
        DeviceError
            If the GPU fails.

        Notes
        -----
        As `GpuSplitter`.

        Examples
        --------
        >>> from eplb_np import cuda, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> if cuda.is_available():
        ...     splitter = cuda.GpuSplitter(plan)
        ...     slot_load = splitter.split_layer(0, [60, 50, 5, 15], on_host=True)
        ...     assert slot_load.sum() == 130
        """
        row = as_size("layer", layer, minimum=0, maximum=self.plan.num_layers - 1)
        return self._split(row, counts, self.plan.logcnt.shape[1:], dtype, stream, out, on_host)

    def _split(
        self,
        first_layer: int,
        counts: Any,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        stream: Any,
        out: Any,
        on_host: bool,
    ) -> Any:
        from eplb_np.dispatch.cuda_kernels import SPLIT_ROWS
        from eplb_np.dispatch.cuda_rounds import MOST_ROUNDS

        sizes = self.graphs.sizes
        with device_errors():
            given, own = take_integers(counts, _own_stream(stream), "counts", shape)
            num_slots = self.plan.topology.num_replicas
            shapes = {"slot_load": (*shape[:-1], num_slots)}
            [result] = output_arrays(shapes, dtype, None if out is None else [out], own)
            rows = shape[0] if len(shape) == 2 else 1
            threads = choose_threads(int(max(sizes.num_gpus, sizes.most_shared, num_slots // 4)))
            kernel = SPLIT_ROWS.large if self._memory else SPLIT_ROWS.shared
            shared_bytes = 0 if self._memory else self._num_bytes
            configured(kernel, rows, threads, own, shared_bytes)(
                given.reshape(rows, shape[-1]), sizes, first_layer, self._words, self._doubles,
                MOST_ROUNDS, result.reshape(rows, num_slots), *self._memory,
            )  # fmt: skip
            return place([result], own, on_host)[0]

    def __repr__(self) -> str:
        return f"GpuSplitter({self.plan})"


def assign(
    topk_ids: Any,
    quotas: Any,
    log2phy: Any,
    *,
    stream: Any = None,
    out: Any = None,
    scratch: Any = None,
    on_host: bool = False,
) -> Any:
    """Turn the experts that a rank's tokens were routed to into slots on the GPU, by its quotas.

    Parameters
    ----------
    topk_ids : array, shape [T, k], int64 or int32
        Logical experts of each of the rank's tokens, on the GPU (or the host), C-contiguous. -1 is
        padding, and stays -1, as does what is no expert.
    quotas : array, shape [P], int64 or int32
        Tokens that this rank sends to each slot.
    log2phy : array, shape [E, X], int64 or int32
        Slot of each replica of each expert, padded with -1: ``plan.log2phy[layer]``.
    stream : optional
        Stream to work on, as in `eplb_np.cuda.rebalance_experts`.
    out : array, shape [T, k], int64 or int32, optional
        C-contiguous array on the GPU for the result, by default a new one of the ids' dtype.
    scratch : array, optional
        Working memory, 1-D int64 on the GPU. If it is too small, an error says how much is needed.
        With it, ``out``, and arrays on the GPU, the call allocates nothing and waits for nothing:
        it can be captured in a CUDA graph.
    on_host : bool, default: False
        Whether to return a NumPy array.

    Returns
    -------
    array, shape [T, k]
        Slot that holds each token's expert. If the ids are those that were counted, each slot
        stands there as often as its quota says.

    Raises
    ------
    ValueError
        If an array has another shape or type.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    Notes
    -----
    An expert's ids are counted row by row. The first ones go to the first slot of its row of
    ``log2phy``, up to that slot's quota, the next ones to the second slot, and so on; beyond the
    last quota, to the last slot. Two launches: blocks number the ids of each expert in their part,
    then each adds what the blocks before it counted.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import cuda
    >>> topk_ids, log2phy = np.array([[0, 1], [0, 2]]), np.array([[0, 3], [1, -1], [2, -1]])
    >>> if cuda.is_available():
    ...     slots = cuda.assign(topk_ids, np.array([1, 1, 1, 1]), log2phy, on_host=True)
    ...     assert slots.tolist() == [[0, 1], [3, 2]]
    """
    cuda = require_device()
    with device_errors():
        from eplb_np.dispatch.cuda import Tiles
        from eplb_np.dispatch.cuda_kernels import assign_tiles, number_tiles

        ids, own = take_integers(topk_ids, _own_stream(stream), "topk_ids", (None, None))
        given_quotas, _ = take_integers(quotas, own, "quotas", (None,))
        table, _ = take_integers(log2phy, own, "log2phy", (None, None))
        outs = None if out is None else [out]
        [slots] = output_arrays({"slots": tuple(ids.shape)}, ids.dtype, outs, own)
        num_ids, num_experts = ids.shape[0] * ids.shape[1], table.shape[0]
        if num_ids > 0:
            threads = choose_threads(min(num_ids, launch.MOST_THREADS_OF_ONE_ITEM))
            num_tiles = -(-num_ids // threads)
            per_block = -(-num_tiles // MOST_BLOCKS_OF_IDS)
            blocks = -(-num_tiles // per_block)
            words = (num_ids + blocks * num_experts + 1) // 2
            if scratch is None:
                scratch = cuda.device_array(words, np.int64, stream=own)
            memory = launch.as_scratch(scratch, 1, words).view(np.int32)[0]
            turn, chosen = memory[:num_ids], memory[num_ids : num_ids + blocks * num_experts]
            numbered = turn, chosen.reshape(blocks, num_experts)
            tiles, flat = Tiles(per_block, num_experts), ids.reshape(num_ids)
            configured(number_tiles, blocks, threads, own, 4 * (threads + num_experts))(
                flat, tiles, *numbered
            )
            configured(assign_tiles, blocks, threads, own, 4 * num_experts)(
                flat, tiles, *numbered, given_quotas, table, slots.reshape(num_ids)
            )
        return place([slots], own, on_host)[0]


def _own_stream(stream: Any) -> Any:
    return None if stream is None else as_stream(stream)
