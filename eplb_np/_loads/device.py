"""Loads on the GPU, or on their way there, checked as on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from eplb_np._cuda.arrays import take_array, to_host
from eplb_np._cuda.device import DeviceError, as_stream, numba_cuda, wait_for
from eplb_np._cuda.launch import configured
from eplb_np._loads.host import as_load, check_rows


class DeviceLoads(NamedTuple):
    """Loads on the GPU in the form that kernels take, and the stream on which they are ready."""

    weight: Any  # [X, n] float32, C-contiguous
    stream: Any
    doubtful: Any  # [X] int32, 1 for rows that may hold bad loads; None if unchecked
    name: str
    columns: str

    def check(self) -> None:
        """Wait for the stream, and raise ``ValueError`` as on the CPU if any load is bad."""
        if self.doubtful is not None and to_host(self.doubtful, self.stream).any():
            as_load(to_host(self.weight, self.stream), self.name, self.columns)


def as_device_loads(
    load: Any, stream: Any, check: bool, name: str = "weight", columns: str = "experts"
) -> DeviceLoads:
    """Copy loads to the GPU, or take them as they are if they are there already.

    Loads from the host are checked on the host. Loads on the GPU are checked on the GPU if
    ``check`` is set, and only `DeviceLoads.check` waits for the result.
    """
    cuda = numba_cuda()
    own = None if stream is None else as_stream(stream)
    given, producer = take_array(load, own, name)
    if given is None:
        target = 0 if own is None else own
        weight = cuda.to_device(as_load(load, name, columns), stream=target)
        return DeviceLoads(weight, target, None, name, columns)

    if own is None:
        own = as_stream(producer)
    elif producer is not None:
        wait_for(producer, own)
    shape = tuple(given.shape)
    check_rows(shape, name, columns)
    if given.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} has dtype {given.dtype}, which is not a real number type: "
            "give integers or floating-point numbers"
        )
    weight = given
    if given.dtype != np.float32 or not given.is_c_contiguous():
        from eplb_np._loads.cuda import cast_rows

        weight = cuda.device_array(shape, np.float32, stream=own)
        configured(cast_rows, shape[0], 128, own)(given, weight)
    doubtful = None
    if check:
        from eplb_np._loads.cuda import CHECK_THREADS, find_doubtful_rows

        doubtful = cuda.device_array(shape[0], np.int32, stream=own)
        configured(find_doubtful_rows, shape[0], CHECK_THREADS, own)(weight, doubtful)
    return DeviceLoads(weight, own, doubtful, name, columns)


def as_host_load(load: Any) -> Any:
    """Copy loads on the GPU to the host, and return other loads as they are."""
    if isinstance(load, np.ndarray):
        return load
    try:
        given, producer = take_array(load, None, "load")
    except DeviceError:
        return load
    return load if given is None else to_host(given, as_stream(producer))
