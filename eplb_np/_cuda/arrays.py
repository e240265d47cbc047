"""Arrays on the GPU: taken from other libraries, made for results, copied to the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eplb_np._cuda.device import as_stream, numba_cuda, wait_for
from eplb_np._cuda.dlpack import import_array


def take_array(array: Any, stream: Any, name: str) -> tuple[Any, int | None]:
    """Take an array on the GPU, and its stream's handle; (None, None) if it is on the host."""
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


def take_integers(
    array: Any, stream: Any, name: str, shape: tuple[int | None, ...]
) -> tuple[Any, Any]:
    """Integers on the GPU as C-contiguous int64 or int32, and the stream on which they are ready.

    None in a shape stands for any size. ``stream`` is Numba's, or None for the array's own. Arrays
    from the host are copied to the GPU.
    """
    cuda = numba_cuda()
    given, producer = take_array(array, stream, name)
    own = as_stream(producer) if stream is None else stream
    if given is None:
        given = np.asarray(array)
    elif stream is not None and producer is not None:
        wait_for(producer, own)
    fits = len(given.shape) == len(shape) and all(
        wanted is None or size == wanted for size, wanted in zip(given.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {tuple(given.shape)}: give [{wanted}]")
    on_host = isinstance(given, np.ndarray)
    if on_host and given.dtype.kind in "biu":
        dtype = np.int32 if given.dtype == np.int32 else np.int64
        given = cuda.to_device(np.ascontiguousarray(given, dtype), stream=own)
    if given.dtype not in (np.int64, np.int32) or not given.is_c_contiguous():
        raise ValueError(
            f"{name} has dtype {given.dtype}{'' if on_host else ' or gaps in memory'}: give "
            "C-contiguous int64 or int32"
        )
    return given, own


def to_host(array: Any, stream: Any) -> NDArray[Any]:
    """Copy an array from the GPU, after all earlier work of the stream."""
    if not array.is_c_contiguous():
        raise ValueError("an array on the GPU is not C-contiguous: copy it to a contiguous one")
    host: NDArray[Any] = array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return host


def output_arrays(
    shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike, out: Sequence[Any] | None, stream: Any
) -> list[Any]:
    """Arrays on the GPU to write to: new ones, or the checked ones that were passed in."""
    cuda = numba_cuda()
    if out is None:
        return [cuda.device_array(shape, dtype, stream=stream) for shape in shapes.values()]
    if len(out) != len(shapes):
        raise ValueError(f"out has {len(out)} arrays: give {', '.join(shapes)}")
    return [_as_output(array, *wanted) for array, wanted in zip(out, shapes.items(), strict=True)]


def _as_output(array: Any, name: str, shape: tuple[int, ...]) -> Any:
    taken, _ = take_array(array, None, name)
    if taken is None:
        raise ValueError(f"out's {name} is not an array on the GPU: give one of shape {shape}")
    integer = taken.dtype in (np.int64, np.int32)
    if tuple(taken.shape) != shape or not integer or not taken.is_c_contiguous():
        raise ValueError(
            f"out's {name} has shape {tuple(taken.shape)} and dtype {taken.dtype}: "
            f"give a C-contiguous array of shape {shape}, int64 or int32"
        )
    return taken


def place(arrays: Iterable[Any], stream: Any, on_host: bool) -> list[Any]:
    """Leave results on the GPU, or copy them to the host."""
    return [to_host(array, stream) if on_host else array for array in arrays]
