"""Loads on their way in, maps on their way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eplb_np._check import as_load, check_rows
from eplb_np.cuda._device import DeviceError, as_stream, numba_cuda, wait_for
from eplb_np.cuda._dlpack import import_array
from eplb_np.cuda._launch import configured


class DeviceLoads(NamedTuple):
    """Loads on the GPU, as kernels take them, and the stream that they are ready on."""

    weight: Any  # [X, n] float32, C-contiguous
    stream: Any
    doubtful: Any  # [X] int32, where the GPU looks for bad loads; or None
    name: str
    columns: str

    def check(self) -> None:
        """Wait for the stream, and raise ``ValueError`` as on the CPU if the loads are bad."""
        if self.doubtful is not None and to_host(self.doubtful, self.stream).any():
            as_load(to_host(self.weight, self.stream), self.name, self.columns)


def as_device_loads(
    load: Any, stream: Any, check: bool, name: str = "weight", columns: str = "experts"
) -> DeviceLoads:
    """Bring loads to the GPU, or take them where they are there already.

    Loads from the host are checked there. Those on the GPU are looked through on the GPU, and
    what was found is only waited for in `DeviceLoads.check`; not at all without ``check``.
    """
    cuda = numba_cuda()
    own = None if stream is None else as_stream(stream)
    given, producer = _on_device(load, own, name)
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
        weight = cuda.device_array(shape, np.float32, stream=own)
        configured("cast_rows", shape[0], 128, own)(given, weight)
    doubtful = None
    if check:
        from eplb_np.cuda.kernels.loads import CHECK_THREADS

        doubtful = cuda.device_array(shape[0], np.int32, stream=own)
        configured("find_doubtful_rows", shape[0], CHECK_THREADS, own)(weight, doubtful)
    return DeviceLoads(weight, own, doubtful, name, columns)


def _on_device(array: Any, stream: Any, name: str) -> tuple[Any, int | None]:
    """Take an array on the GPU and its stream's handle; nothing where it is on the host."""
    if isinstance(array, (np.ndarray, list, tuple)):
        return None, None
    if getattr(array, "__cuda_ndarray__", False):  # Numba's own
        return array, int(array.stream) or None
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None and hasattr(array, "__dlpack__"):
        array = import_array(array, int(stream or 0), name)
        interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return None, None
    return numba_cuda().as_cuda_array(array, sync=False), interface.get("stream")


def as_host_load(load: Any) -> Any:
    """Return loads that are on the GPU as an array on the host, and others as they are."""
    if isinstance(load, np.ndarray):
        return load
    try:
        given, producer = _on_device(load, None, "load")
    except DeviceError:
        return load
    return load if given is None else to_host(given, as_stream(producer))


def to_host(array: Any, stream: Any) -> NDArray[Any]:
    """Copy an array from the GPU once its stream has come so far."""
    if not array.is_c_contiguous():
        raise ValueError("an array on the GPU is not C-contiguous: make it so, or copy it")
    host: NDArray[Any] = array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return host


def output_arrays(
    shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike, out: Sequence[Any] | None, stream: Any
) -> list[Any]:
    """Arrays on the GPU to write to: new ones, or those that were passed in, checked."""
    cuda = numba_cuda()
    if out is None:
        return [cuda.device_array(shape, dtype, stream=stream) for shape in shapes.values()]
    if len(out) != len(shapes):
        raise ValueError(f"out has {len(out)} arrays: give {', '.join(shapes)}")
    return [_as_output(array, *wanted) for array, wanted in zip(out, shapes.items(), strict=True)]


def _as_output(array: Any, name: str, shape: tuple[int, ...]) -> Any:
    taken, _ = _on_device(array, None, name)
    if taken is None:
        raise ValueError(f"out's {name} is no array on the GPU: give one of shape {shape}")
    integer = taken.dtype in (np.int64, np.int32)
    if tuple(taken.shape) != shape or not integer or not taken.is_c_contiguous():
        raise ValueError(
            f"out's {name} has shape {tuple(taken.shape)} and dtype {taken.dtype}: "
            f"give a C-contiguous array of shape {shape}, int64 or int32"
        )
    return taken


def place(arrays: Iterable[Any], stream: Any, on_host: bool) -> list[Any]:
    """Results where they are asked for: as they are, on the GPU, or on the host."""
    return [to_host(array, stream) if on_host else array for array in arrays]
